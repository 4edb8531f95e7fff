//! `profile_fields`: names and values, the values as JSON. `profile_changes`: whose changed when. `profiles_to_show`: whose have
//! changed what rooms show, but may not be in all of them.

use myelin_types::{StreamId, WriterId};
use ruma::{OwnedUserId, UserId};

use crate::{GenericClient, Result, Row, Write, accounts::user_id, execute, query, query_opt};

/// A user whose profile changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileChange {
    /// Who.
    pub user_id: OwnedUserId,
    /// The last change's place in the stream.
    pub stream_id: StreamId,
    /// Where it was made.
    pub writer: WriterId,
}

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

/// Deletes all fields.
pub async fn delete_fields(db: &impl GenericClient, user: &UserId) -> Result<()> {
    execute(db, "DELETE FROM profile_fields WHERE user_id = $1", &[&user.as_str()]).await.map(drop)
}

/// Notes changes over older ones of the same users. No user may be there twice.
pub async fn upsert_changes(db: &impl Write, changes: &[ProfileChange]) -> Result<()> {
    const SQL: &str = "
        INSERT INTO profile_changes AS p (user_id, stream_id, writer_id)
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::smallint[])
            ON CONFLICT (user_id) DO UPDATE SET stream_id = excluded.stream_id, writer_id = excluded.writer_id
         WHERE p.stream_id < excluded.stream_id";
    let users: Vec<&str> = changes.iter().map(|change| change.user_id.as_str()).collect();
    let ids: Vec<i64> = changes.iter().map(|change| change.stream_id.0).collect();
    let writers: Vec<i16> = changes.iter().map(|change| change.writer.0).collect();
    db.write(SQL, &[&users, &ids, &writers]).await
}

/// At most `limit` changes with ids between two, the second included, by ascending id.
pub async fn changes_since(
    db: &impl GenericClient,
    after: StreamId,
    upto: StreamId,
    limit: i64,
) -> Result<Vec<ProfileChange>> {
    const SQL: &str = "
        SELECT user_id, stream_id, writer_id FROM profile_changes
         WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id LIMIT $3";
    let change = |row: &Row| {
        Ok(ProfileChange {
            user_id: user_id(row, 0)?,
            stream_id: StreamId(row.try_get(1)?),
            writer: WriterId(row.try_get(2)?),
        })
    };
    query(db, SQL, &[&after.0, &upto.0, &limit]).await?.iter().map(change).collect()
}

/// Which change of a profile rooms are to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShowNumber(i64);

/// Notes that rooms are to show a user's profile, in the transaction that changes it.
pub async fn set_to_show(db: &impl GenericClient, user: &UserId) -> Result<()> {
    const SQL: &str = "
        INSERT INTO profiles_to_show (user_id) VALUES ($1)
            ON CONFLICT (user_id) DO UPDATE SET show_number = excluded.show_number";
    execute(db, SQL, &[&user.as_str()]).await.map(drop)
}

/// The last change of a user's profile that some room may not show yet.
pub async fn get_to_show(db: &impl GenericClient, user: &UserId) -> Result<Option<ShowNumber>> {
    const SQL: &str = "SELECT show_number FROM profiles_to_show WHERE user_id = $1";
    query_opt(db, SQL, &[&user.as_str()]).await?.map(|row| Ok(ShowNumber(row.try_get(0)?))).transpose()
}

/// Users whose profile some room may not show yet: the `limit` who have waited longest.
pub async fn list_to_show(db: &impl GenericClient, limit: i64) -> Result<Vec<(OwnedUserId, ShowNumber)>> {
    const SQL: &str = "SELECT user_id, show_number FROM profiles_to_show ORDER BY show_number LIMIT $1";
    let waiting = |row: &Row| Ok((user_id(row, 0)?, ShowNumber(row.try_get(1)?)));
    query(db, SQL, &[&limit]).await?.iter().map(waiting).collect()
}

/// Notes that all rooms show a change, unless there was a later one.
pub async fn delete_to_show(db: &impl GenericClient, user: &UserId, shown: ShowNumber) -> Result<()> {
    const SQL: &str = "DELETE FROM profiles_to_show WHERE user_id = $1 AND show_number = $2";
    execute(db, SQL, &[&user.as_str(), &shown.0]).await.map(drop)
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
    async fn only_the_last_change_counts_as_shown() {
        let (_test, db) = database().await;
        assert_eq!(get_to_show(&db, alice()).await.unwrap(), None);
        set_to_show(&db, alice()).await.unwrap();
        let first = get_to_show(&db, alice()).await.unwrap().unwrap();
        set_to_show(&db, bob()).await.unwrap();
        set_to_show(&db, alice()).await.unwrap();
        delete_to_show(&db, alice(), first).await.unwrap();
        let waiting = list_to_show(&db, 10).await.unwrap();
        assert_eq!(waiting.iter().map(|(user, _)| &**user).collect::<Vec<_>>(), [bob(), alice()]);
        assert_eq!(list_to_show(&db, 1).await.unwrap(), waiting[..1]);
        delete_to_show(&db, alice(), waiting[1].1).await.unwrap();
        assert_eq!(get_to_show(&db, alice()).await.unwrap(), None);
        // Who was slow does not take a change for shown that has come since.
        set_to_show(&db, alice()).await.unwrap();
        delete_to_show(&db, alice(), waiting[1].1).await.unwrap();
        assert!(get_to_show(&db, alice()).await.unwrap().is_some());
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
