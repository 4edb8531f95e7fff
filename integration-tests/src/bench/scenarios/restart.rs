//! Starting, and coming back while many wait.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use myelin_integration_tests::path_segment;
use tokio::time::sleep;

use crate::{
    connection::{Account, Connection},
    crew::{Syncer, rooms, sync, syncers, users},
    report::Outcome,
    run::{Run, at_once},
};

/// How often it is asked whether the homeserver is there again.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// What a client waits before it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Starts the homeserver some times: the latency is that of the middle one, CPU and memory those of the last.
pub async fn start(run: &mut Run) -> anyhow::Result<()> {
    const TIMES: usize = 5;

    let mut latencies = Vec::new();
    for _ in 1..TIMES {
        run.server.stop().await;
        latencies.push(start_again(run).await);
    }
    run.server.stop().await;
    let begun = run.begin().await?;
    latencies.push(start_again(run).await);
    latencies.sort_unstable();
    let outcome = Outcome { latencies: vec![latencies[TIMES / 2]], errors: 0 };
    run.end("start", begun, outcome).await?;

    Ok(())
}

async fn start_again(run: &mut Run) -> Duration {
    let url = run.server.url();
    let start = Instant::now();
    let ((), ready) = tokio::join!(run.server.start_again(), until_there(&url, "/health/ready", start));

    ready
}

/// Many devices wait for news while the homeserver is restarted, and ask again when it is there. An operation is one of
/// them being answered, its latency since the start of the new process.
pub async fn with_waiting(run: &mut Run) -> anyhow::Result<()> {
    const WAITING: usize = 200;
    const ROOMS_OF_EACH: usize = 10;

    let users = users(&run.server, "user", WAITING).await?;
    rooms(&run.server, &users, WAITING, ROOMS_OF_EACH).await?;
    let url = run.server.url();
    let mut waiting = syncers(&url, &users).await?;
    // Whether they are answered or cut off while it stops, they come back with what they have.
    let poll = join_all(waiting.iter_mut().map(|syncer| syncer.step(30_000)));
    drop(tokio::join!(run.server.stop(), poll));

    let begun = run.begin().await?;
    let start = Instant::now();
    let ask = async {
        until_there(&url, "/_matrix/client/versions", start).await;
        at_once(&waiting, async |_, syncer: &Syncer| {
            while !came_back(&url, syncer).await {
                sleep(RETRY_AFTER).await;
            }
            Ok(Outcome { latencies: vec![start.elapsed()], errors: 0 })
        })
        .await
    };
    let ((), outcome) = tokio::join!(run.server.start_again(), ask);
    run.end("restart", begun, outcome?).await?;

    Ok(())
}

/// Asks once for what is new; whether there was an answer.
async fn came_back(url: &str, syncer: &Syncer) -> bool {
    let query = format!("&timeout=0&since={}", path_segment(&syncer.since));
    let Ok(mut connection) = Connection::open(url, syncer.connection.account()).await else { return false };

    sync(&mut connection, &query).await.is_ok()
}

/// Waits until a path is answered with 200, and tells how long that took.
async fn until_there(url: &str, path: &str, start: Instant) -> Duration {
    let is_there = async || -> anyhow::Result<bool> {
        let mut connection = Connection::open(url, &Account::default()).await?;
        Ok(connection.request("GET", path, "").await? == 200)
    };
    while !is_there().await.unwrap_or(false) {
        sleep(ASK_EVERY).await;
    }

    start.elapsed()
}
