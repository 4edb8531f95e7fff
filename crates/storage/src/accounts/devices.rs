//! `devices`. They come and go with [`sessions`](super::sessions).

use myelin_types::MillisSinceEpoch;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::{GenericClient, Result, Row, execute, query, query_opt};

/// A row of `devices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Which device.
    pub device_id: OwnedDeviceId,
    /// What the user calls it.
    pub display_name: Option<String>,
    /// Who used it last and when, some minutes late.
    pub last_seen: LastSeen,
}

/// Who used a device, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastSeen {
    /// When; `None`: not since it was made.
    pub ts: Option<MillisSinceEpoch>,
    /// From which address.
    pub ip: Option<String>,
    /// With which software.
    pub user_agent: Option<String>,
}

impl TryFrom<&Row> for Device {
    type Error = crate::StorageError;

    fn try_from(row: &Row) -> Result<Self> {
        Ok(Self {
            device_id: row.try_get::<_, &str>(0)?.into(),
            display_name: row.try_get(1)?,
            last_seen: LastSeen {
                ts: row.try_get::<_, Option<i64>>(2)?.map(i64::cast_unsigned),
                ip: row.try_get(3)?,
                user_agent: row.try_get(4)?,
            },
        })
    }
}

/// All devices of a user.
pub async fn list_devices(db: &impl GenericClient, user: &UserId) -> Result<Vec<Device>> {
    const SQL: &str = "
        SELECT device_id, display_name, last_seen_ts, last_seen_ip, last_seen_user_agent
          FROM devices WHERE user_id = $1 ORDER BY device_id";
    query(db, SQL, &[&user.as_str()]).await?.iter().map(Device::try_from).collect()
}

/// One device.
pub async fn get_device(db: &impl GenericClient, user: &UserId, device: &DeviceId) -> Result<Option<Device>> {
    const SQL: &str = "
        SELECT device_id, display_name, last_seen_ts, last_seen_ip, last_seen_user_agent
          FROM devices WHERE user_id = $1 AND device_id = $2";
    query_opt(db, SQL, &[&user.as_str(), &device.as_str()]).await?.as_ref().map(Device::try_from).transpose()
}

/// Renames a device; `false` if there is none. `None` leaves the name as it is.
pub async fn set_display_name(
    db: &impl GenericClient,
    user: &UserId,
    device: &DeviceId,
    display_name: Option<&str>,
) -> Result<bool> {
    const SQL: &str = "
        UPDATE devices SET display_name = coalesce($3, display_name) WHERE user_id = $1 AND device_id = $2";
    Ok(execute(db, SQL, &[&user.as_str(), &device.as_str(), &display_name]).await? == 1)
}

/// A device that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Whose device.
    pub user_id: OwnedUserId,
    /// Which device.
    pub device_id: OwnedDeviceId,
    /// By whom, and when.
    pub seen: LastSeen,
}

/// Notes many devices as seen, each at most once in `sightings`.
pub async fn record_sightings(db: &impl GenericClient, sightings: &[Sighting]) -> Result<()> {
    const SQL: &str = "
        UPDATE devices d
           SET last_seen_ts = s.ts, last_seen_ip = s.ip, last_seen_user_agent = s.user_agent
          FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[])
            AS s (user_id, device_id, ts, ip, user_agent)
         WHERE d.user_id = s.user_id AND d.device_id = s.device_id
           AND (d.last_seen_ts IS NULL OR d.last_seen_ts < s.ts)";
    let users: Vec<&str> = sightings.iter().map(|sighting| sighting.user_id.as_str()).collect();
    let devices: Vec<&str> = sightings.iter().map(|sighting| sighting.device_id.as_str()).collect();
    let times: Vec<Option<i64>> =
        sightings.iter().map(|sighting| sighting.seen.ts.map(u64::cast_signed)).collect();
    let ips: Vec<Option<&str>> = sightings.iter().map(|sighting| sighting.seen.ip.as_deref()).collect();
    let user_agents: Vec<Option<&str>> =
        sightings.iter().map(|sighting| sighting.seen.user_agent.as_deref()).collect();
    execute(db, SQL, &[&users, &devices, &times, &ips, &user_agents]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use ruma::device_id;

    use super::*;
    use crate::accounts::{
        sessions,
        tests::{alice, bob, database, hash},
    };

    #[tokio::test]
    async fn devices_are_listed_renamed_and_seen() {
        let (_test, db) = database().await;
        for (number, device) in [(1, "A"), (2, "B")] {
            sessions::insert_session(&db, sessions::tests::session(alice(), device, hash(number)))
                .await
                .unwrap();
        }
        let a = device_id!("A");
        assert!(set_display_name(&db, alice(), a, Some("Phone")).await.unwrap());
        assert!(set_display_name(&db, alice(), a, None).await.unwrap(), "nothing to change is no error");
        assert!(!set_display_name(&db, bob(), a, Some("Phone")).await.unwrap());

        let sighting = |ts, ip: &str| Sighting {
            user_id: alice().to_owned(),
            device_id: a.to_owned(),
            seen: LastSeen { ts: Some(ts), ip: Some(ip.to_owned()), user_agent: None },
        };
        record_sightings(&db, &[sighting(50, "::2")]).await.unwrap();
        record_sightings(&db, &[sighting(40, "::1")]).await.unwrap();

        let expected = Device {
            device_id: a.to_owned(),
            display_name: Some("Phone".to_owned()),
            last_seen: LastSeen { ts: Some(50), ip: Some("::2".to_owned()), user_agent: None },
        };
        let devices = list_devices(&db, alice()).await.unwrap();
        assert_eq!(devices[0], expected, "a sighting that comes late changes nothing");
        assert_eq!(devices[1].last_seen, LastSeen::default());
        assert_eq!(get_device(&db, alice(), a).await.unwrap(), Some(expected));
        assert_eq!(get_device(&db, bob(), a).await.unwrap(), None);
    }
}
