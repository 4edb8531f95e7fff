//! What is in memory is bounded, and what is forgotten is read again.

use serde_json::Value;

use super::world::{AMY, BOB, CAS, World, event_ids, next_batch};
use crate::SyncOptions;

#[tokio::test]
async fn rooms_that_take_too_much_are_forgotten_and_read_again() {
    let max_cache_bytes = 100_000;
    let world = World::with_options(SyncOptions { max_cache_bytes, ..SyncOptions::default() }).await;
    let mut rooms = Vec::new();
    for _ in 0..4 {
        rooms.push(world.room(AMY).await);
    }
    let since = next_batch(&world.sync(World::request(AMY, None)).await).to_owned();
    let mut sent = Vec::new();
    for number in 0..40 {
        let body = format!("{number}{}", "x".repeat(2000));
        sent.push(world.say(AMY, &rooms[number % 4], &body).await);
    }
    let engine = &world.sync.0;
    assert!(engine.size_bytes() <= max_cache_bytes + 5000, "{} bytes", engine.size_bytes());
    let answer = world.sync(World::request(AMY, Some(&since))).await;
    for (index, room_id) in rooms.iter().enumerate() {
        let timeline = &answer["rooms"]["join"][room_id.as_str()]["timeline"];
        let expected: Vec<&str> =
            sent.iter().skip(index).step_by(4).map(|event_id| event_id.as_str()).collect();
        assert_eq!(event_ids(&timeline["events"]), expected);
        assert_eq!(timeline["limited"], false);
    }
}

#[tokio::test]
async fn users_who_do_not_sync_any_more_are_forgotten_with_their_rooms() {
    let world = World::with_options(SyncOptions { max_users: 1, ..SyncOptions::default() }).await;
    let lonely = world.room(CAS).await;
    let (room_id, bob_since) = world.room_of_two().await;
    world.sync(World::request(CAS, None)).await;
    assert_eq!(world.sync.0.follows(), (1, 1), "Cas, and the room of Cas");
    let amy_since = next_batch(&world.sync(World::request(AMY, None)).await).to_owned();
    assert_eq!(world.sync.0.follows(), (1, 1), "Amy, and the room of Amy and Bob");
    let sent = world.say(BOB, &room_id, "hi").await;
    world.say(CAS, &lonely, "anybody?").await;
    for (user_id, since) in [(AMY, &amy_since), (BOB, &bob_since)] {
        let answer: Value = world.sync(World::request(user_id, Some(since))).await;
        let timeline = &answer["rooms"]["join"][room_id.as_str()]["timeline"];
        assert_eq!(event_ids(&timeline["events"]), [sent.as_str()]);
    }
}
