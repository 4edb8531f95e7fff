use myelin_types::ManualClock;
use ruma::user_id;

use super::*;
use crate::test_streams::TestStreams;

struct Test {
    presence: Presence,
    clock: ManualClock,
    streams: TestStreams,
}

impl Test {
    async fn start() -> Self {
        let streams = TestStreams::start(&["presence"]).await;
        let clock = ManualClock::starting_at(1_000_000);
        let presence = open(&streams, &clock).await;
        Self { presence, clock, streams }
    }

    /// What a user's presence becomes, waiting for it to be so.
    async fn becomes(&self, user_id: &UserId, expected: PresenceState) -> PresenceRow {
        let mut changes = self.presence.feed().changes();
        loop {
            if let Some(row) = self.presence.known(user_id).filter(|row| row.presence == expected) {
                return row;
            }
            changes.changed().await.unwrap();
        }
    }

    fn sweep(&self) -> Vec<OwnedUserId> {
        let state = self.presence.0.state.lock();
        let now = self.clock_now();
        state.here.keys().filter(|user| self.presence.0.due(&state, user, now).is_some()).cloned().collect()
    }

    fn clock_now(&self) -> u64 {
        self.presence.0.clock.now()
    }
}

async fn open(streams: &TestStreams, clock: &ManualClock) -> Presence {
    let (feed, writer) = streams.stream().await;
    Presence::open(
        PresenceOptions::default(),
        Clock::Manual(clock.clone()),
        streams.database.clone(),
        feed,
        writer,
        streams.session.writer(),
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn who_syncs_is_online_until_the_syncs_end() {
    let test = Test::start().await;
    let amy = user_id!("@amy:a");
    let syncing = test.presence.syncing(amy, &PresenceState::Online);
    test.becomes(amy, PresenceState::Online).await;

    test.clock.advance(Duration::from_secs(100));
    assert!(test.sweep().is_empty(), "a long poll is under way");
    drop(syncing);
    test.clock.advance(Duration::from_secs(29));
    assert!(test.sweep().is_empty());
    test.clock.advance(Duration::from_secs(1));
    assert_eq!(test.sweep(), [amy.to_owned()]);
    test.presence.0.clone().announce(test.sweep());
    test.becomes(amy, PresenceState::Offline).await;
}

#[tokio::test]
async fn a_second_sync_says_nothing_new() {
    let test = Test::start().await;
    let amy = user_id!("@amy:a");
    drop(test.presence.syncing(amy, &PresenceState::Online));
    test.becomes(amy, PresenceState::Online).await;
    let position = test.presence.feed().position();
    drop(test.presence.syncing(amy, &PresenceState::Online));
    assert!(test.sweep().is_empty());
    assert_eq!(test.presence.feed().position(), position);
}

#[tokio::test]
async fn who_does_nothing_becomes_unavailable_and_comes_back_by_acting() {
    let test = Test::start().await;
    let amy = user_id!("@amy:a");
    let _syncing = test.presence.syncing(amy, &PresenceState::Online);
    test.becomes(amy, PresenceState::Online).await;
    test.clock.advance(Duration::from_secs(300));
    test.presence.0.clone().announce(test.sweep());
    test.becomes(amy, PresenceState::Unavailable).await;
    test.presence.active(amy);
    let row = test.becomes(amy, PresenceState::Online).await;
    assert_eq!(row.last_active_ts, test.clock_now());
    assert!(test.presence.is_currently_active(&row));
}

#[tokio::test]
async fn what_a_user_says_is_kept_beyond_a_restart() {
    let test = Test::start().await;
    let amy = user_id!("@amy:a");
    let says = Some("in a meeting".to_owned());
    test.presence.set(amy, PresenceState::Unavailable, says.clone()).await.unwrap();
    let restarted = open(&test.streams, &test.clock).await;
    let row = restarted.known(amy).unwrap();
    assert_eq!((row.presence, row.status_msg), (PresenceState::Unavailable, says));
    test.presence.set(amy, PresenceState::Offline, None).await.unwrap();
    assert_eq!(test.presence.get(amy).await.unwrap().unwrap().presence, PresenceState::Offline);
    assert_eq!(test.presence.get(user_id!("@nobody:a")).await.unwrap(), None);
    assert!(test.presence.list_present().is_empty());
}
