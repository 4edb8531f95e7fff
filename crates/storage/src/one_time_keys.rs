//! `one_time_keys`, `fallback_keys` and `device_key_counts`: keys for starting a session with a device.

use std::collections::BTreeMap;

use myelin_types::{StreamId, WriterId};
use serde::{Deserialize, Serialize};

use crate::{GenericClient, Result, Row, StorageError, execute, query, query_one, query_opt};

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

/// Takes the lock under which a device's keys are changed, until the transaction ends, and gives how many there are;
/// `None` if there is no such device. Callers that lock several devices do so in the order of user and device.
pub async fn lock_device(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
) -> Result<Option<KeyCounts>> {
    const SQL: &str = "SELECT counts FROM device_key_counts WHERE user_id = $1 AND device_id = $2 FOR UPDATE";
    // The first keys of a device. Whoever deletes it holds its row.
    const FIRST: &str = "
        INSERT INTO device_key_counts (user_id, device_id, stream_id, writer_id, counts)
        SELECT user_id, device_id, 0, 0, '{\"one_time\":{},\"unused_fallback\":[]}' FROM devices
         WHERE user_id = $1 AND device_id = $2 FOR SHARE
            ON CONFLICT (user_id, device_id) DO UPDATE SET stream_id = device_key_counts.stream_id
        RETURNING counts";
    let row = match query_opt(db, SQL, &[&user_id, &device_id]).await? {
        Some(row) => Some(row),
        None => query_opt(db, FIRST, &[&user_id, &device_id]).await?,
    };
    row.map(|row| parse_counts(row.get(0))).transpose()
}

/// What became of one-time keys that were to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// So many were not there before, by algorithm.
    Keys(BTreeMap<String, u64>),
    /// None was added: these are there already, under the same ids, in other words.
    InOtherWords(Vec<OneTimeKeyRow>),
}

/// Adds one-time keys; those that are there already, to the letter, are left as they are.
pub async fn add_one_time_keys(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
    keys: &[OneTimeKeyRow],
) -> Result<Added> {
    const SQL: &str = "
        WITH wanted AS MATERIALIZED (
            SELECT * FROM unnest($3::text[], $4::text[], $5::text[]) AS w (algorithm, key_id, key_json)),
        other AS MATERIALIZED (
            SELECT k.algorithm, k.key_id, k.key_json
              FROM wanted w
             CROSS JOIN LATERAL (SELECT * FROM one_time_keys k
                                  WHERE k.user_id = $1 AND k.device_id = $2
                                    AND k.algorithm = w.algorithm AND k.key_id = w.key_id
                                  OFFSET 0) AS k
             WHERE k.key_json <> w.key_json),
        added AS (
            INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, key_json)
            SELECT $1, $2, w.* FROM wanted w WHERE NOT EXISTS (SELECT FROM other)
                ON CONFLICT DO NOTHING
            RETURNING algorithm)
        SELECT algorithm, count(*), NULL, NULL FROM added GROUP BY algorithm
         UNION ALL
        SELECT algorithm, NULL, key_id, key_json FROM other";
    let algorithms: Vec<&str> = keys.iter().map(|key| key.algorithm.as_str()).collect();
    let key_ids: Vec<&str> = keys.iter().map(|key| key.key_id.as_str()).collect();
    let jsons: Vec<&str> = keys.iter().map(|key| key.key_json.as_str()).collect();
    let rows = query(db, SQL, &[&user_id, &device_id, &algorithms, &key_ids, &jsons]).await?;
    let (mut added, mut others) = (BTreeMap::new(), Vec::new());
    for row in rows {
        match row.get::<_, Option<i64>>(1) {
            Some(count) => _ = added.insert(row.get(0), count.unsigned_abs()),
            None => {
                others.push(OneTimeKeyRow { algorithm: row.get(0), key_id: row.get(2), key_json: row.get(3) })
            }
        }
    }
    Ok(if others.is_empty() { Added::Keys(added) } else { Added::InOtherWords(others) })
}

