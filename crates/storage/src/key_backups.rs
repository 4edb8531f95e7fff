//! `key_backup_versions` and `key_backup_sessions`: encrypted copies of room keys.

use crate::{GenericClient, Result, Row, execute, query, query_one, query_opt};

/// A version of a user's backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBackupVersionRow {
    /// Its number, counted for each user.
    pub version: i64,
    /// How its keys are encrypted.
    pub algorithm: String,
    /// What the algorithm needs: a JSON object.
    pub auth_data: String,
    /// Raised with every change of the keys.
    pub etag: i64,
    /// How many keys there are.
    pub count: i64,
    /// It was deleted; only its number is remembered.
    pub deleted: bool,
}

/// A key in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBackupSessionRow {
    /// The room that the key is for.
    pub room_id: String,
    /// The Megolm session.
    pub session_id: String,
    /// The first message that it can decrypt.
    pub first_message_index: i64,
    /// How often it was passed on between devices.
    pub forwarded_count: i64,
    /// Whether the device that backed it up had verified the device that it came from.
    pub is_verified: bool,
    /// The encrypted key: a JSON object.
    pub session_data: String,
}

/// Creates the user's next version and gives its number.
pub async fn insert_version(
    db: &impl GenericClient,
    user_id: &str,
    algorithm: &str,
    auth_data: &str,
) -> Result<i64> {
    const SQL: &str = "
        INSERT INTO key_backup_versions (user_id, version, algorithm, auth_data)
        SELECT $1, coalesce(max(version), 0) + 1, $2, $3 FROM key_backup_versions WHERE user_id = $1
        RETURNING version";
    Ok(query_one(db, SQL, &[&user_id, &algorithm, &auth_data]).await?.get(0))
}

/// The newest version that was not deleted.
pub async fn get_current_version(
    db: &impl GenericClient,
    user_id: &str,
) -> Result<Option<KeyBackupVersionRow>> {
    const SQL: &str = "
        SELECT version, algorithm, auth_data, etag, count, deleted FROM key_backup_versions
         WHERE user_id = $1 AND NOT deleted ORDER BY version DESC LIMIT 1";
    Ok(query_opt(db, SQL, &[&user_id]).await?.as_ref().map(version_row))
}

/// A version, deleted or not.
pub async fn get_version(
    db: &impl GenericClient,
    user_id: &str,
    version: i64,
) -> Result<Option<KeyBackupVersionRow>> {
    const SQL: &str = "
        SELECT version, algorithm, auth_data, etag, count, deleted FROM key_backup_versions
         WHERE user_id = $1 AND version = $2";
    Ok(query_opt(db, SQL, &[&user_id, &version]).await?.as_ref().map(version_row))
}

/// Takes the lock under which the keys of a version are changed, until the transaction ends.
pub async fn lock_version(db: &impl GenericClient, user_id: &str, version: i64) -> Result<()> {
    const SQL: &str = "SELECT 1 FROM key_backup_versions WHERE user_id = $1 AND version = $2 FOR UPDATE";
    query(db, SQL, &[&user_id, &version]).await?;
    Ok(())
}

/// Replaces the `auth_data` of a version.
pub async fn set_auth_data(
    db: &impl GenericClient,
    user_id: &str,
    version: i64,
    auth_data: &str,
) -> Result<()> {
    const SQL: &str = "UPDATE key_backup_versions SET auth_data = $3 WHERE user_id = $1 AND version = $2";
    execute(db, SQL, &[&user_id, &version, &auth_data]).await?;
    Ok(())
}

/// Deletes a version with its keys; `false` if there never was one of this number.
pub async fn delete_version(db: &impl GenericClient, user_id: &str, version: i64) -> Result<bool> {
    const MARK: &str = "
        UPDATE key_backup_versions SET deleted = true, auth_data = '{}', count = 0 WHERE user_id = $1 AND version = $2";
    const KEYS: &str = "DELETE FROM key_backup_sessions WHERE user_id = $1 AND version = $2";
    let known = execute(db, MARK, &[&user_id, &version]).await? > 0;
    execute(db, KEYS, &[&user_id, &version]).await?;
    Ok(known)
}

