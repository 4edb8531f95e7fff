//! What reading rooms costs, in CPU time of this process. Ignored, since it says something only in release:
//!
//! ```text
//! cargo test --release -p myelin-rooms speed -- --ignored --nocapture
//! ```

#![expect(clippy::print_stdout, reason = "what was measured is what this is for")]

use std::{future::Future, time::Duration};

use myelin_rooms::{
    MembershipAction,
    read::{ContextRequest, MembersRequest, PublicRoomsRequest, ReadFilter},
};
use ruma::api::Direction;

use super::{filtered, page, viewer};
use crate::world::{ALICE, BOB, World};

const EVENTS: usize = 200;
const MEMBERS: usize = 2000;
const TIMES: u32 = 500;

/// The CPU time of this thread, which all tasks of a test share.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    Duration::from_nanos(stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
}

async fn measure<T, F: Future<Output = T>>(what: &str, times: u32, work: impl Fn() -> F) {
    // What is prepared and kept for later requests does not count.
    work().await;
    let before = cpu_time();
    for _ in 0..times {
        work().await;
    }
    println!("{what}: {:?} CPU each", (cpu_time() - before) / times);
}

#[tokio::test]
#[ignore = "says something only in release"]
async fn speed() {
    let world = World::new().await;
    let room = world.room().await;
    for number in 0..EVENTS {
        world.say(ALICE, &room, &format!("message {number}, about as long as people write")).await.unwrap();
    }
    let reader = world.reader_with(64 << 20);
    let alice = viewer(ALICE);
    let fifty = page(Direction::Backward, 50);
    measure("a page of 50 messages", TIMES, || reader.messages(&alice, &room, &fifty)).await;
    let mut lazy = filtered(serde_json::json!({ "lazy_load_members": true }), &room);
    lazy.limit = 50;
    measure("the same with lazy members", TIMES, || reader.messages(&alice, &room, &lazy)).await;
    let mut typed = filtered(serde_json::json!({ "types": ["m.room.message"] }), &room);
    typed.limit = 50;
    measure("the same with a filter", TIMES, || reader.messages(&alice, &room, &typed)).await;
    let event_id = world.timeline(&room)[EVENTS / 2].event_id().clone();
    let around = ContextRequest { limit: 20, filter: ReadFilter::default() };
    measure("a context of 20", TIMES, || reader.context(&alice, &room, &event_id, &around)).await;
    measure("an event", TIMES, || reader.event(&alice, &room, &event_id)).await;
    let topic = ("m.room.create", "");
    measure("a state event", TIMES, || reader.state_event(&alice, &room, topic, false)).await;
    let all = PublicRoomsRequest::default();
    measure("the directory", TIMES, || reader.public_rooms(&all)).await;

    for number in 0..MEMBERS {
        world.join(&format!("@member{number}:one.test"), &room).await.unwrap();
    }
    let members = MembersRequest::default();
    measure("2,000 members from memory", 50, || reader.members(&alice, &room, &members)).await;
    measure("2,000 members with names", 50, || reader.joined_members(&alice, &room)).await;
    world.join(BOB, &room).await.unwrap();
    world.change(BOB, &room, MembershipAction::Leave, BOB).await.unwrap();
    let bob = viewer(BOB);
    world.join("@carol:one.test", &room).await.unwrap();
    measure("2,000 members from the database", 5, || reader.members(&bob, &room, &members)).await;
}
