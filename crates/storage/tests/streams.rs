//! Positions, instances, leases and interned strings on a real database.

use std::time::Duration;

use myelin_storage::{
    Client, Result, StorageError, Transaction, instances, migrate, query_one,
    streams::{self, Fate},
    strings::Strings,
};
use myelin_testing::MigratedDatabase;
use myelin_types::{StreamId, WriterId};

const LONG: Duration = Duration::from_secs(60);
const GONE: Duration = Duration::ZERO;

/// Moves a position in a transaction of its own.
async fn advance(
    client: &mut Client,
    stream: &str,
    writer: WriterId,
    epoch: i64,
    position: StreamId,
) -> Result<usize> {
    let from = streams::list_positions(client, stream).await?.into_iter().find(|(known, _)| *known == writer);
    let from = from.map_or(StreamId::ZERO, |(_, from)| from);
    advance_from(client, stream, (writer, epoch), (from, position)).await
}

async fn advance_from(
    client: &mut Client,
    stream: &str,
    writer: (WriterId, i64),
    path: (StreamId, StreamId),
) -> Result<usize> {
    let flight = Transaction::begin(client).take_off();
    let advanced = streams::advance(&flight, stream, writer, path).await?;
    flight.land(Ok(())).await?;
    Ok(advanced.writers())
}

#[tokio::test]
async fn the_fate_of_a_transaction_is_told_and_does_not_change_any_more() {
    let database = MigratedDatabase::create().await;
    let mut client = database.get().await.unwrap();
    let me = (WriterId(1), 7);
    streams::claim(&client, &["events"], me.0, me.1).await.unwrap();
    let ids = streams::allocate(&client, "events", 2).await.unwrap();
    // It was committed.
    advance_from(&mut client, "events", me, (StreamId::ZERO, ids[0])).await.unwrap();
    let fate = streams::seal(&client, "events", me, StreamId::ZERO).await.unwrap();
    assert_eq!(fate, Some((Fate::Committed(ids[0]), 1)));

    // It was not, and comes too late.
    let Some((Fate::Sealed(sealed), 1)) = streams::seal(&client, "events", me, ids[0]).await.unwrap() else {
        panic!("it is sealed off")
    };
    assert!(sealed > ids[1], "nothing was told of the numbers in between");
    let late = advance_from(&mut client, "events", me, (ids[0], ids[1])).await;
    assert!(matches!(late, Err(StorageError::Fenced)), "{late:?}");
    advance_from(&mut client, "events", me, (sealed, StreamId(sealed.0 + 1))).await.unwrap();

    // Another process took over.
    assert_eq!(streams::seal(&client, "events", (me.0, 6), sealed).await.unwrap(), None);
}

