//! Which rows of other processes are wanted.

use myelin_replication::{Stream as _, Topic};
use myelin_rooms::EventStream;

use super::world::{AMY, World, next_batch};

#[tokio::test]
async fn messages_are_wanted_of_rooms_that_somebody_here_follows() {
    let world = World::new().await;
    let (followed, other) = (world.room(AMY).await, world.room("@stranger:one.test").await);
    let (followed, other) = (world.nid(&followed).0, world.nid(&other).0);
    let said = |of| Some(Topic { of, for_all: false });
    let wanted = |topics: &[Option<Topic>]| world.sync.0.wanted(topics);
    assert_eq!(wanted(&[said(followed), said(other), None]), [false, false, true]);
    next_batch(&world.sync(World::request(AMY, None)).await);
    assert_eq!(wanted(&[said(followed), said(other), None]), [true, false, true]);
    // Somebody may join there, and then wants what was said before and after.
    let joined = Some(Topic { of: other, for_all: true });
    assert_eq!(wanted(&[said(other), joined, said(other), said(0)]), [true, true, true, false]);
}

#[tokio::test]
async fn what_changes_a_state_is_for_all() {
    let world = World::new().await;
    let topics = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
    let log = topics.clone();
    world.events().subscribe(move |batch| {
        log.lock().extend(batch.rows.iter().map(|row| EventStream::about(&row.row).unwrap()));
    });
    let room_id = world.room(AMY).await;
    let of = world.nid(&room_id).0;
    assert!(topics.lock().drain(..).all(|topic| topic == Topic { of, for_all: true }));
    world.say(AMY, &room_id, "hi").await;
    assert_eq!(std::mem::take(&mut *topics.lock()), [Topic { of, for_all: false }]);
}