/// Adds keys, each only if it is better than the one that is there
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups)): verified rather than not, then
/// with the lower first index, then forwarded less often. Gives the version's row as it is then. The caller holds the
/// [lock](lock_version), and no key is given twice.
pub async fn put_sessions(
    db: &impl GenericClient,
    user_id: &str,
    version: i64,
    sessions: &[KeyBackupSessionRow],
) -> Result<KeyBackupVersionRow> {
    const PUT: &str = "
        INSERT INTO key_backup_sessions AS old
               (user_id, version, room_id, session_id, first_message_index, forwarded_count, is_verified, session_data)
        SELECT $1, $2, n.* FROM unnest($3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bool[], $8::text[]) AS n
            ON CONFLICT (user_id, version, room_id, session_id)
            DO UPDATE SET first_message_index = excluded.first_message_index,
                          forwarded_count = excluded.forwarded_count,
                          is_verified = excluded.is_verified,
                          session_data = excluded.session_data
                    WHERE (NOT excluded.is_verified, excluded.first_message_index, excluded.forwarded_count)
                        < (NOT old.is_verified, old.first_message_index, old.forwarded_count)
        RETURNING (xmax = 0)";
    let text = |get: fn(&KeyBackupSessionRow) -> &str| sessions.iter().map(get).collect::<Vec<&str>>();
    let (rooms, ids, data) =
        (text(|row| &row.room_id), text(|row| &row.session_id), text(|row| &row.session_data));
    let indexes: Vec<i64> = sessions.iter().map(|row| row.first_message_index).collect();
    let forwarded: Vec<i64> = sessions.iter().map(|row| row.forwarded_count).collect();
    let verified: Vec<bool> = sessions.iter().map(|row| row.is_verified).collect();
    let changed =
        query(db, PUT, &[&user_id, &version, &rooms, &ids, &indexes, &forwarded, &verified, &data]).await?;
    let added = changed.iter().filter(|row| row.get(0)).count();
    count_change(db, user_id, version, changed.len(), i64::try_from(added).unwrap_or(i64::MAX)).await
}

/// The keys of a version: all, those of a room, or that of a session.
pub async fn list_sessions(
    db: &impl GenericClient,
    user_id: &str,
    version: i64,
    room_id: Option<&str>,
    session_id: Option<&str>,
) -> Result<Vec<KeyBackupSessionRow>> {
    const SQL: &str = "
        SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data
          FROM key_backup_sessions
         WHERE user_id = $1 AND version = $2
           AND ($3::text IS NULL OR room_id = $3) AND ($4::text IS NULL OR session_id = $4)
         ORDER BY room_id, session_id";
    let rows = query(db, SQL, &[&user_id, &version, &room_id, &session_id]).await?;
    Ok(rows
        .iter()
        .map(|row| KeyBackupSessionRow {
            room_id: row.get(0),
            session_id: row.get(1),
            first_message_index: row.get(2),
            forwarded_count: row.get(3),
            is_verified: row.get(4),
            session_data: row.get(5),
        })
        .collect())
}

/// Deletes keys of a version: all, those of a room, or that of a session. Gives the version's row as it is then. The
/// caller holds the [lock](lock_version).
pub async fn delete_sessions(
    db: &impl GenericClient,
    user_id: &str,
    version: i64,
    room_id: Option<&str>,
    session_id: Option<&str>,
) -> Result<KeyBackupVersionRow> {
    const SQL: &str = "
        DELETE FROM key_backup_sessions
         WHERE user_id = $1 AND version = $2
           AND ($3::text IS NULL OR room_id = $3) AND ($4::text IS NULL OR session_id = $4)";
    let deleted = execute(db, SQL, &[&user_id, &version, &room_id, &session_id]).await?;
    let less = i64::try_from(deleted).unwrap_or(i64::MAX);
    count_change(db, user_id, version, usize::try_from(deleted).unwrap_or(usize::MAX), -less).await
}

async fn count_change(
    db: &impl GenericClient,
    user_id: &str,
    version: i64,
    changed: usize,
    more: i64,
) -> Result<KeyBackupVersionRow> {
    const SQL: &str = "
        UPDATE key_backup_versions SET etag = etag + $3, count = count + $4 WHERE user_id = $1 AND version = $2
        RETURNING version, algorithm, auth_data, etag, count, deleted";
    let step = i64::from(changed > 0);
    Ok(version_row(&query_one(db, SQL, &[&user_id, &version, &step, &more]).await?))
}

