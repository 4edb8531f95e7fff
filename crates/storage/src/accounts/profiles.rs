//! `profile_fields`: names and values, the values as JSON.

use ruma::UserId;

use crate::{GenericClient, Result, Row, execute, query};

/// All fields of a user's profile, by name.
pub async fn list_fields(db: &impl GenericClient, user: &UserId) -> Result<Vec<(String, String)>> {
    const SQL: &str = "SELECT name, value FROM profile_fields WHERE user_id = $1 ORDER BY name";
    let field = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
    query(db, SQL, &[&user.as_str()]).await?.iter().map(field).collect()
}

/// Sets a field, unless the profile as a JSON object would have more than `limit_bytes` then: `false`.
pub async fn set_field(
    db: &impl GenericClient,
    user: &UserId,
    name: &str,
    value: &str,
    limit_bytes: i64,
) -> Result<bool> {
    // Two braces, and per field two quotes, a colon and a comma.
    const SQL: &str = "
        INSERT INTO profile_fields (user_id, name, value)
        SELECT $1, $2, $3
         WHERE 2 + octet_length($2) + octet_length($3) + 4
             + (SELECT coalesce(sum(octet_length(name) + octet_length(value) + 4), 0)
                  FROM profile_fields WHERE user_id = $1 AND name <> $2) <= $4
            ON CONFLICT (user_id, name) DO UPDATE SET value = excluded.value";
    Ok(execute(db, SQL, &[&user.as_str(), &name, &value, &limit_bytes]).await? == 1)
}

/// Deletes a field, if it is there.
pub async fn delete_field(db: &impl GenericClient, user: &UserId, name: &str) -> Result<bool> {
    const SQL: &str = "DELETE FROM profile_fields WHERE user_id = $1 AND name = $2";
    Ok(execute(db, SQL, &[&user.as_str(), &name]).await? == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::tests::{alice, bob, database};

    #[tokio::test]
    async fn fields_are_set_replaced_and_deleted() {
        let (_test, db) = database().await;
        assert!(set_field(&db, alice(), "m.tz", "\"Europe/Berlin\"", 1000).await.unwrap());
        assert!(set_field(&db, alice(), "m.tz", "\"Asia/Tokyo\"", 1000).await.unwrap());
        assert!(set_field(&db, alice(), "displayname", "\"Alice\"", 1000).await.unwrap());
        let fields = list_fields(&db, alice()).await.unwrap();
        let expected = [("displayname", "\"Alice\""), ("m.tz", "\"Asia/Tokyo\"")];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));

        assert!(delete_field(&db, alice(), "m.tz").await.unwrap());
        assert!(!delete_field(&db, alice(), "m.tz").await.unwrap());
        assert_eq!(list_fields(&db, bob()).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_profile_has_a_limit_that_counts_every_field_once() {
        let (_test, db) = database().await;
        // {"a":1,} is 8 bytes by our count, {"a":1,"b":1,} is 14.
        assert!(set_field(&db, alice(), "a", "1", 14).await.unwrap());
        assert!(set_field(&db, alice(), "b", "1", 14).await.unwrap());
        assert!(!set_field(&db, alice(), "c", "1", 14).await.unwrap());
        assert!(!set_field(&db, alice(), "b", "12", 14).await.unwrap());
        assert!(set_field(&db, alice(), "b", "2", 14).await.unwrap(), "the old value does not count");
    }
}
