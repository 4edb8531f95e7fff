//! `device_keys`: the identity keys of devices.

use crate::{GenericClient, Result, execute, query, query_opt};

/// A device's identity keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceKeysRow {
    /// Whose device it is.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// The name that the user gave it.
    pub display_name: Option<String>,
    /// The keys as they were uploaded.
    pub key_json: String,
}

/// The keys that a device has uploaded.
pub async fn get_device_keys(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
) -> Result<Option<String>> {
    const SQL: &str = "SELECT key_json FROM device_keys WHERE user_id = $1 AND device_id = $2";
    Ok(query_opt(db, SQL, &[&user_id, &device_id]).await?.map(|row| row.get(0)))
}

/// Stores a device's keys, in place of those that it had.
pub async fn set_device_keys(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
    key_json: &str,
) -> Result<()> {
    const SQL: &str = "
        INSERT INTO device_keys (user_id, device_id, key_json) VALUES ($1, $2, $3)
            ON CONFLICT (user_id, device_id) DO UPDATE SET key_json = excluded.key_json";
    execute(db, SQL, &[&user_id, &device_id, &key_json]).await?;
    Ok(())
}

/// The keys of all devices of some users, by user and device.
pub async fn list_device_keys(db: &impl GenericClient, user_ids: &[&str]) -> Result<Vec<DeviceKeysRow>> {
    const SQL: &str = "
        SELECT k.user_id, k.device_id, d.display_name, k.key_json
          FROM device_keys k LEFT JOIN devices d USING (user_id, device_id)
         WHERE k.user_id = ANY ($1)
         ORDER BY k.user_id, k.device_id";
    let rows = query(db, SQL, &[&user_ids]).await?;
    Ok(rows
        .iter()
        .map(|row| DeviceKeysRow {
            user_id: row.get(0),
            device_id: row.get(1),
            display_name: row.get(2),
            key_json: row.get(3),
        })
        .collect())
}

/// Deletes everything of these devices that this family of tables holds: keys, signatures on them, messages. Gives
/// whether any of them had identity keys.
pub async fn delete_devices(db: &impl GenericClient, user_id: &str, device_ids: &[&str]) -> Result<bool> {
    // First what uploads hold a lock on: what they added before is there to be deleted, and later ones find no device.
    const COUNTS: &str = "DELETE FROM device_key_counts WHERE user_id = $1 AND device_id = ANY ($2)";
    const KEYS: &str = "DELETE FROM device_keys WHERE user_id = $1 AND device_id = ANY ($2)";
    const REST: [&str; 5] = [
        "DELETE FROM one_time_keys WHERE user_id = $1 AND device_id = ANY ($2)",
        "DELETE FROM fallback_keys WHERE user_id = $1 AND device_id = ANY ($2)",
        "DELETE FROM to_device_messages WHERE user_id = $1 AND device_id = ANY ($2)",
        "DELETE FROM to_device_transactions WHERE user_id = $1 AND device_id = ANY ($2)",
        "DELETE FROM key_signatures WHERE user_id = $1 AND key_id = ANY ($2)",
    ];
    execute(db, COUNTS, &[&user_id, &device_ids]).await?;
    let had_keys = execute(db, KEYS, &[&user_id, &device_ids]).await? > 0;
    for sql in REST {
        execute(db, sql, &[&user_id, &device_ids]).await?;
    }
    Ok(had_keys)
}

/// Those of a user's devices that have one of these ids.
pub async fn list_devices_named(
    db: &impl GenericClient,
    user_id: &str,
    device_ids: &[&str],
) -> Result<Vec<String>> {
    const SQL: &str = "SELECT device_id FROM devices WHERE user_id = $1 AND device_id = ANY ($2)";
    let rows = query(db, SQL, &[&user_id, &device_ids]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// All devices of some users, with or without keys, as (user, device).
pub async fn list_devices_of(db: &impl GenericClient, user_ids: &[&str]) -> Result<Vec<(String, String)>> {
    const SQL: &str = "SELECT user_id, device_id FROM devices WHERE user_id = ANY ($1) ORDER BY 1, 2";
    let rows = query(db, SQL, &[&user_ids]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestClient;

    #[tokio::test]
    async fn keys_are_replaced_listed_with_the_devices_name_and_deleted_with_the_device() {
        let db = TestClient::new().await;
        db.execute(
            "INSERT INTO devices (user_id, device_id, display_name, created_ts) VALUES ('@a:x', 'D', 'Phone', 0)",
            &[],
        )
        .await
        .unwrap();
        set_device_keys(&*db, "@a:x", "D", "{}").await.unwrap();
        set_device_keys(&*db, "@a:x", "D", "{\"v\":2}").await.unwrap();
        set_device_keys(&*db, "@b:x", "E", "{}").await.unwrap();

        assert_eq!(get_device_keys(&*db, "@a:x", "D").await.unwrap().as_deref(), Some("{\"v\":2}"));
        let listed = list_device_keys(&*db, &["@a:x", "@nobody:x"]).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].display_name.as_deref(), Some("Phone"));
        assert_eq!(list_devices_named(&*db, "@a:x", &["D", "X"]).await.unwrap(), ["D"]);
        assert_eq!(
            list_devices_of(&*db, &["@a:x", "@b:x"]).await.unwrap(),
            [("@a:x".to_owned(), "D".to_owned())]
        );

        assert!(delete_devices(&*db, "@a:x", &["D"]).await.unwrap());
        assert!(!delete_devices(&*db, "@a:x", &["D"]).await.unwrap(), "it has no keys any more");
        assert_eq!(get_device_keys(&*db, "@a:x", "D").await.unwrap(), None);
        assert!(get_device_keys(&*db, "@b:x", "E").await.unwrap().is_some());
    }
}