fn version_row(row: &Row) -> KeyBackupVersionRow {
    KeyBackupVersionRow {
        version: row.get(0),
        algorithm: row.get(1),
        auth_data: row.get(2),
        etag: row.get(3),
        count: row.get(4),
        deleted: row.get(5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestClient;

    fn session(
        room: &str,
        id: &str,
        index: i64,
        forwarded: i64,
        verified: bool,
        data: &str,
    ) -> KeyBackupSessionRow {
        KeyBackupSessionRow {
            room_id: room.to_owned(),
            session_id: id.to_owned(),
            first_message_index: index,
            forwarded_count: forwarded,
            is_verified: verified,
            session_data: data.to_owned(),
        }
    }

    #[tokio::test]
    async fn versions_are_numbered_and_a_deleted_number_is_not_used_again() {
        let db = TestClient::new().await;
        assert_eq!(insert_version(&*db, "@a:x", "alg", "{}").await.unwrap(), 1);
        assert_eq!(insert_version(&*db, "@a:x", "alg", "{}").await.unwrap(), 2);
        assert_eq!(insert_version(&*db, "@b:x", "alg", "{}").await.unwrap(), 1);
        set_auth_data(&*db, "@a:x", 1, "{\"new\":1}").await.unwrap();
        assert!(delete_version(&*db, "@a:x", 2).await.unwrap());
        assert!(!delete_version(&*db, "@a:x", 9).await.unwrap());
        let current = get_current_version(&*db, "@a:x").await.unwrap().unwrap();
        assert_eq!((current.version, current.auth_data.as_str()), (1, "{\"new\":1}"));
        assert!(get_version(&*db, "@a:x", 2).await.unwrap().unwrap().deleted);
        assert_eq!(insert_version(&*db, "@a:x", "alg", "{}").await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_key_is_replaced_only_by_a_better_one() {
        let db = TestClient::new().await;
        insert_version(&*db, "@a:x", "alg", "{}").await.unwrap();
        lock_version(&*db, "@a:x", 1).await.unwrap();
        // (index, forwarded, verified) in turn, and whether the key was taken.
        let offers = [
            ((5, 5, false), true),
            ((5, 5, false), false),
            ((6, 0, false), false),
            ((5, 4, false), true),
            ((4, 9, false), true),
            ((9, 9, true), true),
            ((0, 0, false), false),
            ((9, 9, true), false),
        ];
        let mut etag = 0;
        for (number, ((index, forwarded, verified), taken)) in offers.into_iter().enumerate() {
            let data = format!("{{\"n\":{number}}}");
            let offer = session("!r", "s", index, forwarded, verified, &data);
            let after = put_sessions(&*db, "@a:x", 1, std::slice::from_ref(&offer)).await.unwrap();
            etag += i64::from(taken);
            assert_eq!((after.etag, after.count), (etag, 1), "offer {number}");
            let kept = list_sessions(&*db, "@a:x", 1, Some("!r"), Some("s")).await.unwrap();
            assert_eq!(kept[0] == offer, taken, "offer {number}");
        }
    }

    #[tokio::test]
    async fn keys_are_read_and_deleted_at_every_level() {
        let db = TestClient::new().await;
        insert_version(&*db, "@a:x", "alg", "{}").await.unwrap();
        let keys = [
            session("!r", "1", 0, 0, true, "{}"),
            session("!r", "2", 0, 0, true, "{}"),
            session("!s", "1", 0, 0, true, "{}"),
        ];
        assert_eq!(put_sessions(&*db, "@a:x", 1, &keys).await.unwrap().count, 3);
        let count = async |room, id| list_sessions(&*db, "@a:x", 1, room, id).await.unwrap().len();
        assert_eq!(
            (count(None, None).await, count(Some("!r"), None).await, count(Some("!r"), Some("2")).await),
            (3, 2, 1)
        );
        let after = delete_sessions(&*db, "@a:x", 1, Some("!r"), Some("2")).await.unwrap();
        assert_eq!((after.count, after.etag), (2, 2));
        let after = delete_sessions(&*db, "@a:x", 1, Some("!nothing"), None).await.unwrap();
        assert_eq!((after.count, after.etag), (2, 2), "nothing changed");
        assert_eq!(delete_sessions(&*db, "@a:x", 1, None, None).await.unwrap().count, 0);
    }
}
