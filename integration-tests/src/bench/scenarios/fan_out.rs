//! A message to a room in which many wait for it: an operation is one of them having it.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures_util::future::try_join_all;
use serde_json::json;
use tokio::time::sleep_until;

use crate::{
    connection::Connection,
    crew::{Syncer, connections, rooms, send_path, syncers, users},
    report::Outcome,
    run::{Pace, Run, at_once},
};

const WAITING: usize = 200;

/// How long those who wait are given to be waiting all, after the last of them was answered.
const SETTLING: Duration = Duration::from_millis(50);

const MESSAGES_PER_SECOND: usize = 20;

struct World {
    room: String,
    sender: Connection,
    listeners: Vec<Syncer>,
}

impl World {
    async fn new(run: &Run) -> anyhow::Result<Self> {
        let users = users(&run.server, "listener", WAITING + 1).await?;
        let room = rooms(&run.server, &users, 1, WAITING + 1).await?.remove(0);
        let url = run.server.url();
        let sender = connections(&url, &users[..1]).await?.remove(0);

        Ok(Self { room, sender, listeners: syncers(&url, &users[1..]).await? })
    }
}

/// The next message is sent when all have the one before.
pub async fn one_by_one(run: &mut Run) -> anyhow::Result<()> {
    let World { room, mut sender, mut listeners } = World::new(run).await?;
    let length = run.length;
    let load = async {
        let mut all = Outcome::default();
        let end = Instant::now() + length;
        for n in 0.. {
            if Instant::now() >= end {
                break;
            }
            let start = Instant::now() + SETTLING;
            let send = async {
                sleep_until(start.into()).await;
                say(&mut sender, &room, n).await
            };
            let listen = listeners.iter_mut().map(async |listener| {
                listener.until(|answer| answer.has(&text(n))).await?;
                anyhow::Ok(start.elapsed())
            });
            let ((), latencies) = tokio::try_join!(send, try_join_all(listen))?;
            all.latencies.extend(latencies);
        }
        Ok(all)
    };
    run.measure("fan_out", load).await?;

    Ok(())
}

/// Messages are sent when they are due.
pub async fn paced_messages(run: &mut Run) -> anyhow::Result<()> {
    let World { room, mut sender, mut listeners } = World::new(run).await?;
    run.measure_warm("fan_out_20", async |length, round| {
        let pace = Pace { per_second: MESSAGES_PER_SECOND, length };
        let start = Instant::now() + SETTLING;
        let first = if round == "warm" { 0 } else { 1_000_000 };
        let send = async {
            for n in 0..pace.times() {
                sleep_until(pace.due(start, n).into()).await;
                say(&mut sender, &room, first + n).await?;
            }
            anyhow::Ok(())
        };
        let listen = at_once(&mut listeners, async |_, listener| {
            let outcome = RefCell::new(Outcome::default());
            // The next message that is not there yet.
            let next = RefCell::new(0);
            let heard_all = listener.until(|answer| {
                let (mut outcome, mut next) = (outcome.borrow_mut(), next.borrow_mut());
                while *next < pace.times() && answer.has(&text(first + *next)) {
                    outcome.latencies.push(pace.due(start, *next).elapsed());
                    *next += 1;
                }
                *next == pace.times()
            });
            heard_all.await?;
            Ok(outcome.into_inner())
        });
        Ok(tokio::try_join!(send, listen)?.1)
    })
    .await?;

    Ok(())
}

fn text(number: usize) -> String {
    format!("message {number}.")
}

async fn say(sender: &mut Connection, room: &str, number: usize) -> anyhow::Result<()> {
    let content = json!({ "msgtype": "m.text", "body": text(number) });
    let status = sender.request("PUT", &send_path(room, &number.to_string()), &content.to_string()).await?;
    ensure!(status == 200, "a message was answered with {status}");

    Ok(())
}
