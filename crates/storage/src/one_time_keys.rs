//! `one_time_keys`, `fallback_keys` and `device_key_counts`: keys for starting a session with a device.

use std::collections::{BTreeMap, BTreeSet};

use myelin_types::{StreamId, WriterId};
use serde::{Deserialize, Serialize};

use crate::{GenericClient, Result, Row, StorageError, Write, execute, query, query_one, query_opt};

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

/// A device, by its user and its own id.
pub type DeviceName = (String, String);

/// Takes the lock under which a device's keys are changed, until the transaction ends, on those of the devices that ever had a
/// key, and gives how many each has.
pub async fn lock_devices(
    db: &impl GenericClient,
    devices: &BTreeSet<DeviceName>,
) -> Result<BTreeMap<DeviceName, KeyCounts>> {
    // The lateral join keeps to the index, however many devices there are; sorting comes before locking.
    const SQL: &str = "
        SELECT c.user_id, c.device_id, c.counts
          FROM (SELECT * FROM unnest($1::text[], $2::text[]) AS w (user_id, device_id) ORDER BY 1, 2) AS w
         CROSS JOIN LATERAL (SELECT * FROM device_key_counts c
                              WHERE c.user_id = w.user_id AND c.device_id = w.device_id
                                FOR UPDATE) AS c";
    let (users, names) = device_columns(devices);
    query(db, SQL, &[&users, &names]).await?.iter().map(counts_of_device).collect()
}

/// Takes the [lock](lock_devices) on devices that never had a key; those that don't exist are left out.
pub async fn lock_first(
    db: &impl GenericClient,
    devices: &BTreeSet<DeviceName>,
) -> Result<BTreeMap<DeviceName, KeyCounts>> {
    // Whoever deletes a device holds its row.
    const SQL: &str = "
        INSERT INTO device_key_counts (user_id, device_id, stream_id, writer_id, counts)
        SELECT d.user_id, d.device_id, 0, 0, '{\"one_time\":{},\"unused_fallback\":[]}'
          FROM (SELECT * FROM unnest($1::text[], $2::text[]) AS w (user_id, device_id) ORDER BY 1, 2) AS w
         CROSS JOIN LATERAL (SELECT * FROM devices d
                              WHERE d.user_id = w.user_id AND d.device_id = w.device_id
                                FOR SHARE) AS d
            ON CONFLICT (user_id, device_id) DO UPDATE SET stream_id = device_key_counts.stream_id
        RETURNING user_id, device_id, counts";
    let (users, names) = device_columns(devices);
    query(db, SQL, &[&users, &names]).await?.iter().map(counts_of_device).collect()
}

fn device_columns(devices: &BTreeSet<DeviceName>) -> (Vec<&str>, Vec<&str>) {
    devices.iter().map(|(user_id, device_id)| (user_id.as_str(), device_id.as_str())).unzip()
}

fn counts_of_device(row: &Row) -> Result<(DeviceName, KeyCounts)> {
    Ok(((row.get(0), row.get(1)), parse_counts(row.get(2))?))
}

/// One-time keys to be added to a device.
#[derive(Clone, Copy, Debug)]
pub struct NewKeys<'a> {
    /// Whose device.
    pub user_id: &'a str,
    /// The device.
    pub device_id: &'a str,
    /// The keys.
    pub keys: &'a [OneTimeKeyRow],
}

/// A key within its device, by its algorithm and id.
pub type KeyName = (String, String);

