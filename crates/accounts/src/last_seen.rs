//! When and from where a device was used last, noted off the path of requests.

use std::{collections::HashMap, net::IpAddr, sync::atomic::Ordering, time::Duration};

use myelin_storage::{
    Database, Result,
    accounts::devices::{self, LastSeen, Sighting},
};
use myelin_types::MillisSinceEpoch;
use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedUserId};

use crate::Login;

/// How exact the time is.
const GRANULARITY: Duration = Duration::from_secs(120);
/// Devices that wait to be written at most. The next request of one that was left out tries again.
const MAX_WAITING: usize = 20_000;
/// Devices that one statement writes.
const BATCH: usize = 1000;
/// More of a user agent is nobody's business.
const MAX_USER_AGENT_LEN: usize = 250;

/// Who is at the other end of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client<'a> {
    /// The address.
    pub ip: Option<IpAddr>,
    /// The software, as it calls itself.
    pub user_agent: Option<&'a str>,
}

#[derive(Default)]
pub(crate) struct Sightings {
    waiting: Mutex<HashMap<(OwnedUserId, OwnedDeviceId), LastSeen>>,
}

impl Sightings {
    pub fn note(&self, login: &Login, client: Client<'_>, now: MillisSinceEpoch) {
        let noted = login.seen_ts.load(Ordering::Relaxed);
        if now.saturating_sub(noted) < GRANULARITY.as_millis() as u64 {
            return;
        }
        let Some(device_id) = &login.device_id else { return };
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MAX_WAITING {
            return;
        }
        let seen = LastSeen {
            ts: Some(now),
            ip: client.ip.map(|ip| ip.to_string()),
            user_agent: client.user_agent.map(|name| name.chars().take(MAX_USER_AGENT_LEN).collect()),
        };
        waiting.insert((login.user_id.clone(), device_id.clone()), seen);
        login.seen_ts.store(now, Ordering::Relaxed);
    }

    /// Writes what is waiting. What can't be written is dropped: the next request of the device notes it again, some
    /// minutes later.
    pub async fn flush(&self, database: &Database) -> Result<()> {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        if waiting.is_empty() {
            return Ok(());
        }
        let sightings: Vec<Sighting> = waiting
            .into_iter()
            .map(|((user_id, device_id), seen)| Sighting { user_id, device_id, seen })
            .collect();
        let db = database.get().await?;
        for batch in sightings.chunks(BATCH) {
            devices::record_sightings(&db, batch).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Fixture, alice};

    use super::*;

    #[tokio::test]
    async fn a_device_is_noted_as_seen_once_in_a_while() {
        let fixture = Fixture::new().await;
        let token = fixture.log_in("PHONE").await.access_token;
        let use_from = async |last: u8| {
            let client = Client { ip: Some([127, 0, 0, last].into()), user_agent: Some("Test/1") };
            fixture.accounts.authenticate(&token, client).await.unwrap();
            fixture.accounts.0.sightings.flush(&fixture.database).await.unwrap();
            fixture.accounts.device(alice(), "PHONE".into()).await.unwrap().unwrap().last_seen
        };
        let first = use_from(1).await;
        assert_eq!((first.ip.as_deref(), first.user_agent.as_deref()), (Some("127.0.0.1"), Some("Test/1")));
        fixture.hands.advance(GRANULARITY - Duration::from_millis(1));
        assert_eq!(use_from(2).await, first);
        fixture.hands.advance(Duration::from_millis(1));
        assert_eq!(use_from(3).await.ip.as_deref(), Some("127.0.0.3"));
    }
}
