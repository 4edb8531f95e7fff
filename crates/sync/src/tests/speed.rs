//! What syncs cost, in CPU time of this process. Ignored, since it says something only in release:
//!
//! ```text
//! cargo test --release -p myelin-sync speed -- --ignored --nocapture
//! ```

use std::{future::Future, time::Duration};

use futures_util::{StreamExt as _, stream};
use myelin_rooms::CreateRoom;
use serde_json::json;

use super::world::{AMY, World, filter_of, next_batch, user};
use crate::SyncRequest;

const ROOMS: usize = 300;
const MEMBERS: usize = 20;
const EVENTS: usize = 50;
const WAITING: usize = 200;

/// The CPU time of this thread, which all tasks of a test share.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    Duration::from_nanos(stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
}

async fn measured<T>(what: &str, times: u32, work: impl Future<Output = T>) -> T {
    let before = cpu_time();
    let outcome = work.await;
    println!("{what}: {:?} CPU each", (cpu_time() - before) / times);
    outcome
}

fn member(number: usize) -> String {
    format!("@member{number}:one.test")
}

async fn fill_room(world: &World) {
    let request = CreateRoom { preset: Some(myelin_rooms::Preset::PublicChat), ..CreateRoom::new(user(AMY)) };
    let room_id = world.rooms.create_room(request).await.unwrap();
    for number in 1..MEMBERS {
        world.join(&member(number), &room_id).await;
    }
    for number in 0..EVENTS {
        let sender = member(1 + number % (MEMBERS - 1));
        world.say(&sender, &room_id, &format!("a message of usual length, the {number}th of them")).await;
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn speed_of_no_news_and_of_beginning() {
    let world = World::new().await;
    stream::iter(0..ROOMS).for_each_concurrent(32, |_| fill_room(&world)).await;
    let initial = |lazy: bool| SyncRequest {
        filter: filter_of(json!({"room": {
            "timeline": {"limit": EVENTS},
            "state": {"lazy_load_members": lazy},
        }})),
        ..World::request(AMY, None)
    };
    let forever = std::future::pending;
    for (what, lazy) in [("all members", false), ("lazy", true)] {
        let engine = world.second_engine();
        let answer = measured(&format!("initial sync, cold, {what}"), 1, engine.sync(initial(lazy), forever())).await;
        println!("  {} bytes", answer.unwrap().len());
        for _ in 0..2 {
            let answer = engine.sync(initial(lazy), forever());
            measured(&format!("initial sync, warm, {what}"), 1, answer).await.unwrap();
        }
    }
    let short = SyncRequest { filter: filter_of(json!({})), ..initial(false) };
    let engine = world.second_engine();
    let answer = measured("initial sync, cold, 10 events", 1, engine.sync(short, forever())).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let since = next_batch(&answer);
    let room_id = world.room(AMY).await;
    measured("no news", 10_000, async {
        for _ in 0..10_000 {
            engine.sync(World::request(AMY, Some(since)), forever()).await.unwrap();
        }
    })
    .await;
    let before = world.sync(World::request(AMY, Some(since))).await;
    world.say(AMY, &room_id, "hi").await;
    measured("one event of 300 rooms", 1000, async {
        for _ in 0..1000 {
            world.sync.sync(World::request(AMY, Some(next_batch(&before))), forever()).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "a measurement"]
async fn speed_of_telling_many() {
    let world = World::new().await;
    let room_id = world.room(AMY).await;
    for number in 0..WAITING {
        world.join(&member(number), &room_id).await;
    }
    let mut tokens = Vec::new();
    for number in 0..WAITING {
        let answer = world.sync(World::request(&member(number), None)).await;
        tokens.push(next_batch(&answer).to_owned());
    }
    for _ in 0..3 {
        let requests = tokens.iter().enumerate().map(|(number, since)| SyncRequest {
            timeout: Duration::from_secs(30),
            ..World::request(&member(number), Some(since))
        });
        let tasks: Vec<_> = requests
            .map(|request| {
                let sync = world.sync.clone();
                tokio::spawn(async move { sync.sync(request, std::future::pending()).await.unwrap() })
            })
            .collect();
        while (0..WAITING).any(|number| !world.sync.0.enter(&user(&member(number))).0.is_asleep()) {
            tokio::task::yield_now().await;
        }
        let told = async {
            world.say(AMY, &room_id, &format!("hi {}", tokens[0])).await;
            futures_util::future::join_all(tasks).await
        };
        let answers = measured("one event told to 200 who wait, the sending included", 1, told).await;
        for (token, answer) in tokens.iter_mut().zip(answers) {
            let answer: serde_json::Value = serde_json::from_slice(&answer.unwrap()).unwrap();
            *token = next_batch(&answer).to_owned();
        }
    }
}
