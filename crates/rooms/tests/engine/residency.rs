//! Rooms in memory: what a message costs where the room is warm, and what happens where there is no place for it.

use futures_util::future::{join_all, try_join_all};
use myelin_rooms::RoomError;
use ruma::OwnedRoomId;

use crate::world::{ALICE, World, message};

#[tokio::test]
async fn a_send_to_a_warm_room_reads_nothing_from_the_database() {
    let world = World::new().await;
    let room_id = world.room().await;
    world.say(ALICE, &room_id, "warm").await.unwrap();
    // All connections that the engine could read through are in our hands.
    let taken = try_join_all((0..4).map(|_| world.reading.get())).await.unwrap();
    for number in 0..100 {
        let mut request = message(ALICE, &room_id, &number.to_string());
        request.txn_id = Some(number.to_string().into());
        world.rooms.send(request).await.unwrap();
    }
    let cold = world.say(ALICE, ruma::room_id!("!cold:one.test"), "reads").await;
    assert!(matches!(cold, Err(RoomError::Unavailable(_))), "{cold:?}");
    drop(taken);
}

#[tokio::test]
async fn idle_rooms_are_evicted_and_come_back_as_they_were() {
    let limits: [(usize, usize); 2] = [(10, usize::MAX), (usize::MAX, 200_000)];
    for (max_rooms, max_bytes) in limits {
        let world = World::with(|options| {
            options.max_resident_rooms = max_rooms;
            options.max_resident_bytes = max_bytes;
        })
        .await;
        let mut rooms: Vec<OwnedRoomId> = Vec::new();
        for _ in 0..30 {
            rooms.push(world.room().await);
        }
        assert!(world.rooms.resident_rooms() <= 20, "{} of 30 rooms are there", world.rooms.resident_rooms());
        for round in 0..2 {
            let sends = rooms.iter().map(|room_id| {
                let mut request = message(ALICE, room_id, &round.to_string());
                request.txn_id = Some(format!("txn{round}").into());
                async { (world.rooms.send(request.clone()).await, world.rooms.send(request).await) }
            });
            for (first, again) in join_all(sends).await {
                assert_eq!(again.unwrap(), first.unwrap());
            }
        }
        for room_id in &rooms {
            for pair in world.timeline(room_id).windows(2) {
                assert_eq!(pair[1].prev_events(), [pair[0].event_id().clone()]);
            }
        }
    }
}

#[tokio::test]
async fn sends_to_many_rooms_share_transactions() {
    let world = World::new().await;
    let mut rooms = Vec::new();
    for _ in 0..40 {
        rooms.push(world.room().await);
    }
    let commits = "SELECT count(DISTINCT xmin::text) FROM events";
    let before = world.count(commits).await;
    let sends = rooms.iter().map(|room_id| world.say(ALICE, room_id, "at once"));
    try_join_all(sends).await.unwrap();
    let commits = world.count(commits).await - before;
    assert!(commits <= 4, "40 sends to 40 rooms took {commits} commits");
}
