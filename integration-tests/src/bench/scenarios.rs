//! What is measured.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use myelin_integration_tests::{User, path_segment};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    connection::Connection,
    homeserver::Homeserver,
    meter::{Meter, Outcome, Report},
};

/// How many requests of the preparations run at a time.
const PREPARATIONS_AT_ONCE: usize = 32;

/// How long a scenario runs before it is measured: caches are filled, connections are open.
const WARM_UP: Duration = Duration::from_secs(2);

/// An empty homeserver, with nobody on it. An operation is a second.
pub async fn idle(server: &mut Homeserver, length: Duration) -> anyhow::Result<Vec<Report>> {
    let meter = Meter::new(server).await?;
    sleep(WARM_UP).await;
    let before = meter.read(server).await?;
    sleep(length).await;
    let seconds = usize::try_from(length.as_secs())?;
    let outcome = Outcome { latencies: vec![Duration::ZERO; seconds], errors: 0 };

    Ok(vec![meter.report("idle", server, &before, outcome).await?])
}

/// 64 senders, each in a room of 10 members of its own, each sending one message after the other.
pub async fn send(server: &mut Homeserver, length: Duration) -> anyhow::Result<Vec<Report>> {
    const SENDERS: usize = 64;
    const MEMBERS: usize = 10;

    let users = users(server, "sender", SENDERS).await;
    let rooms = rooms(&users, SENDERS, MEMBERS).await;
    let meter = Meter::new(server).await?;
    let mut connections = connections(server, &users).await?;
    let mut report = None;
    for (round, length) in [("warm", WARM_UP), ("send", length)] {
        let before = meter.read(server).await?;
        let senders = connections.iter_mut().zip(&rooms).map(async |(connection, room)| {
            repeat(length, async |n| {
                let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{round}{n}");
                let body = r#"{"msgtype":"m.text","body":"The quick brown fox jumps over the lazy dog."}"#;
                Ok(connection.request("PUT", &path, body).await? == 200)
            })
            .await
        });
        let outcome = merged(try_join_all(senders).await?);
        report = Some(meter.report("send", server, &before, outcome).await?);
    }

    Ok(report.into_iter().collect())
}

/// 64 users in 10 rooms each who ask for news when there is none.
pub async fn sync_noop(server: &mut Homeserver, length: Duration) -> anyhow::Result<Vec<Report>> {
    const USERS: usize = 64;
    const ROOMS_OF_EACH: usize = 10;

    let users = users(server, "syncer", USERS).await;
    rooms(&users, USERS, ROOMS_OF_EACH).await;
    let meter = Meter::new(server).await?;
    let mut connections = connections(server, &users).await?;
    let mut tokens =
        try_join_all(connections.iter_mut().map(async |connection| sync(connection, None).await)).await?;
    let mut report = None;
    for length in [WARM_UP, length] {
        let before = meter.read(server).await?;
        let syncers = connections.iter_mut().zip(&mut tokens).map(async |(connection, token)| {
            repeat(length, async |_| {
                *token = sync(connection, Some(token)).await?;
                Ok(true)
            })
            .await
        });
        let outcome = merged(try_join_all(syncers).await?);
        report = Some(meter.report("sync_noop", server, &before, outcome).await?);
    }

    Ok(report.into_iter().collect())
}

/// One message to a room in which 200 wait for it: an operation is one of them having it.
pub async fn fan_out(server: &mut Homeserver, length: Duration) -> anyhow::Result<Vec<Report>> {
    const WAITING: usize = 200;
    /// How long those who wait are given to be waiting all, after the last of them was answered.
    const SETTLING: Duration = Duration::from_millis(50);

    let users = users(server, "listener", WAITING + 1).await;
    let room = rooms(&users, 1, WAITING + 1).await.remove(0);
    let meter = Meter::new(server).await?;
    let mut connections = connections(server, &users).await?;
    let mut sender = connections.remove(0);
    let mut tokens =
        try_join_all(connections.iter_mut().map(async |connection| sync(connection, None).await)).await?;
    let before = meter.read(server).await?;
    let mut all = Outcome::default();
    let end = Instant::now() + length;
    for round in 0.. {
        if Instant::now() >= end {
            break;
        }
        let body = format!("message {round}");
        let start = Instant::now() + SETTLING;
        let send = async {
            tokio::time::sleep_until(start).await;
            let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/fan{round}");
            let content = json!({ "msgtype": "m.text", "body": body }).to_string();
            ensure!(sender.request("PUT", &path, &content).await? == 200, "a message was not taken");
            Ok(())
        };
        let listen = connections.iter_mut().zip(&mut tokens).map(async |(connection, token)| {
            loop {
                let path = format!("/_matrix/client/v3/sync?timeout=30000&since={}", path_segment(token));
                ensure!(connection.request("GET", &path, "").await? == 200, "a sync failed");
                *token = next_batch(connection)?;
                if contains(connection.body(), body.as_bytes()) {
                    return anyhow::Ok(start.elapsed());
                }
            }
        });
        let ((), latencies) = tokio::try_join!(send, try_join_all(listen))?;
        all.latencies.extend(latencies);
    }

    Ok(vec![meter.report("fan_out", server, &before, all).await?])
}

