//! `device_list_changes`: whose devices or keys changed, for the stream device_lists.

use myelin_types::{StreamId, WriterId};

use crate::{
    GenericClient, Result, Write,
    one_time_keys::{self, KeyCountsRow},
    query,
};

/// A user's devices or keys changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceListChangeRow {
    /// The place in the stream.
    pub stream_id: StreamId,
    /// Who wrote it.
    pub writer: WriterId,
    /// Whose devices or keys.
    pub user_id: String,
    /// Who learns of it; empty: everyone who shares a room with the user.
    pub seen_by: String,
}

/// Notes changes, each in place of the same writer's earlier one of the same user.
pub async fn set_changes(db: &impl Write, rows: &[DeviceListChangeRow]) -> Result<()> {
    const SQL: &str = "
        INSERT INTO device_list_changes (user_id, seen_by, writer_id, stream_id)
        SELECT user_id, seen_by, writer_id, max(stream_id)
          FROM unnest($1::text[], $2::text[], $3::smallint[], $4::bigint[]) AS n (user_id, seen_by, writer_id, stream_id)
         GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
            ON CONFLICT (user_id, seen_by, writer_id) DO UPDATE SET stream_id = excluded.stream_id";
    if rows.is_empty() {
        return Ok(());
    }
    let user_ids: Vec<&str> = rows.iter().map(|row| row.user_id.as_str()).collect();
    let seen_by: Vec<&str> = rows.iter().map(|row| row.seen_by.as_str()).collect();
    let writers: Vec<i16> = rows.iter().map(|row| row.writer.0).collect();
    let ids: Vec<i64> = rows.iter().map(|row| row.stream_id.0).collect();
    db.write(SQL, &[&user_ids, &seen_by, &writers, &ids]).await
}

/// The changes with ids in `(after, upto]`, by id, at most `limit`. Of a user's changes by one writer only the latest
/// is kept.
pub async fn changes_since(
    db: &impl GenericClient,
    after: StreamId,
    upto: StreamId,
    limit: i64,
) -> Result<Vec<DeviceListChangeRow>> {
    const SQL: &str = "
        SELECT stream_id, writer_id, user_id, seen_by FROM device_list_changes
         WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id LIMIT $3";
    let rows = query(db, SQL, &[&after.0, &upto.0, &limit]).await?;
    Ok(rows
        .iter()
        .map(|row| DeviceListChangeRow {
            stream_id: StreamId(row.get(0)),
            writer: WriterId(row.get(1)),
            user_id: row.get(2),
            seen_by: row.get(3),
        })
        .collect())
}

/// The devices whose keys were counted anew with ids in `(after, upto]`, by id, at most `limit`.
pub async fn key_counts_since(
    db: &impl GenericClient,
    after: StreamId,
    upto: StreamId,
    limit: i64,
) -> Result<Vec<KeyCountsRow>> {
    const SQL: &str = "
        SELECT stream_id, writer_id, user_id, device_id, counts FROM device_key_counts
         WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id LIMIT $3";
    let rows = query(db, SQL, &[&after.0, &upto.0, &limit]).await?;
    rows.iter()
        .map(|row| {
            Ok(KeyCountsRow {
                stream_id: StreamId(row.get(0)),
                writer: WriterId(row.get(1)),
                user_id: row.get(2),
                device_id: row.get(3),
                counts: one_time_keys::parse_counts(row.get(4))?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestClient;

    #[tokio::test]
    async fn only_a_users_latest_change_by_each_writer_is_kept() {
        let db = TestClient::new().await;
        let change = |stream_id, writer, user_id: &str, seen_by: &str| DeviceListChangeRow {
            stream_id: StreamId(stream_id),
            writer: WriterId(writer),
            user_id: user_id.to_owned(),
            seen_by: seen_by.to_owned(),
        };
        set_changes(&*db, &[change(1, 1, "@a:x", ""), change(2, 1, "@a:x", ""), change(3, 2, "@a:x", "")])
            .await
            .unwrap();
        set_changes(&*db, &[change(4, 1, "@a:x", "@b:x"), change(5, 1, "@a:x", "")]).await.unwrap();
        set_changes(&*db, &[]).await.unwrap();
        let since =
            async |after, limit| changes_since(&*db, StreamId(after), StreamId(9), limit).await.unwrap();
        assert_eq!(
            since(0, 10).await,
            [change(3, 2, "@a:x", ""), change(4, 1, "@a:x", "@b:x"), change(5, 1, "@a:x", "")]
        );
        assert_eq!(since(3, 1).await, [change(4, 1, "@a:x", "@b:x")]);
    }

    #[tokio::test]
    async fn recounted_devices_are_found_by_their_id() {
        let db = TestClient::new().await;
        const DEVICE: &str = "INSERT INTO devices (user_id, device_id, created_ts) VALUES ('@a:x', 'D', 0)";
        db.execute(DEVICE, &[]).await.unwrap();
        one_time_keys::lock_first(&*db, &[("@a:x".to_owned(), "D".to_owned())].into()).await.unwrap();
        let counts = one_time_keys::KeyCounts {
            unused_fallback: vec!["alg".to_owned()],
            ..one_time_keys::KeyCounts::default()
        };
        let row = KeyCountsRow {
            stream_id: StreamId(4),
            writer: WriterId(1),
            user_id: "@a:x".to_owned(),
            device_id: "D".to_owned(),
            counts: counts.clone(),
        };
        one_time_keys::set_key_counts(&*db, &[row]).await.unwrap();
        let rows = key_counts_since(&*db, StreamId(3), StreamId(4), 10).await.unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].counts, counts);
        assert!(key_counts_since(&*db, StreamId(4), StreamId(9), 10).await.unwrap().is_empty());
    }
}
