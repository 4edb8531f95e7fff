//! `one_time_keys`, `fallback_keys` and `device_key_counts`: keys for starting a session with a device.

use std::collections::BTreeMap;

use myelin_types::{StreamId, WriterId};
use serde::{Deserialize, Serialize};

use crate::{GenericClient, Result, Row, StorageError, execute, query, query_opt};

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

/// Takes the lock under which a device's keys are changed and counted, until the transaction ends, and gives how many
/// there are; `None` if there is no such device. Until then the device is not deleted either. Callers that lock several
/// devices do so in the order of user and device.
pub async fn lock_device(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
) -> Result<Option<KeyCounts>> {
    const SQL: &str = "
        INSERT INTO device_key_counts (user_id, device_id, stream_id, writer_id, counts)
        SELECT user_id, device_id, 0, 0, '{\"one_time\":{},\"unused_fallback\":[]}' FROM devices
         WHERE user_id = $1 AND device_id = $2 FOR SHARE
            ON CONFLICT (user_id, device_id) DO UPDATE SET stream_id = device_key_counts.stream_id
        RETURNING counts";
    query_opt(db, SQL, &[&user_id, &device_id]).await?.map(|row| parse_counts(row.get(0))).transpose()
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

/// A device, and the algorithm of which a key is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRow {
    /// Whose device.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// The algorithm, such as `signed_curve25519`.
    pub algorithm: String,
}

