//! `one_time_keys`, `fallback_keys` and `device_key_counts`: keys for starting a session with a device.

use std::collections::BTreeMap;

use myelin_types::{StreamId, WriterId};
use serde::{Deserialize, Serialize};

use crate::{GenericClient, Result, StorageError, execute, query, query_one, query_opt};

/// A one-time or fallback key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneTimeKeyRow {
    /// The algorithm, such as `signed_curve25519`.
    pub algorithm: String,
    /// The key's id within its algorithm.
    pub key_id: String,
    /// The key as it was uploaded.
    pub key_json: String,
}

/// How many keys a device has left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCounts {
    /// One-time keys that nobody has claimed, by algorithm.
    pub one_time: BTreeMap<String, u64>,
    /// Algorithms whose fallback key has not been given out yet.
    pub unused_fallback: Vec<String>,
}

/// Takes the lock under which a device's keys are changed and counted, until the transaction ends. Callers that lock
/// several devices do so in the order of user and device.
pub async fn lock_device(db: &impl GenericClient, user_id: &str, device_id: &str) -> Result<()> {
    const SQL: &str = "
        INSERT INTO device_key_counts (user_id, device_id, stream_id, writer_id, counts)
        VALUES ($1, $2, 0, 0, '{\"one_time\":{},\"unused_fallback\":[]}')
            ON CONFLICT (user_id, device_id) DO UPDATE SET stream_id = device_key_counts.stream_id";
    execute(db, SQL, &[&user_id, &device_id]).await?;
    Ok(())
}

/// Which of the given one-time keys a device has already; with what it has.
pub async fn list_one_time_keys_named(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
    keys: &[OneTimeKeyRow],
) -> Result<Vec<OneTimeKeyRow>> {
    const SQL: &str = "
        SELECT k.algorithm, k.key_id, k.key_json
          FROM unnest($3::text[], $4::text[]) AS wanted (algorithm, key_id)
          JOIN one_time_keys k USING (algorithm, key_id)
         WHERE k.user_id = $1 AND k.device_id = $2";
    let algorithms: Vec<&str> = keys.iter().map(|key| key.algorithm.as_str()).collect();
    let key_ids: Vec<&str> = keys.iter().map(|key| key.key_id.as_str()).collect();
    let rows = query(db, SQL, &[&user_id, &device_id, &algorithms, &key_ids]).await?;
    Ok(rows
        .iter()
        .map(|row| OneTimeKeyRow { algorithm: row.get(0), key_id: row.get(1), key_json: row.get(2) })
        .collect())
}

/// Adds one-time keys; ids that are there already are left as they are.
pub async fn insert_one_time_keys(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
    keys: &[OneTimeKeyRow],
) -> Result<()> {
    const SQL: &str = "
        INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, key_json)
        SELECT $1, $2, k.* FROM unnest($3::text[], $4::text[], $5::text[]) AS k
            ON CONFLICT DO NOTHING";
    let algorithms: Vec<&str> = keys.iter().map(|key| key.algorithm.as_str()).collect();
    let key_ids: Vec<&str> = keys.iter().map(|key| key.key_id.as_str()).collect();
    let jsons: Vec<&str> = keys.iter().map(|key| key.key_json.as_str()).collect();
    execute(db, SQL, &[&user_id, &device_id, &algorithms, &key_ids, &jsons]).await?;
    Ok(())
}

/// Stores fallback keys, one per algorithm, in place of the earlier ones. A key that is there already stays used if
/// it was.
pub async fn set_fallback_keys(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
    keys: &[OneTimeKeyRow],
) -> Result<()> {
    const SQL: &str = "
        INSERT INTO fallback_keys AS old (user_id, device_id, algorithm, key_id, key_json) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (user_id, device_id, algorithm)
            DO UPDATE SET key_id = excluded.key_id, key_json = excluded.key_json,
                          used = old.used AND old.key_id = excluded.key_id AND old.key_json = excluded.key_json";
    for key in keys {
        execute(db, SQL, &[&user_id, &device_id, &key.algorithm, &key.key_id, &key.key_json]).await?;
    }
    Ok(())
}

/// Takes the oldest one-time key of an algorithm, or else the fallback key, which then counts as used. The caller
/// holds the [lock](lock_device).
pub async fn claim_key(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
    algorithm: &str,
) -> Result<Option<OneTimeKeyRow>> {
    const TAKE: &str = "
        DELETE FROM one_time_keys
         WHERE user_id = $1 AND device_id = $2 AND algorithm = $3
           AND key_id = (SELECT key_id FROM one_time_keys
                          WHERE user_id = $1 AND device_id = $2 AND algorithm = $3
                          ORDER BY position LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING key_id, key_json";
    const FALL_BACK: &str = "
        UPDATE fallback_keys SET used = true WHERE user_id = $1 AND device_id = $2 AND algorithm = $3
        RETURNING key_id, key_json";
    let taken = match query_opt(db, TAKE, &[&user_id, &device_id, &algorithm]).await? {
        Some(row) => Some(row),
        None => query_opt(db, FALL_BACK, &[&user_id, &device_id, &algorithm]).await?,
    };
    Ok(taken.map(|row| OneTimeKeyRow {
        algorithm: algorithm.to_owned(),
        key_id: row.get(0),
        key_json: row.get(1),
    }))
}

/// Deletes a device's one-time and fallback keys: those of an identity that it does not have any more.
pub async fn delete_keys_of_device(db: &impl GenericClient, user_id: &str, device_id: &str) -> Result<()> {
    const ONE_TIME: &str = "DELETE FROM one_time_keys WHERE user_id = $1 AND device_id = $2";
    const FALLBACK: &str = "DELETE FROM fallback_keys WHERE user_id = $1 AND device_id = $2";
    execute(db, ONE_TIME, &[&user_id, &device_id]).await?;
    execute(db, FALLBACK, &[&user_id, &device_id]).await?;
    Ok(())
}

/// Counts a device's keys. The caller holds the [lock](lock_device).
pub async fn count_keys(db: &impl GenericClient, user_id: &str, device_id: &str) -> Result<KeyCounts> {
    const ONE_TIME: &str = "
        SELECT algorithm, count(*) FROM one_time_keys WHERE user_id = $1 AND device_id = $2 GROUP BY algorithm";
    const FALLBACK: &str = "
        SELECT coalesce(array_agg(algorithm ORDER BY algorithm), '{}')
          FROM fallback_keys WHERE user_id = $1 AND device_id = $2 AND NOT used";
    let rows = query(db, ONE_TIME, &[&user_id, &device_id]).await?;
    let one_time = rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1).unsigned_abs())).collect();
    let unused_fallback = query_one(db, FALLBACK, &[&user_id, &device_id]).await?.get(0);
    Ok(KeyCounts { one_time, unused_fallback })
}

