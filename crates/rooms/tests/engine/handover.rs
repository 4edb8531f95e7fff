//! Rooms that go to another writer.

use myelin_rooms::RoomError;

use myelin_storage::{GenericClient as _, Transaction};

use crate::world::{ALICE, World, message};

#[tokio::test]
async fn a_room_is_given_away_only_once_what_is_under_way_is_committed() {
    let world = World::new().await;
    let room_id = world.room().await;
    // Whatever is written to the table waits for this transaction.
    let mut client = world.database.get().await.unwrap();
    let transaction = Transaction::begin(&mut client);
    let stop = transaction.connection();
    stop.batch_execute("LOCK TABLE events IN SHARE MODE").await.unwrap();
    let count = async |sql: &str| stop.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    let rooms = world.rooms.clone();
    let request = message(ALICE, &room_id, "under way");
    let sending = tokio::spawn(async move { rooms.send(request).await });
    const WAITING: &str = "
        SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
         WHERE NOT l.granted AND d.datname = current_database()";
    while count(WAITING).await == 0 {
        tokio::task::yield_now().await;
    }
    let rooms = world.rooms.clone();
    let leaving = tokio::spawn(async move { rooms.leave().await });
    while world.rooms.writes(&room_id) {
        // Not idle: PostgreSQL would end the transaction.
        count(WAITING).await;
    }
    let refused = world.say(ALICE, &room_id, "too late").await;
    assert!(matches!(refused, Err(RoomError::NotHere(_))), "{refused:?}");
    // As long as the commit has not ended, nobody else may have the room.
    for _ in 0..100 {
        assert_eq!(count("SELECT count(*) FROM leases WHERE lease LIKE 'events/%'").await, 128);
    }
    drop(transaction);
    let sent = sending.await.unwrap().expect("what was taken before is written");
    leaving.await.unwrap().expect("the database is there");
    assert_eq!(world.timeline(&room_id).last().map(|event| event.event_id().clone()), Some(sent));
    assert_eq!(world.count("SELECT count(*) FROM leases WHERE lease LIKE 'events/%'").await, 0);
}