/// Adds those one-time keys whose names are not taken, and gives the names of those that it added, by device.
pub async fn add_one_time_keys(
    db: &impl GenericClient,
    new: &[NewKeys<'_>],
) -> Result<BTreeMap<DeviceName, Vec<KeyName>>> {
    const SQL: &str = "
        INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, key_json)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
            ON CONFLICT DO NOTHING
        RETURNING user_id, device_id, algorithm, key_id";
    let keys: Vec<(&NewKeys<'_>, &OneTimeKeyRow)> =
        new.iter().flat_map(|device| device.keys.iter().map(move |key| (device, key))).collect();
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    let column =
        |get: fn(&OneTimeKeyRow) -> &str| keys.iter().map(|(_, key)| get(key)).collect::<Vec<&str>>();
    let (users, devices): (Vec<&str>, Vec<&str>) =
        keys.iter().map(|(device, _)| (device.user_id, device.device_id)).unzip();
    let (algorithms, key_ids) = (column(|key| &key.algorithm), column(|key| &key.key_id));
    let rows =
        query(db, SQL, &[&users, &devices, &algorithms, &key_ids, &column(|key| &key.key_json)]).await?;
    let mut added: BTreeMap<DeviceName, Vec<KeyName>> = BTreeMap::new();
    for row in rows {
        added.entry((row.get(0), row.get(1))).or_default().push((row.get(2), row.get(3)));
    }
    Ok(added)
}

/// Those of a device's one-time keys that have the names of given ones.
pub async fn list_one_time_keys(db: &impl GenericClient, wanted: NewKeys<'_>) -> Result<Vec<OneTimeKeyRow>> {
    const SQL: &str = "
        SELECT k.algorithm, k.key_id, k.key_json
          FROM unnest($3::text[], $4::text[]) AS w (algorithm, key_id)
         CROSS JOIN LATERAL (SELECT * FROM one_time_keys k
                              WHERE k.user_id = $1 AND k.device_id = $2
                                AND k.algorithm = w.algorithm AND k.key_id = w.key_id
                              OFFSET 0) AS k";
    let (algorithms, key_ids): (Vec<&str>, Vec<&str>) =
        wanted.keys.iter().map(|key| (key.algorithm.as_str(), key.key_id.as_str())).unzip();
    let rows = query(db, SQL, &[&wanted.user_id, &wanted.device_id, &algorithms, &key_ids]).await?;
    let key = |row: &Row| OneTimeKeyRow { algorithm: row.get(0), key_id: row.get(1), key_json: row.get(2) };
    Ok(rows.iter().map(key).collect())
}

/// Takes back one-time keys that were [added](add_one_time_keys) to a device.
pub async fn remove_one_time_keys(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
    keys: &[KeyName],
) -> Result<()> {
    const SQL: &str = "
        DELETE FROM one_time_keys k USING unnest($3::text[], $4::text[]) AS w (algorithm, key_id)
         WHERE k.user_id = $1 AND k.device_id = $2 AND k.algorithm = w.algorithm AND k.key_id = w.key_id";
    let (algorithms, key_ids): (Vec<&str>, Vec<&str>) =
        keys.iter().map(|(algorithm, key_id)| (algorithm.as_str(), key_id.as_str())).unzip();
    execute(db, SQL, &[&user_id, &device_id, &algorithms, &key_ids]).await?;
    Ok(())
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimRow {
    /// Whose device.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// The algorithm, such as `signed_curve25519`.
    pub algorithm: String,
}

impl ClaimRow {
    /// The device.
    pub fn device(&self) -> DeviceName {
        (self.user_id.clone(), self.device_id.clone())
    }
}

/// Takes the oldest one-time keys of each: so many, or as many as there are; gives them oldest first. The caller holds the locks.
pub async fn claim_one_time_keys(
    db: &impl GenericClient,
    wanted: &BTreeMap<ClaimRow, i64>,
) -> Result<Vec<(ClaimRow, OneTimeKeyRow)>> {
    const SQL: &str = "
        DELETE FROM one_time_keys k
         WHERE k.ctid = ANY (ARRAY(
               SELECT o.ctid
                 FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
                      AS w (user_id, device_id, algorithm, count)
                CROSS JOIN LATERAL
                      (SELECT ctid FROM one_time_keys o
                        WHERE o.user_id = w.user_id AND o.device_id = w.device_id AND o.algorithm = w.algorithm
                        ORDER BY position LIMIT w.count) AS o))
        RETURNING k.user_id, k.device_id, k.algorithm, k.key_id, k.key_json, k.position";
    let (users, devices, algorithms) = columns(wanted.keys());
    let counts: Vec<i64> = wanted.values().copied().collect();
    let mut rows = query(db, SQL, &[&users, &devices, &algorithms, &counts]).await?;
    rows.sort_unstable_by_key(|row| row.get::<_, i64>(5));
    Ok(rows.iter().map(claimed).collect())
}

/// The fallback key of each, as far as there is one; it counts as used from now on. The caller holds the locks.
pub async fn claim_fallback_keys(
    db: &impl GenericClient,
    wanted: &[&ClaimRow],
) -> Result<Vec<(ClaimRow, OneTimeKeyRow)>> {
    const SQL: &str = "
        UPDATE fallback_keys f SET used = true
          FROM unnest($1::text[], $2::text[], $3::text[]) AS w (user_id, device_id, algorithm)
         WHERE f.user_id = w.user_id AND f.device_id = w.device_id AND f.algorithm = w.algorithm
        RETURNING f.user_id, f.device_id, f.algorithm, f.key_id, f.key_json";
    let (users, devices, algorithms) = columns(wanted.iter().copied());
    let rows = query(db, SQL, &[&users, &devices, &algorithms]).await?;
    Ok(rows.iter().map(claimed).collect())
}

fn columns<'a>(wanted: impl Iterator<Item = &'a ClaimRow>) -> (Vec<&'a str>, Vec<&'a str>, Vec<&'a str>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for ClaimRow { user_id, device_id, algorithm } in wanted {
        columns.0.push(user_id.as_str());
        columns.1.push(device_id.as_str());
        columns.2.push(algorithm.as_str());
    }
    columns
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

/// Stores counts; of several of one device the last one. The caller holds the [lock](lock_devices), so each of them has a row.
pub async fn set_key_counts(db: &impl Write, rows: &[KeyCountsRow]) -> Result<()> {
    // All rows are there: an UPDATE would say so, but the planner reads a small table whole for it, with all its dead rows.
    const SQL: &str = "
        INSERT INTO device_key_counts (user_id, device_id, stream_id, writer_id, counts)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::smallint[], $5::text[])
            ON CONFLICT (user_id, device_id)
            DO UPDATE SET stream_id = excluded.stream_id, writer_id = excluded.writer_id, counts = excluded.counts";
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
    db.write(SQL, &[&users, &devices, &ids, &writers, &counts]).await
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

    fn device(device_id: &str) -> DeviceName {
        ("@a:x".to_owned(), device_id.to_owned())
    }

    async fn add(db: &TestClient, keys: &[OneTimeKeyRow]) -> Vec<String> {
        let new = NewKeys { user_id: "@a:x", device_id: "D", keys };
        let mut added = add_one_time_keys(&**db, &[new]).await.unwrap();
        let added = added.remove(&device("D")).unwrap_or_default();
        added.into_iter().map(|(_, key_id)| key_id).collect()
    }

    async fn add_device(db: &TestClient) {
        const SQL: &str = "INSERT INTO devices (user_id, device_id, created_ts) VALUES ('@a:x', 'D', 0)";
        db.execute(SQL, &[]).await.unwrap();
    }

    /// The ids of the keys that are given out to so many who ask at once.
    async fn claim(db: &TestClient, algorithm: &str, count: i64) -> Vec<String> {
        let (user_id, device_id) = device("D");
        let wanted = ClaimRow { user_id, device_id, algorithm: algorithm.to_owned() };
        let mut claimed = claim_one_time_keys(&**db, &[(wanted.clone(), count)].into()).await.unwrap();
        if claimed.is_empty() {
            claimed = claim_fallback_keys(&**db, &[&wanted]).await.unwrap();
        }
        assert!(claimed.iter().all(|(claim, _)| *claim == wanted));
        claimed.into_iter().map(|(_, key)| key.key_id).collect()
    }

    #[tokio::test]
    async fn keys_are_given_out_oldest_first_and_then_the_fallback_key_again_and_again() {
        let db = TestClient::new().await;
        for (id, json) in [("Z", "1"), ("A", "2"), ("Y", "3"), ("B", "4")] {
            assert_eq!(add(&db, &[key("alg", id, json)]).await, [id]);
        }
        set_fallback_keys(&*db, "@a:x", "D", &[key("alg", "F", "3")]).await.unwrap();
        assert_eq!(claim(&db, "alg", 1).await, ["Z"]);
        assert_eq!(claim(&db, "alg", 2).await, ["A", "Y"]);
        assert_eq!(claim(&db, "alg", 2).await, ["B"], "there is but one left");
        for _ in 0..2 {
            assert_eq!(claim(&db, "alg", 1).await, ["F"]);
        }
        assert_eq!(claim(&db, "other", 1).await, [""; 0]);
    }

    #[tokio::test]
    async fn only_devices_that_ever_had_keys_are_locked_for_a_claim() {
        let db = TestClient::new().await;
        add_device(&db).await;
        let devices: BTreeSet<DeviceName> = [device("D"), device("E")].into();
        assert_eq!(lock_devices(&*db, &devices).await.unwrap(), BTreeMap::new());
        let first = [(device("D"), KeyCounts::default())].into();
        assert_eq!(lock_first(&*db, &devices).await.unwrap(), first, "E does not exist");
        assert_eq!(lock_devices(&*db, &devices).await.unwrap(), first);
    }

    #[tokio::test]
    async fn a_fallback_key_is_unused_until_claimed_and_when_it_is_replaced() {
        let db = TestClient::new().await;
        let set = async |id: &str, json: &str| {
            set_fallback_keys(&*db, "@a:x", "D", &[key("alg", id, json)]).await.unwrap()
        };
        assert_eq!(set("F", "1").await, [false]);
        claim(&db, "alg", 1).await;
        assert_eq!(set("F", "1").await, [true], "the same key again is no new key");
        assert_eq!(set("G", "2").await, [false]);
    }

    #[tokio::test]
    async fn names_that_are_taken_are_left_alone_and_what_was_added_can_be_taken_back() {
        let db = TestClient::new().await;
        let [one, other, new] = [key("alg", "1", "x"), key("alg", "1", "y"), key("alg", "2", "z")];
        assert_eq!(add(&db, std::slice::from_ref(&one)).await, ["1"]);
        assert_eq!(add(&db, &[other.clone(), new.clone()]).await, ["2"]);
        let wanted = NewKeys { user_id: "@a:x", device_id: "D", keys: &[other.clone(), new.clone()] };
        assert_eq!(list_one_time_keys(&*db, wanted).await.unwrap(), [one.clone(), new]);
        remove_one_time_keys(&*db, "@a:x", "D", &[("alg".to_owned(), "2".to_owned())]).await.unwrap();
        assert_eq!(list_one_time_keys(&*db, wanted).await.unwrap(), [one]);
    }

    #[tokio::test]
    async fn counts_are_kept_with_their_place_in_the_stream() {
        let db = TestClient::new().await;
        assert_eq!(get_key_counts(&*db, "@a:x", "D").await.unwrap(), None);
        add_device(&db).await;
        let devices: BTreeSet<DeviceName> = [device("D")].into();
        lock_first(&*db, &devices).await.unwrap();
        add(&db, &[key("alg", "1", "x"), key("alg", "2", "y")]).await;
        let one_time = [("alg".to_owned(), 2)].into();
        let counts = KeyCounts { one_time, unused_fallback: Vec::new() };
        let row = |stream_id, counts: &KeyCounts| KeyCountsRow {
            stream_id: StreamId(stream_id),
            writer: WriterId(1),
            user_id: "@a:x".to_owned(),
            device_id: "D".to_owned(),
            counts: counts.clone(),
        };
        set_key_counts(&*db, &[]).await.unwrap();
        set_key_counts(&*db, &[row(6, &KeyCounts::default()), row(7, &counts)]).await.unwrap();
        assert_eq!(lock_devices(&*db, &devices).await.unwrap()[&device("D")], counts);
        assert_eq!(get_key_counts(&*db, "@a:x", "D").await.unwrap(), Some((StreamId(7), counts)));

        delete_keys_of_device(&*db, "@a:x", "D").await.unwrap();
        assert_eq!(claim(&db, "alg", 1).await, [""; 0]);
    }
}