/// The counts of a device as its last change left them, and the stream id of that change.
pub async fn get_key_counts(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
) -> Result<Option<(StreamId, KeyCounts)>> {
    const SQL: &str = "SELECT stream_id, counts FROM device_key_counts WHERE user_id = $1 AND device_id = $2";
    let Some(row) = query_opt(db, SQL, &[&user_id, &device_id]).await? else { return Ok(None) };
    Ok(Some((StreamId(row.get(0)), parse_counts(row.get(1))?)))
}

/// Stores the counts of a device with their place in the device_lists stream.
pub async fn set_key_counts(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
    stream_id: StreamId,
    writer: WriterId,
    counts: &KeyCounts,
) -> Result<()> {
    const SQL: &str = "
        UPDATE device_key_counts SET stream_id = $3, writer_id = $4, counts = $5
         WHERE user_id = $1 AND device_id = $2";
    let counts =
        serde_json::to_string(counts).map_err(|error| StorageError::Inconsistent(error.to_string()))?;
    execute(db, SQL, &[&user_id, &device_id, &stream_id.0, &writer.0, &counts]).await?;
    Ok(())
}

/// Reads the column `counts`.
pub(crate) fn parse_counts(text: &str) -> Result<KeyCounts> {
    serde_json::from_str(text)
        .map_err(|error| StorageError::Inconsistent(format!("device_key_counts.counts: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestClient;

    fn key(algorithm: &str, key_id: &str, key_json: &str) -> OneTimeKeyRow {
        OneTimeKeyRow {
            algorithm: algorithm.to_owned(),
            key_id: key_id.to_owned(),
            key_json: key_json.to_owned(),
        }
    }

    #[tokio::test]
    async fn keys_are_given_out_oldest_first_and_then_the_fallback_key_again_and_again() {
        let db = TestClient::new().await;
        let (user, device) = ("@a:x", "D");
        for (id, json) in [("Z", "1"), ("A", "2")] {
            insert_one_time_keys(&*db, user, device, &[key("alg", id, json)]).await.unwrap();
        }
        set_fallback_keys(&*db, user, device, &[key("alg", "F", "3")]).await.unwrap();
        let mut given = Vec::new();
        for _ in 0..4 {
            given.push(claim_key(&*db, user, device, "alg").await.unwrap().unwrap().key_id);
        }
        assert_eq!(given, ["Z", "A", "F", "F"]);
        assert_eq!(claim_key(&*db, user, device, "other").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_fallback_key_is_unused_until_claimed_and_when_it_is_replaced() {
        let db = TestClient::new().await;
        let (user, device) = ("@a:x", "D");
        let unused = async || count_keys(&*db, user, device).await.unwrap().unused_fallback;
        set_fallback_keys(&*db, user, device, &[key("alg", "F", "1")]).await.unwrap();
        assert_eq!(unused().await, ["alg"]);
        claim_key(&*db, user, device, "alg").await.unwrap();
        assert!(unused().await.is_empty());
        set_fallback_keys(&*db, user, device, &[key("alg", "F", "1")]).await.unwrap();
        assert!(unused().await.is_empty(), "the same key again is no new key");
        set_fallback_keys(&*db, user, device, &[key("alg", "G", "2")]).await.unwrap();
        assert_eq!(unused().await, ["alg"]);
    }

    #[tokio::test]
    async fn counts_are_kept_with_their_place_in_the_stream() {
        let db = TestClient::new().await;
        assert_eq!(get_key_counts(&*db, "@a:x", "D").await.unwrap(), None);
        lock_device(&*db, "@a:x", "D").await.unwrap();
        insert_one_time_keys(&*db, "@a:x", "D", &[key("alg", "1", "x"), key("alg", "2", "y")]).await.unwrap();
        let counts = count_keys(&*db, "@a:x", "D").await.unwrap();
        assert_eq!(counts.one_time["alg"], 2);
        set_key_counts(&*db, "@a:x", "D", StreamId(7), WriterId(1), &counts).await.unwrap();
        lock_device(&*db, "@a:x", "D").await.unwrap();
        assert_eq!(get_key_counts(&*db, "@a:x", "D").await.unwrap(), Some((StreamId(7), counts)));

        let known =
            list_one_time_keys_named(&*db, "@a:x", "D", &[key("alg", "2", ""), key("alg", "3", "")]).await;
        assert_eq!(known.unwrap(), [key("alg", "2", "y")]);
        delete_keys_of_device(&*db, "@a:x", "D").await.unwrap();
        assert_eq!(count_keys(&*db, "@a:x", "D").await.unwrap(), KeyCounts::default());
    }
}