/// Stores fallback keys, one per algorithm, in place of the earlier ones. A key that is there already stays used if
/// it was. Gives for each whether it is used.
pub async fn set_fallback_keys(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
    keys: &[OneTimeKeyRow],
) -> Result<Vec<bool>> {
    const SQL: &str = "
        INSERT INTO fallback_keys AS old (user_id, device_id, algorithm, key_id, key_json) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (user_id, device_id, algorithm)
            DO UPDATE SET key_id = excluded.key_id, key_json = excluded.key_json,
                          used = old.used AND old.key_id = excluded.key_id AND old.key_json = excluded.key_json
        RETURNING used";
    let mut used = Vec::with_capacity(keys.len());
    for key in keys {
        let row =
            query_one(db, SQL, &[&user_id, &device_id, &key.algorithm, &key.key_id, &key.key_json]).await?;
        used.push(row.get(0));
    }
    Ok(used)
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

/// Takes the [lock](lock_device) on those of the devices that ever had a key, and gives how many each has, by user and
/// device.
pub async fn lock_devices_with_keys(
    db: &impl GenericClient,
    wanted: &[ClaimRow],
) -> Result<BTreeMap<(String, String), KeyCounts>> {
    // The lateral join keeps to the index, however many devices there are; sorting comes before locking.
    const SQL: &str = "
        SELECT c.user_id, c.device_id, c.counts
          FROM (SELECT * FROM unnest($1::text[], $2::text[]) AS w (user_id, device_id) ORDER BY 1, 2) AS w
         CROSS JOIN LATERAL (SELECT * FROM device_key_counts c
                              WHERE c.user_id = w.user_id AND c.device_id = w.device_id
                                FOR UPDATE) AS c";
    let (users, devices, _) = columns(wanted);
    let rows = query(db, SQL, &[&users, &devices]).await?;
    rows.iter().map(|row| Ok(((row.get(0), row.get(1)), parse_counts(row.get(2))?))).collect()
}

/// Takes the oldest one-time key of each, as far as there is one. The caller holds the locks, and no device and
/// algorithm is given twice.
pub async fn claim_one_time_keys(
    db: &impl GenericClient,
    wanted: &[ClaimRow],
) -> Result<Vec<(ClaimRow, OneTimeKeyRow)>> {
    const SQL: &str = "
        DELETE FROM one_time_keys k
         WHERE k.ctid = ANY (ARRAY(
               SELECT o.ctid
                 FROM unnest($1::text[], $2::text[], $3::text[]) AS w (user_id, device_id, algorithm)
                CROSS JOIN LATERAL
                      (SELECT ctid FROM one_time_keys o
                        WHERE o.user_id = w.user_id AND o.device_id = w.device_id AND o.algorithm = w.algorithm
                        ORDER BY position LIMIT 1) AS o))
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

    async fn add(db: &TestClient, keys: &[OneTimeKeyRow]) -> Added {
        add_one_time_keys(&**db, "@a:x", "D", keys).await.unwrap()
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
            assert_eq!(add(&db, &[key("alg", id, json)]).await, Added::Keys([("alg".to_owned(), 1)].into()));
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
        assert_eq!(locked, [(("@a:x".to_owned(), "D".to_owned()), KeyCounts::default())].into());
    }

    #[tokio::test]
    async fn a_fallback_key_is_unused_until_claimed_and_when_it_is_replaced() {
        let db = TestClient::new().await;
        let set = async |id: &str, json: &str| {
            set_fallback_keys(&*db, "@a:x", "D", &[key("alg", id, json)]).await.unwrap()
        };
        assert_eq!(set("F", "1").await, [false]);
        claim(&db, "alg").await.unwrap();
        assert_eq!(set("F", "1").await, [true], "the same key again is no new key");
        assert_eq!(set("G", "2").await, [false]);
    }

    #[tokio::test]
    async fn keys_in_other_words_are_told_and_nothing_is_added() {
        let db = TestClient::new().await;
        let [one, other, new] = [key("alg", "1", "x"), key("alg", "1", "y"), key("alg", "2", "z")];
        assert_eq!(add(&db, std::slice::from_ref(&one)).await, Added::Keys([("alg".to_owned(), 1)].into()));
        assert_eq!(add(&db, std::slice::from_ref(&one)).await, Added::Keys(BTreeMap::new()));
        assert_eq!(add(&db, &[new.clone(), other]).await, Added::InOtherWords(vec![one.clone()]));
        assert_eq!(add(&db, &[new, one]).await, Added::Keys([("alg".to_owned(), 1)].into()));
    }

    #[tokio::test]
    async fn counts_are_kept_with_their_place_in_the_stream() {
        let db = TestClient::new().await;
        assert_eq!(get_key_counts(&*db, "@a:x", "D").await.unwrap(), None);
        assert_eq!(lock_device(&*db, "@a:x", "D").await.unwrap(), None, "there is no such device");
        add_device(&db).await;
        assert_eq!(lock_device(&*db, "@a:x", "D").await.unwrap(), Some(KeyCounts::default()));
        let Added::Keys(one_time) = add(&db, &[key("alg", "1", "x"), key("alg", "2", "y")]).await else {
            panic!("there were none before")
        };
        let counts = KeyCounts { one_time, unused_fallback: Vec::new() };
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

        delete_keys_of_device(&*db, "@a:x", "D").await.unwrap();
        assert_eq!(claim(&db, "alg").await, None);
    }
}
