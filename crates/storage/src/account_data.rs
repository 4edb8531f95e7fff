//! `account_data`: what clients keep with their account, globally and per room. Its rows are the stream's rows.

use myelin_types::{StreamId, WriterId};
use ruma::{OwnedUserId, UserId};

use crate::{GenericClient, Result, Row, StorageError, Write, accounts::user_id, query, query_one};

/// A row of `account_data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountDataRow {
    /// Whose it is.
    pub user_id: OwnedUserId,
    /// The room; empty for global account data.
    pub room_id: String,
    /// The event type.
    pub event_type: String,
    /// The content, as JSON.
    pub content: String,
    /// The row's place in the stream.
    pub stream_id: StreamId,
    /// Who wrote it.
    pub writer_id: WriterId,
}

impl TryFrom<&Row> for AccountDataRow {
    type Error = StorageError;

    fn try_from(row: &Row) -> Result<Self> {
        Ok(Self {
            user_id: user_id(row, 0)?,
            room_id: row.try_get(1)?,
            event_type: row.try_get(2)?,
            content: row.try_get(3)?,
            stream_id: StreamId(row.try_get(4)?),
            writer_id: WriterId(row.try_get(5)?),
        })
    }
}

/// A row to be written; `room_id` is empty for global account data.
#[derive(Clone, Copy, Debug)]
pub struct NewAccountData<'a> {
    /// Whose it is.
    pub user_id: &'a UserId,
    /// The room; empty for global account data.
    pub room_id: &'a str,
    /// The event type.
    pub event_type: &'a str,
    /// The content, as JSON.
    pub content: &'a str,
    /// The row's place in the stream.
    pub stream_id: StreamId,
    /// Who writes it.
    pub writer_id: WriterId,
}

/// Writes rows, replacing older ones of the same user, room and type. Of several for the same, the last counts.
pub async fn upsert_account_data(db: &impl Write, rows: &[NewAccountData<'_>]) -> Result<()> {
    const SQL: &str = "
        INSERT INTO account_data (user_id, room_id, type, content, stream_id, writer_id)
        SELECT DISTINCT ON (user_id, room_id, type) user_id, room_id, type, content, stream_id, writer_id
          FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::smallint[])
            AS r (user_id, room_id, type, content, stream_id, writer_id)
         ORDER BY user_id, room_id, type, stream_id DESC
            ON CONFLICT (user_id, room_id, type) DO UPDATE
           SET content = excluded.content, stream_id = excluded.stream_id, writer_id = excluded.writer_id
         WHERE account_data.stream_id < excluded.stream_id";
    let users: Vec<&str> = rows.iter().map(|row| row.user_id.as_str()).collect();
    let rooms: Vec<&str> = rows.iter().map(|row| row.room_id).collect();
    let types: Vec<&str> = rows.iter().map(|row| row.event_type).collect();
    let contents: Vec<&str> = rows.iter().map(|row| row.content).collect();
    let ids: Vec<i64> = rows.iter().map(|row| row.stream_id.0).collect();
    let writers: Vec<i16> = rows.iter().map(|row| row.writer_id.0).collect();
    db.write(SQL, &[&users, &rooms, &types, &contents, &ids, &writers]).await
}

/// The rows with an id in `after..=upto`, by id and at most `limit`.
pub async fn account_data_since(
    db: &impl GenericClient,
    after: StreamId,
    upto: StreamId,
    limit: i64,
) -> Result<Vec<AccountDataRow>> {
    const SQL: &str = "
        SELECT user_id, room_id, type, content, stream_id, writer_id
          FROM account_data WHERE stream_id > $1 AND stream_id <= $2
         ORDER BY stream_id LIMIT $3";
    query(db, SQL, &[&after.0, &upto.0, &limit]).await?.iter().map(AccountDataRow::try_from).collect()
}

/// Everything of one user.
pub async fn list_account_data(db: &impl GenericClient, user: &UserId) -> Result<Vec<AccountDataRow>> {
    const SQL: &str = "
        SELECT user_id, room_id, type, content, stream_id, writer_id FROM account_data WHERE user_id = $1";
    query(db, SQL, &[&user.as_str()]).await?.iter().map(AccountDataRow::try_from).collect()
}

/// Locks a user's account data of one room and type until the caller's transaction ends, whether or not there is any
/// yet, and gives its content.
pub async fn lock_content(
    db: &impl GenericClient,
    user: &UserId,
    room_id: &str,
    event_type: &str,
) -> Result<Option<String>> {
    const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
    // A statement of its own, so that it sees what the holder before us has committed.
    const READ: &str = "
        SELECT (SELECT content FROM account_data WHERE user_id = $1 AND room_id = $2 AND type = $3)";
    let name = format!("myelin/account_data/{user}/{room_id}/{event_type}");
    query_one(db, LOCK, &[&name]).await?;
    Ok(query_one(db, READ, &[&user.as_str(), &room_id, &event_type]).await?.try_get(0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::tests::{alice, bob, database};

    fn row<'a>(user_id: &'a UserId, room_id: &'a str, content: &'a str, id: i64) -> NewAccountData<'a> {
        NewAccountData {
            user_id,
            room_id,
            event_type: "m.direct",
            content,
            stream_id: StreamId(id),
            writer_id: WriterId(1),
        }
    }

    #[tokio::test]
    async fn the_last_content_counts_also_within_one_batch() {
        let (_test, db) = database().await;
        let rows =
            [row(alice(), "", "{\"n\":1}", 1), row(alice(), "", "{\"n\":2}", 2), row(bob(), "", "{}", 3)];
        upsert_account_data(&db, &rows).await.unwrap();
        upsert_account_data(&db, &[row(alice(), "!r:s", "{}", 4)]).await.unwrap();
        let mut all = list_account_data(&db, alice()).await.unwrap();
        all.sort_by_key(|row| row.stream_id);
        let seen: Vec<_> = all.iter().map(|row| (row.room_id.as_str(), row.content.as_str())).collect();
        assert_eq!(seen, [("", "{\"n\":2}"), ("!r:s", "{}")]);

        upsert_account_data(&db, &[row(alice(), "", "{\"n\":5}", 5)]).await.unwrap();
        let since = account_data_since(&db, StreamId(2), StreamId(5), 10).await.unwrap();
        assert_eq!(since.iter().map(|row| row.stream_id.0).collect::<Vec<_>>(), [3, 4, 5]);
        let since = account_data_since(&db, StreamId(2), StreamId(4), 1).await.unwrap();
        assert_eq!(since.iter().map(|row| row.user_id.as_ref()).collect::<Vec<&UserId>>(), [bob()]);
    }

    #[tokio::test]
    async fn locking_reads_what_is_there() {
        let (_test, mut db) = database().await;
        upsert_account_data(&db, &[row(alice(), "!r:s", "{\"n\":1}", 1)]).await.unwrap();
        let transaction = crate::Transaction::begin(&mut db);
        let content = lock_content(&transaction, alice(), "!r:s", "m.direct").await.unwrap();
        assert_eq!(content.as_deref(), Some("{\"n\":1}"));
        assert_eq!(lock_content(&transaction, bob(), "!r:s", "m.direct").await.unwrap(), None);
    }
}
