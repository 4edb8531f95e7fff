use myelin_leases::Session;
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
    open_as(&streams.session, streams, clock).await
}

/// The presence of another process, which hears nothing of the others but what it reads.
async fn open_as(session: &Session, streams: &TestStreams, clock: &ManualClock) -> Presence {
    let feed = Feed::open(streams.database.clone()).await.unwrap();
    let writer = StreamWriter::start(streams.database.clone(), session.clone(), feed.clone());
    Presence::open(
        PresenceOptions::default(),
        Clock::Manual(clock.clone()),
        streams.database.clone(),
        feed,
        writer,
        session.writer(),
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

#[tokio::test]
async fn to_find_a_user_there_does_not_take_back_what_they_said_elsewhere() {
    let test = Test::start().await;
    let amy = user_id!("@amy:a");
    let here = &test.presence;
    let session = Session::register(test.streams.database.clone(), "other", &["presence"], Duration::ZERO);
    let session = session.await.unwrap();
    let there = open_as(&session, &test.streams, &test.clock).await;
    let says = |text: &str| Some(text.to_owned());
    here.set(amy, PresenceState::Unavailable, says("one")).await.unwrap();
    there.feed().catch_up().await.unwrap();
    assert_eq!(there.known(amy).unwrap().status_msg, says("one"));

    // The other process has not heard of it when it finds her there.
    here.set(amy, PresenceState::Unavailable, says("two")).await.unwrap();
    let _syncing = there.syncing(amy, &PresenceState::Online);
    let mut changes = there.feed().changes();
    while there.known(amy).unwrap().presence != PresenceState::Online {
        changes.changed().await.unwrap();
    }
    here.feed().catch_up().await.unwrap();
    there.feed().catch_up().await.unwrap();
    let later = open(&test.streams, &test.clock).await;
    for presence in [here, &there, &later] {
        let row = presence.known(amy).unwrap();
        assert_eq!((row.presence, row.status_msg), (PresenceState::Online, says("two")));
        let row = presence.get(amy).await.unwrap().unwrap();
        assert_eq!((row.presence, row.status_msg), (PresenceState::Online, says("two")));
    }
}

#[tokio::test]
async fn what_a_user_said_before_they_left_is_there_when_they_come_back() {
    let test = Test::start().await;
    let amy = user_id!("@amy:a");
    let says = Some("on holiday".to_owned());
    test.presence.set(amy, PresenceState::Offline, says.clone()).await.unwrap();
    let restarted = Test { presence: open(&test.streams, &test.clock).await, ..test };
    assert_eq!(restarted.presence.known(amy), None);
    let _syncing = restarted.presence.syncing(amy, &PresenceState::Online);
    assert_eq!(restarted.becomes(amy, PresenceState::Online).await.status_msg, says);
    assert_eq!(open(&restarted.streams, &restarted.clock).await.known(amy).unwrap().status_msg, says);
}

#[test]
fn of_rows_that_come_out_of_order_the_greater_id_counts() {
    let row = |id: i64, presence: PresenceState, status_msg: &str, is_said: bool| Stamped {
        id: StreamId(id),
        writer: WriterId(1),
        row: PresenceRow {
            user_id: user_id!("@amy:a").to_owned(),
            presence,
            status_msg: Some(status_msg.to_owned()),
            last_active_ts: 0,
            is_said,
        },
    };
    let rows = [
        row(1, PresenceState::Online, "one", true),
        row(2, PresenceState::Unavailable, "two", true),
        row(3, PresenceState::Online, "what was known", false),
        row(4, PresenceState::Offline, "", false),
    ];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
        let mut known = Known::new(&rows[order[0]], 0);
        order[1..].iter().for_each(|index| known.learn(&rows[*index], 0));
        assert_eq!(known.row.presence, PresenceState::Offline, "{order:?}");
        assert_eq!(known.row.status_msg.as_deref(), Some("two"), "{order:?}");
    }
}