/// Takes the [lock](lock_device) on those of the devices that ever had a key, and gives them as (user, device).
pub async fn lock_devices_with_keys(
    db: &impl GenericClient,
    wanted: &[ClaimRow],
) -> Result<Vec<(String, String)>> {
    const SQL: &str = "
        SELECT c.user_id, c.device_id FROM device_key_counts c
         WHERE (c.user_id, c.device_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
         ORDER BY c.user_id, c.device_id FOR UPDATE";
    let (users, devices, _) = columns(wanted);
    let rows = query(db, SQL, &[&users, &devices]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Takes the oldest one-time key of each, as far as there is one. The caller holds the locks, and no device and
/// algorithm is given twice.
pub async fn claim_one_time_keys(
    db: &impl GenericClient,
    wanted: &[ClaimRow],
) -> Result<Vec<(ClaimRow, OneTimeKeyRow)>> {
    const SQL: &str = "
        DELETE FROM one_time_keys k
         USING (SELECT w.*, o.key_id
                  FROM unnest($1::text[], $2::text[], $3::text[]) AS w (user_id, device_id, algorithm)
                 CROSS JOIN LATERAL
                       (SELECT key_id FROM one_time_keys o
                         WHERE o.user_id = w.user_id AND o.device_id = w.device_id AND o.algorithm = w.algorithm
                         ORDER BY position LIMIT 1) AS o) AS t
         WHERE k.user_id = t.user_id AND k.device_id = t.device_id AND k.algorithm = t.algorithm
           AND k.key_id = t.key_id
        RETURNING k.user_id, k.device_id, k.algorithm, k.key_id, k.key_json";
    let (users, devices, algorithms) = columns(wanted);
    let rows = query(db, SQL, &[&users, &devices, &algorithms]).await?;
    Ok(rows.iter().map(claimed).collect())
}

/// The fallback key of each, as far as there is one; it counts as used from now on. The caller holds the locks.
pub async fn claim_fallback_keys(
    db: &impl GenericClient,
    wanted: &[ClaimRow],
) -> Result<Vec<(ClaimRow, OneTimeKeyRow)>> {
    const SQL: &str = "
        UPDATE fallback_keys f SET used = true
          FROM unnest($1::text[], $2::text[], $3::text[]) AS w (user_id, device_id, algorithm)
         WHERE f.user_id = w.user_id AND f.device_id = w.device_id AND f.algorithm = w.algorithm
        RETURNING f.user_id, f.device_id, f.algorithm, f.key_id, f.key_json";
    let (users, devices, algorithms) = columns(wanted);
    let rows = query(db, SQL, &[&users, &devices, &algorithms]).await?;
    Ok(rows.iter().map(claimed).collect())
}

fn columns(wanted: &[ClaimRow]) -> (Vec<&str>, Vec<&str>, Vec<&str>) {
    let column = |get: fn(&ClaimRow) -> &str| wanted.iter().map(get).collect();
    (column(|row| &row.user_id), column(|row| &row.device_id), column(|row| &row.algorithm))
}

fn claimed(row: &Row) -> (ClaimRow, OneTimeKeyRow) {
    let claim = ClaimRow { user_id: row.get(0), device_id: row.get(1), algorithm: row.get(2) };
    let key = OneTimeKeyRow { algorithm: claim.algorithm.clone(), key_id: row.get(3), key_json: row.get(4) };
    (claim, key)
}

/// Deletes a device's one-time and fallback keys: those of an identity that it does not have any more.
pub async fn delete_keys_of_device(db: &impl GenericClient, user_id: &str, device_id: &str) -> Result<()> {
    const ONE_TIME: &str = "DELETE FROM one_time_keys WHERE user_id = $1 AND device_id = $2";
    const FALLBACK: &str = "DELETE FROM fallback_keys WHERE user_id = $1 AND device_id = $2";
    execute(db, ONE_TIME, &[&user_id, &device_id]).await?;
    execute(db, FALLBACK, &[&user_id, &device_id]).await?;
    Ok(())
}

/// Counts the keys of some devices, given as (user, device); in their order. The caller holds the
/// [locks](lock_device).
pub async fn count_keys(db: &impl GenericClient, devices: &[(String, String)]) -> Result<Vec<KeyCounts>> {
    const SQL: &str = "
        WITH wanted AS (SELECT * FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (user_id, device_id, place))
        SELECT w.place, k.algorithm, count(*)
          FROM wanted w JOIN one_time_keys k USING (user_id, device_id) GROUP BY 1, 2
         UNION ALL
        SELECT w.place, f.algorithm, NULL
          FROM wanted w JOIN fallback_keys f USING (user_id, device_id) WHERE NOT f.used
         ORDER BY 1, 2";
    let users: Vec<&str> = devices.iter().map(|(user_id, _)| user_id.as_str()).collect();
    let device_ids: Vec<&str> = devices.iter().map(|(_, device_id)| device_id.as_str()).collect();
    let mut counts = vec![KeyCounts::default(); devices.len()];
    for row in query(db, SQL, &[&users, &device_ids]).await? {
        // Places count from one.
        let place = usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX);
        let Some(counts) = counts.get_mut(place) else { continue };
        match row.get::<_, Option<i64>>(2) {
            Some(count) => _ = counts.one_time.insert(row.get(1), count.unsigned_abs()),
            None => counts.unused_fallback.push(row.get(1)),
        }
    }
    Ok(counts)
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

/// How many keys a device has left, as of a row of the device_lists stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCountsRow {
    /// The place in the stream.
    pub stream_id: StreamId,
    /// Who wrote it.
    pub writer: WriterId,
    /// Whose device.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// What is left.
    pub counts: KeyCounts,
}

/// Stores counts; of several of one device the last one.
pub async fn set_key_counts(db: &impl GenericClient, rows: &[KeyCountsRow]) -> Result<()> {
    const SQL: &str = "
        UPDATE device_key_counts c SET stream_id = n.stream_id, writer_id = n.writer_id, counts = n.counts
          FROM unnest($1::text[], $2::text[], $3::bigint[], $4::smallint[], $5::text[])
               AS n (user_id, device_id, stream_id, writer_id, counts)
         WHERE c.user_id = n.user_id AND c.device_id = n.device_id";
    let latest: BTreeMap<(&str, &str), &KeyCountsRow> =
        rows.iter().map(|row| ((row.user_id.as_str(), row.device_id.as_str()), row)).collect();
    if latest.is_empty() {
        return Ok(());
    }
    let (users, devices): (Vec<&str>, Vec<&str>) = latest.keys().copied().unzip();
    let ids: Vec<i64> = latest.values().map(|row| row.stream_id.0).collect();
    let writers: Vec<i16> = latest.values().map(|row| row.writer.0).collect();
    let counts: Vec<String> = latest
        .values()
        .map(|row| serde_json::to_string(&row.counts))
        .collect::<Result<_, _>>()
        .map_err(|error| StorageError::Inconsistent(error.to_string()))?;
    execute(db, SQL, &[&users, &devices, &ids, &writers, &counts]).await?;
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

    async fn count(db: &TestClient) -> KeyCounts {
        count_keys(&**db, &[("@a:x".to_owned(), "D".to_owned())]).await.unwrap().remove(0)
    }

    async fn add_device(db: &TestClient) {
        const SQL: &str = "INSERT INTO devices (user_id, device_id, created_ts) VALUES ('@a:x', 'D', 0)";
        db.execute(SQL, &[]).await.unwrap();
    }

    async fn claim(db: &TestClient, algorithm: &str) -> Option<String> {
        let wanted = [ClaimRow {
            user_id: "@a:x".to_owned(),
            device_id: "D".to_owned(),
            algorithm: algorithm.to_owned(),
        }];
        let mut claimed = claim_one_time_keys(&**db, &wanted).await.unwrap();
        if claimed.is_empty() {
            claimed = claim_fallback_keys(&**db, &wanted).await.unwrap();
        }
        claimed.pop().map(|(claim, key)| {
            assert_eq!([claim], wanted);
            key.key_id
        })
    }

    #[tokio::test]
    async fn keys_are_given_out_oldest_first_and_then_the_fallback_key_again_and_again() {
        let db = TestClient::new().await;
        for (id, json) in [("Z", "1"), ("A", "2")] {
            insert_one_time_keys(&*db, "@a:x", "D", &[key("alg", id, json)]).await.unwrap();
        }
        set_fallback_keys(&*db, "@a:x", "D", &[key("alg", "F", "3")]).await.unwrap();
        for expected in ["Z", "A", "F", "F"] {
            assert_eq!(claim(&db, "alg").await.as_deref(), Some(expected));
        }
        assert_eq!(claim(&db, "other").await, None);
    }

    #[tokio::test]
    async fn only_devices_that_ever_had_keys_are_locked_for_a_claim() {
        let db = TestClient::new().await;
        add_device(&db).await;
        for device_id in ["D", "E"] {
            lock_device(&*db, "@a:x", device_id).await.unwrap();
        }
        let wanted = ["D", "E"].map(|device_id| ClaimRow {
            user_id: "@a:x".to_owned(),
            device_id: device_id.to_owned(),
            algorithm: "alg".to_owned(),
        });
        let locked = lock_devices_with_keys(&*db, &wanted).await.unwrap();
        assert_eq!(locked, [("@a:x".to_owned(), "D".to_owned())]);
    }

    #[tokio::test]
    async fn a_fallback_key_is_unused_until_claimed_and_when_it_is_replaced() {
        let db = TestClient::new().await;
        set_fallback_keys(&*db, "@a:x", "D", &[key("alg", "F", "1")]).await.unwrap();
        assert_eq!(count(&db).await.unused_fallback, ["alg"]);
        claim(&db, "alg").await.unwrap();
        assert!(count(&db).await.unused_fallback.is_empty());
        set_fallback_keys(&*db, "@a:x", "D", &[key("alg", "F", "1")]).await.unwrap();
        assert!(count(&db).await.unused_fallback.is_empty(), "the same key again is no new key");
        set_fallback_keys(&*db, "@a:x", "D", &[key("alg", "G", "2")]).await.unwrap();
        assert_eq!(count(&db).await.unused_fallback, ["alg"]);
    }

    #[tokio::test]
    async fn counts_are_kept_with_their_place_in_the_stream() {
        let db = TestClient::new().await;
        assert_eq!(get_key_counts(&*db, "@a:x", "D").await.unwrap(), None);
        assert_eq!(lock_device(&*db, "@a:x", "D").await.unwrap(), None, "there is no such device");
        add_device(&db).await;
        assert_eq!(lock_device(&*db, "@a:x", "D").await.unwrap(), Some(KeyCounts::default()));
        insert_one_time_keys(&*db, "@a:x", "D", &[key("alg", "1", "x"), key("alg", "2", "y")]).await.unwrap();
        let counts = count(&db).await;
        assert_eq!(counts.one_time["alg"], 2);
        let row = |stream_id, counts: &KeyCounts| KeyCountsRow {
            stream_id: StreamId(stream_id),
            writer: WriterId(1),
            user_id: "@a:x".to_owned(),
            device_id: "D".to_owned(),
            counts: counts.clone(),
        };
        set_key_counts(&*db, &[]).await.unwrap();
        set_key_counts(&*db, &[row(6, &KeyCounts::default()), row(7, &counts)]).await.unwrap();
        assert_eq!(lock_device(&*db, "@a:x", "D").await.unwrap(), Some(counts.clone()));
        assert_eq!(get_key_counts(&*db, "@a:x", "D").await.unwrap(), Some((StreamId(7), counts)));

        let known =
            list_one_time_keys_named(&*db, "@a:x", "D", &[key("alg", "2", ""), key("alg", "3", "")]).await;
        assert_eq!(known.unwrap(), [key("alg", "2", "y")]);
        delete_keys_of_device(&*db, "@a:x", "D").await.unwrap();
        assert_eq!(count(&db).await, KeyCounts::default());
    }
}
