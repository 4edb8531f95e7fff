//! A large room whose state has to be resolved does not keep the others waiting that the same process writes.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join;
use ruma::{OwnedEventId, OwnedRoomId, RoomVersionId};
use serde_json::json;

use crate::{
    remote::{RITA, ROB, RemoteRoom, member, named},
    world::{ALICE, World},
};

const MEMBERS: usize = 5_000;
/// How often the room forks, and comes together again.
const FORKS: usize = 12;
/// How long a message to another room may take while that happens: 99 of 100, of a build with debug assertions.
const OTHERS_WAIT: Duration = Duration::from_millis(200);

/// Talks in a room until the other work is done; gives how long each message took, the longest last.
async fn meanwhile<T>(
    world: &World,
    room_id: &OwnedRoomId,
    work: impl Future<Output = T>,
) -> (T, Vec<Duration>) {
    let is_done = AtomicBool::new(false);
    let talk = async {
        let mut waits = Vec::new();
        while !is_done.load(Ordering::Relaxed) {
            let asked = Instant::now();
            world.say(ALICE, room_id, "and now?").await.unwrap();
            waits.push(asked.elapsed());
        }
        waits.sort_unstable();
        waits
    };
    let work = async {
        let result = work.await;
        is_done.store(true, Ordering::Relaxed);
        result
    };
    join(work, talk).await
}

#[expect(clippy::print_stderr, reason = "the figures are of interest to who runs this")]
fn tell(what: &str, took: Duration, waits: &[Duration]) -> Duration {
    let p99 = waits[(waits.len() - 1) * 99 / 100];
    let (median, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    eprintln!(
        "{what}: {took:?}; meanwhile {} messages, p50 {median:?}, p99 {p99:?}, longest {longest:?}",
        waits.len()
    );
    p99
}

/// Two branches that know nothing of each other, and a message behind both.
fn fork(room: &mut RemoteRoom, round: usize) -> Vec<OwnedEventId> {
    let base = room.last();
    let mut made = Vec::new();
    let mut ends = Vec::new();
    for (branch, sender) in [ROB, RITA].into_iter().enumerate() {
        let topic = json!({ "topic": format!("{round} of {sender}") });
        made.push(room.state(std::slice::from_ref(&base), sender, "m.room.topic", "", topic));
        let leaving = member(round * 2 + branch);
        let leave = json!({ "membership": "leave" });
        ends.push(room.next_state(&leaving, "m.room.member", &leaving, leave));
        made.extend(ends.last().cloned());
    }
    made.push(room.message(&ends, ROB, "together again"));
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_of_thousands_that_forks_keeps_no_other_room_waiting() {
    let world = World::new().await;
    let other = world.room().await;
    let mut room = RemoteRoom::with_crowd(RoomVersionId::V11, 1, MEMBERS);
    let room_id = room.room_id().to_owned();
    // Made beforehand: the reference that these come from is slow.
    let forks: Vec<Vec<OwnedEventId>> = (0..FORKS).map(|round| fork(&mut room, round)).collect();

    let asked = Instant::now();
    let ((), waits) = meanwhile(&world, &other, world.join_remote(&room)).await;
    // All that is stored in one transaction, which a message may have to wait for.
    tell("joining", asked.elapsed(), &waits);
    let asked = Instant::now();
    let receive = async {
        for made in &forks {
            let pdus = made.iter().map(|id| room.received(id)).collect();
            for (id, outcome) in world.rooms.receive(&room_id, pdus, &room).await.unwrap() {
                assert!(outcome.is_ok(), "{id}: {outcome:?}");
            }
        }
    };
    let ((), waits) = meanwhile(&world, &other, receive).await;
    let p99 = tell("resolving", asked.elapsed(), &waits);
    assert_eq!(world.stored_state(&room_id).await, named(&room.after[&room.last()]));
    assert!(p99 < OTHERS_WAIT, "others waited for {p99:?}");
}