/// The first sync of a user in 300 rooms of 20 members and 50 messages each: right after the homeserver's start, and
/// again.
pub async fn initial_sync(server: &mut Homeserver, length: Duration) -> anyhow::Result<Vec<Report>> {
    const ROOMS: usize = 300;
    const MEMBERS: usize = 20;
    const MESSAGES: usize = 50;

    let users = users(server, "member", MEMBERS).await;
    let rooms = rooms(&users, ROOMS, MEMBERS).await;
    stream::iter(rooms.iter().enumerate())
        .map(async |(n, room)| {
            let mut connection = Connection::open(server.url(), &users[n % MEMBERS]).await?;
            for message in 0..MESSAGES {
                let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{n}-{message}");
                let body = json!({ "msgtype": "m.text", "body": format!("Message {message} of room {n}.") });
                ensure!(
                    connection.request("PUT", &path, &body.to_string()).await? == 200,
                    "a message was not taken"
                );
            }
            Ok(())
        })
        .buffer_unordered(PREPARATIONS_AT_ONCE)
        .try_collect::<()>()
        .await?;

    let meter = Meter::new(server).await?;
    server.restart().await;
    let mut connection = Connection::open(server.url(), &users[0]).await?;
    let mut reports = Vec::new();
    for (name, length) in [("initial_sync_cold", Duration::ZERO), ("initial_sync_warm", length)] {
        let before = meter.read(server).await?;
        let outcome = repeat(length, async |_| sync(&mut connection, None).await.map(|_| true)).await?;
        reports.push(meter.report(name, server, &before, outcome).await?);
    }

    Ok(reports)
}

/// Repeats an operation, at least once, until the time is over. It tells whether it was answered well; an error ends the
/// scenario.
async fn repeat(
    length: Duration,
    mut operation: impl AsyncFnMut(usize) -> anyhow::Result<bool>,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let end = Instant::now() + length;
    for n in 0.. {
        let start = Instant::now();
        if n > 0 && start >= end {
            break;
        }
        match operation(n).await? {
            true => outcome.latencies.push(start.elapsed()),
            false => outcome.errors += 1,
        }
    }

    Ok(outcome)
}

fn merged(outcomes: Vec<Outcome>) -> Outcome {
    outcomes.into_iter().fold(Outcome::default(), |mut all, one| {
        all.latencies.extend(one.latencies);
        all.errors += one.errors;
        all
    })
}

/// Syncs without waiting and returns the token for the next time.
async fn sync(connection: &mut Connection, since: Option<&str>) -> anyhow::Result<String> {
    let since = since.map(|token| format!("&since={}", path_segment(token))).unwrap_or_default();
    let status = connection.request("GET", &format!("/_matrix/client/v3/sync?timeout=0{since}"), "").await?;
    ensure!(status == 200, "a sync was answered with {status}");

    next_batch(connection)
}

fn next_batch(connection: &Connection) -> anyhow::Result<String> {
    let token = connection.json()?["next_batch"].as_str().map(str::to_owned);

    token.context("every sync has a next_batch")
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

async fn users(server: &Homeserver, name: &str, count: usize) -> Vec<User> {
    stream::iter(0..count)
        .map(async |n| server.register(&format!("{name}{n}")).await)
        .buffered(PREPARATIONS_AT_ONCE)
        .collect()
        .await
}

/// Rooms, each of as many of the users, and each made by another.
async fn rooms(users: &[User], count: usize, members: usize) -> Vec<String> {
    stream::iter(0..count)
        .map(async |n| {
            let member = |m: usize| &users[(n + m) % users.len()];
            let room = member(0).create_room(json!({ "preset": "public_chat" })).await;
            for m in 1..members {
                member(m).join(&room).await;
            }
            room
        })
        .buffered(PREPARATIONS_AT_ONCE)
        .collect()
        .await
}

async fn connections(server: &Homeserver, users: &[User]) -> anyhow::Result<Vec<Connection>> {
    try_join_all(users.iter().map(|user| Connection::open(server.url(), user))).await
}
