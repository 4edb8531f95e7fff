//! What a message costs inside the engine: our own CPU time per send, from the call to the end of its commit.
//!
//! `cargo run --release -p myelin-rooms --example send_cost [sends] [senders] [rooms]`

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use myelin_events::ServerSigningKey;
use myelin_leases::Session;
use myelin_replication::{Feed, Stream as _, StreamWriter};
use myelin_rooms::{
    ChangeMembership, CreateRoom, EventStream, MembershipAction, Rooms, RoomsOptions, SendEvent,
};
use myelin_storage::strings::Strings;
use myelin_testing::MigratedDatabase;
use ruma::{OwnedRoomId, OwnedUserId, owned_server_name, owned_user_id};
use serde_json::{json, value::RawValue};

/// Members of each room.
const MEMBERS: usize = 10;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can start");
    runtime.block_on(run());
}

async fn run() {
    let argument = |index: usize, default: usize| {
        std::env::args().nth(index).and_then(|argument| argument.parse().ok()).unwrap_or(default)
    };
    let (sends, senders, rooms) = (argument(1, 20_000), argument(2, 64), argument(3, 100));
    let database = MigratedDatabase::create().await;
    let engine = start(&database).await;
    let rooms = make_rooms(&engine, rooms).await;
    send_all(&engine, &rooms, 1000, senders).await;
    let (cpu, clock) = (cpu_time(), Instant::now());
    send_all(&engine, &rooms, sends, senders).await;
    let (cpu, elapsed) = (cpu_time() - cpu, clock.elapsed());
    let per_send = cpu.as_secs_f64() * 1e6 / sends as f64;
    let rate = sends as f64 / elapsed.as_secs_f64();
    println!("{per_send:.0} us of CPU per send, {rate:.0} sends a second by {senders} senders");
}

async fn start(database: &MigratedDatabase) -> Rooms {
    let pool = (**database).clone();
    let session = Session::register(pool.clone(), "main", &[EventStream::NAME], Duration::from_secs(10))
        .await
        .expect("the name is free");
    let feed = Feed::open(pool.clone()).await.expect("the database answers");
    let writer = StreamWriter::start(pool.clone(), session.clone(), feed);
    let key = ServerSigningKey::from_seed("test", [1; 32]).expect("a seed makes a key");
    let options = RoomsOptions::new(owned_server_name!("one.test"), Arc::new(key));
    Rooms::start(pool, &session, writer, Strings::new(10_000), options, Arc::new(()), Arc::new(()))
        .await
        .expect("the leases are free")
}

async fn make_rooms(engine: &Rooms, count: usize) -> Vec<OwnedRoomId> {
    let mut rooms = Vec::with_capacity(count);
    for _ in 0..count {
        let mut request = CreateRoom::new(owned_user_id!("@creator:one.test"));
        request.is_public = true;
        let room_id = engine.create_room(request).await.expect("the room can be made");
        for number in 1..MEMBERS {
            let join = ChangeMembership::new(member(number), room_id.clone(), MembershipAction::Join);
            engine.change_membership(join).await.expect("the room is public");
        }
        rooms.push(room_id);
    }
    rooms
}

fn member(number: usize) -> OwnedUserId {
    format!("@user{number}:one.test").try_into().expect("this is a user id")
}

async fn send_all(engine: &Rooms, rooms: &[OwnedRoomId], sends: usize, senders: usize) {
    let next = Arc::new(AtomicUsize::new(0));
    let sender = |_| {
        let (engine, rooms, next) = (engine.clone(), rooms.to_vec(), next.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= sends {
                    return;
                }
                let body = format!("This is message number {number}, as long as people write them.");
                let content = json!({ "msgtype": "m.text", "body": body }).to_string();
                let request = SendEvent {
                    sender: member(1 + number % (MEMBERS - 1)),
                    device_id: Some("DEVICE".into()),
                    room_id: rooms[number % rooms.len()].clone(),
                    event_type: "m.room.message".into(),
                    state_key: None,
                    content: RawValue::from_string(content).expect("this is JSON"),
                    txn_id: Some(format!("{sends}.{number}").into()),
                    timestamp: None,
                };
                engine.send(request).await.expect("members may talk");
            }
        })
    };
    for task in (0..senders).map(sender).collect::<Vec<_>>() {
        task.await.expect("senders don't panic");
    }
}

/// The CPU time of this process so far. The kernel counts it in hundredths of a second.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let fields = stat.rsplit(')').next().expect("the command is in parentheses");
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}
