//! `threepids`: e-mail addresses and phone numbers of users.

use myelin_types::MillisSinceEpoch;
use ruma::{OwnedUserId, UserId};

use super::user_id;
use crate::{GenericClient, Result, Row, execute, query, query_opt};

/// A row of `threepids`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threepid {
    /// `email` or `msisdn`.
    pub medium: String,
    /// The address, in its canonical form.
    pub address: String,
    /// When the user proved that it is theirs.
    pub validated_ts: MillisSinceEpoch,
    /// When it was added to the account.
    pub added_ts: MillisSinceEpoch,
}

/// All addresses of a user.
pub async fn list_threepids(db: &impl GenericClient, user: &UserId) -> Result<Vec<Threepid>> {
    const SQL: &str = "
        SELECT medium, address, validated_ts, added_ts FROM threepids
         WHERE user_id = $1 ORDER BY medium, address";
    let threepid = |row: &Row| {
        Ok(Threepid {
            medium: row.try_get(0)?,
            address: row.try_get(1)?,
            validated_ts: row.try_get::<_, i64>(2)?.cast_unsigned(),
            added_ts: row.try_get::<_, i64>(3)?.cast_unsigned(),
        })
    };
    query(db, SQL, &[&user.as_str()]).await?.iter().map(threepid).collect()
}

/// Whose address it is.
pub async fn get_owner(db: &impl GenericClient, medium: &str, address: &str) -> Result<Option<OwnedUserId>> {
    const SQL: &str = "SELECT user_id FROM threepids WHERE medium = $1 AND address = $2";
    query_opt(db, SQL, &[&medium, &address]).await?.map(|row| user_id(&row, 0)).transpose()
}

/// Adds an address; `false` if it is somebody's already.
pub async fn insert_threepid(db: &impl GenericClient, user: &UserId, threepid: &Threepid) -> Result<bool> {
    const SQL: &str = "
        INSERT INTO threepids (user_id, medium, address, validated_ts, added_ts) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT DO NOTHING";
    let Threepid { medium, address, validated_ts, added_ts } = threepid;
    let (validated_ts, added_ts) = (validated_ts.cast_signed(), added_ts.cast_signed());
    Ok(execute(db, SQL, &[&user.as_str(), medium, address, &validated_ts, &added_ts]).await? == 1)
}

/// Takes an address away; `false` if the user does not have it.
pub async fn delete_threepid(
    db: &impl GenericClient,
    user: &UserId,
    medium: &str,
    address: &str,
) -> Result<bool> {
    const SQL: &str = "DELETE FROM threepids WHERE user_id = $1 AND medium = $2 AND address = $3";
    Ok(execute(db, SQL, &[&user.as_str(), &medium, &address]).await? == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::tests::{alice, bob, database};

    #[tokio::test]
    async fn an_address_is_of_one_user_at_a_time() {
        let (_test, db) = database().await;
        let threepid = Threepid {
            medium: "email".to_owned(),
            address: "a@example.org".to_owned(),
            validated_ts: 1,
            added_ts: 2,
        };
        assert!(insert_threepid(&db, alice(), &threepid).await.unwrap());
        assert!(!insert_threepid(&db, bob(), &threepid).await.unwrap());
        assert_eq!(get_owner(&db, "email", "a@example.org").await.unwrap().as_deref(), Some(alice()));
        assert_eq!(list_threepids(&db, alice()).await.unwrap(), std::slice::from_ref(&threepid));

        assert!(!delete_threepid(&db, bob(), "email", "a@example.org").await.unwrap());
        assert!(delete_threepid(&db, alice(), "email", "a@example.org").await.unwrap());
        assert_eq!(list_threepids(&db, alice()).await.unwrap(), []);
        assert!(insert_threepid(&db, bob(), &threepid).await.unwrap());
    }
}