#[tokio::test]
async fn migrating_again_changes_nothing_even_from_many_processes_at_once() {
    let database = MigratedDatabase::create().await;
    let outcomes = futures_util::future::join_all((0..4).map(|_| migrate(&database))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

#[tokio::test]
async fn a_position_moves_only_under_the_epoch_that_claimed_it() {
    let database = MigratedDatabase::create().await;
    let mut client = database.get().await.unwrap();
    let writer = WriterId(1);
    streams::claim(&client, &["events", "receipts"], writer, 7).await.unwrap();
    advance(&mut client, "events", writer, 7, StreamId(12)).await.unwrap();
    assert_eq!(streams::list_positions(&client, "events").await.unwrap(), [(writer, StreamId(12))]);

    streams::claim(&client, &["events"], writer, 8).await.unwrap();
    let refused = advance(&mut client, "events", writer, 7, StreamId(13)).await;
    assert!(matches!(refused, Err(StorageError::Fenced)), "{refused:?}");
    let refused = advance(&mut client, "events", WriterId(9), 8, StreamId(13)).await;
    assert!(matches!(refused, Err(StorageError::Fenced)), "{refused:?}");
    assert_eq!(streams::list_positions(&client, "events").await.unwrap(), [(writer, StreamId(12))]);
}

#[tokio::test]
async fn a_new_writer_starts_at_the_newest_id_of_the_stream() {
    let database = MigratedDatabase::create().await;
    let client = database.get().await.unwrap();
    let ids = streams::allocate(&client, "events", 3).await.unwrap();
    assert_eq!(ids, [StreamId(1), StreamId(2), StreamId(3)]);
    streams::claim(&client, &["events"], WriterId(2), 1).await.unwrap();
    assert_eq!(streams::list_positions(&client, "events").await.unwrap(), [(WriterId(2), StreamId(3))]);
}

/// Whether a process's heartbeat is accepted.
async fn beats(client: &myelin_storage::Client, process: instances::Registration) -> bool {
    instances::survey(client, process, Some(LONG), None).await.unwrap().is_current
}

#[tokio::test]
async fn a_survey_tells_the_fleet_only_when_something_changed() {
    let database = MigratedDatabase::create().await;
    let client = database.get().await.unwrap();
    let me = instances::register(&client, "me", LONG).await.unwrap();
    let survey = async |known| instances::survey(&client, me, Some(LONG), known).await.unwrap();
    let first = survey(None).await;
    let fleet = first.news.expect("nothing was known");
    assert_eq!((fleet.living.len(), &*fleet.living[0].name, fleet.leases.len()), (1, "me", 0));

    let mut known = first.fingerprint;
    assert_eq!(survey(Some(known)).await.news, None, "a heartbeat is no news");
    let mut fleet_after = async |what: &str| {
        let survey = survey(Some(known)).await;
        known = survey.fingerprint;
        survey.news.unwrap_or_else(|| panic!("{what} is news"))
    };
    instances::add_duty(&client, me, "events").await.unwrap();
    assert_eq!(fleet_after("a duty").await.living[0].duties, ["events"]);
    instances::set_address(&client, me, "http://127.0.0.1:1").await.unwrap();
    assert_eq!(fleet_after("an address").await.living[0].address.as_deref(), Some("http://127.0.0.1:1"));
    instances::acquire_leases(&client, &["events/1"], me).await.unwrap();
    assert_eq!(fleet_after("a lease").await.leases, [("events/1".to_owned(), me)]);
    let other = instances::register(&client, "other", LONG).await.unwrap();
    assert_eq!(fleet_after("one who comes").await.living.len(), 2);
    instances::hand_over_leases(&client, &["events/1"], me, Some(other)).await.unwrap();
    assert_eq!(fleet_after("another holder").await.leases, [("events/1".to_owned(), other)]);
    instances::deregister(&client, other).await.unwrap();
    assert_eq!(fleet_after("one who goes").await.living.len(), 1);

    // Without a heartbeat of its own, a process learns of its successor all the same.
    instances::register(&client, "me", LONG).await.unwrap();
    assert!(!instances::survey(&client, me, None, None).await.unwrap().is_current);
}

#[tokio::test]
async fn registering_again_raises_the_epoch_and_ends_the_former_process() {
    let database = MigratedDatabase::create().await;
    let client = database.get().await.unwrap();
    let first = instances::register(&client, "worker1", LONG).await.unwrap();
    let second = instances::register(&client, "worker1", LONG).await.unwrap();
    assert_eq!(first.writer, second.writer);
    assert_eq!(first.epoch + 1, second.epoch);
    assert!(!beats(&client, first).await);
    assert!(beats(&client, second).await);
    assert!(!instances::check_fence(&client, first).await.unwrap());
    assert!(instances::check_fence(&client, second).await.unwrap());
}

#[tokio::test]
async fn leases_of_the_living_stay_and_those_of_the_dead_are_taken_over_and_fenced() {
    let database = MigratedDatabase::create().await;
    let mut client = database.get().await.unwrap();
    let dead = instances::register(&client, "dead", GONE).await.unwrap();
    let alive = instances::register(&client, "alive", LONG).await.unwrap();
    let heir = instances::register(&client, "heir", LONG).await.unwrap();
    streams::claim(&client, &["events"], dead.writer, dead.epoch).await.unwrap();

    instances::acquire_leases(&client, &["events/1"], dead).await.unwrap();
    assert_eq!(instances::acquire_leases(&client, &["events/2"], alive).await.unwrap(), ["events/2"]);
    let held = instances::acquire_leases(&client, &["events/1", "events/2", "events/3"], heir).await.unwrap();
    assert_eq!(held, ["events/1", "events/3"]);

    let late = advance(&mut client, "events", dead.writer, dead.epoch, StreamId(5)).await;
    assert!(matches!(late, Err(StorageError::Fenced)), "{late:?}");
    assert!(!beats(&client, dead).await, "the dead must learn of it");

    instances::deregister(&client, alive).await.unwrap();
    let held = instances::acquire_leases(&client, &["events/2"], heir).await.unwrap();
    assert_eq!(held, ["events/2"], "a clean end frees at once");
}

#[tokio::test]
async fn positions_of_those_who_are_gone_for_good_are_moved_up_once_and_fenced() {
    let database = MigratedDatabase::create().await;
    let mut client = database.get().await.unwrap();
    let living = instances::register(&client, "living", LONG).await.unwrap();
    let gone = instances::register(&client, "gone", GONE).await.unwrap();
    let idle = instances::register(&client, "idle", GONE).await.unwrap();
    for process in [living, gone] {
        streams::claim(&client, &["events"], process.writer, process.epoch).await.unwrap();
    }
    streams::allocate(&client, "events", 5).await.unwrap();
    streams::claim(&client, &["events"], idle.writer, idle.epoch).await.unwrap();

    assert_eq!(streams::move_up_gone(&client, GONE).await.unwrap(), 1);
    let positions = streams::list_positions(&client, "events").await.unwrap();
    let of = |process: instances::Registration| {
        positions.iter().find(|(writer, _)| *writer == process.writer).map(|(_, id)| id.0)
    };
    assert_eq!([of(living), of(gone), of(idle)], [Some(0), Some(5), Some(5)]);
    let refused = advance(&mut client, "events", gone.writer, gone.epoch, StreamId(6)).await;
    assert!(matches!(refused, Err(StorageError::Fenced)), "{refused:?}");
    for process in [living, idle] {
        assert!(instances::check_fence(&client, process).await.unwrap(), "there was nothing to move");
    }

    let epochs = || async {
        let sql = "SELECT sum(epoch)::bigint FROM instances";
        query_one(&client, sql, &[]).await.unwrap().get::<_, i64>(0)
    };
    let before = epochs().await;
    assert_eq!(streams::move_up_gone(&client, GONE).await.unwrap(), 0);
    assert_eq!(epochs().await, before, "who stands at the end is left alone");
}

#[tokio::test]
async fn a_name_is_free_again_when_its_connection_ends() {
    let database = MigratedDatabase::create().await;
    let (one, other) = (database.get().await.unwrap(), database.get().await.unwrap());
    assert!(instances::try_lock_name(&one, "main").await.unwrap());
    assert!(!instances::try_lock_name(&other, "main").await.unwrap());
    drop(myelin_storage::detach(one));
    tokio::time::timeout(Duration::from_secs(10), async {
        while !instances::try_lock_name(&other, "main").await.unwrap() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the server frees the lock of a closed connection");
}

#[tokio::test]
async fn strings_keep_their_numbers_across_caches_and_evictions() {
    let database = MigratedDatabase::create().await;
    let client = database.get().await.unwrap();
    let (small, fresh) = (Strings::new(2), Strings::new(100));
    let values: Vec<String> = (0..50).map(|n| format!("@user{n}:example.org")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).chain(["@user3:example.org"]).collect();
    let ids = small.intern_all(&client, &values).await.unwrap();
    assert_eq!(ids[3], ids[50], "the same string twice in one call");
    assert_eq!(fresh.intern_all(&client, &values).await.unwrap(), ids);
    let resolved = Strings::new(2).resolve_all(&client, &ids).await.unwrap();
    assert!(resolved.iter().zip(&values).all(|(resolved, value)| **resolved == **value));
    assert_eq!(fresh.find(&client, "@nobody:example.org").await.unwrap(), None);
    let stored: i64 = query_one(&client, "SELECT count(*) FROM strings", &[]).await.unwrap().get(0);
    assert_eq!(stored, 50);
    assert!(matches!(fresh.resolve_all(&client, &[-1]).await, Err(StorageError::Inconsistent(_))));
}
