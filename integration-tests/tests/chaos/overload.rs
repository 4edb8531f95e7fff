//! Many more requests come than can be served.

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;
use myelin_integration_tests::{Cluster, Options, Topology, User};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::Case;

/// What each process of the cluster works on at once.
const AT_ONCE: usize = 64;
/// Who sends to one room at the same time, each the next message as soon as the last one was answered: ten times what the room's
/// writer works on.
const SENDERS: usize = 10 * AT_ONCE;
/// For how long.
const FLOOD: Duration = Duration::from_secs(12);
/// How long whoever was refused waits: much shorter than told.
const IMPATIENCE: Duration = Duration::from_millis(100);
/// How long an accepted request may take, in a debug build beside those who ask.
const ACCEPTED: Duration = Duration::from_secs(5);
/// How long after the flood the cluster is as quick as before.
const RECOVERY: Duration = Duration::from_secs(10);

/// What a sender of the flood was told.
#[derive(Default)]
struct Told {
    accepted: Vec<(String, Duration)>,
    refused: usize,
}

#[tokio::test]
async fn ten_times_as_much_comes_as_can_be_served() {
    let options = Options::default().set("max_concurrent_requests", json!(AT_ONCE));
    let cluster = Cluster::start(Topology { options, ..Topology::default() }).await;
    // Those who talk beside the flood find places: nobody has more than are left free.
    let case = Case::new("overload", "ten times as many requests at once as are worked on")
        .waiting_at_most(ACCEPTED);
    case.survives(cluster, async |cluster| {
        let somebody = cluster.register("worker1", "flood").await.at(&cluster.everywhere());
        let room = somebody.create_room(json!({})).await;
        let end = Instant::now() + FLOOD;
        let told = join_all((0..SENDERS).map(|sender| flood(&somebody, &room, sender, end))).await;

        let over = Instant::now();
        for n in 0.. {
            let asked = Instant::now();
            let answer = somebody.try_send(&room, "m.room.message", &format!("after-{n}"), &json!({})).await;
            if answer.is_ok_and(|answer| answer.status == 200) && asked.elapsed() < Duration::from_secs(1) {
                break;
            }
            assert!(over.elapsed() < RECOVERY, "the cluster does not recover");
            sleep(IMPATIENCE).await;
        }
        let refused: usize = told.iter().map(|told| told.refused).sum();
        assert!(refused > SENDERS, "only {refused} requests were refused: that was no overload");
        let accepted: Vec<&(String, Duration)> = told.iter().flat_map(|told| &told.accepted).collect();
        let mut latencies: Vec<Duration> = accepted.iter().map(|(_, latency)| *latency).collect();
        latencies.sort_unstable();
        let p99 = latencies.get(latencies.len().saturating_sub(1) * 99 / 100).copied();
        #[expect(clippy::print_stderr, reason = "the figures are of interest to who runs this")]
        {
            eprintln!("{} accepted, 99 % within {p99:?}; {refused} refused", accepted.len());
        }
        assert!(p99.is_some_and(|p99| p99 < ACCEPTED), "what was accepted took {p99:?}");
        is_all_there(&somebody, &room, &accepted).await;
    })
    .await;
}

/// Sends messages one after the other until the end, each until it is accepted.
async fn flood(somebody: &User, room: &str, sender: usize, end: Instant) -> Told {
    let mut told = Told::default();
    let mut n = 0;
    while Instant::now() < end {
        let asked = Instant::now();
        let txn_id = format!("flood-{sender}-{n}");
        // A connection that broke says nothing; the message is sent again like one that was refused.
        if let Ok(answer) = somebody.try_send(room, "m.room.message", &txn_id, &json!({ "n": n })).await {
            if answer.status == 200 {
                let event_id = answer.body["event_id"].as_str().unwrap_or_default().to_owned();
                told.accepted.push((event_id, asked.elapsed()));
                n += 1;
                continue;
            }
            assert!([429, 503].contains(&answer.status), "{}: {}", answer.status, answer.body);
            assert!(answer.headers.contains_key("retry-after"), "{}", answer.body);
            assert!(answer.body["errcode"].is_string(), "{}", answer.body);
            told.refused += 1;
        }
        sleep(IMPATIENCE).await;
    }
    told
}

/// Each message that was accepted is in the room once.
async fn is_all_there(somebody: &User, room: &str, accepted: &[&(String, Duration)]) {
    let mut seen = HashSet::new();
    let mut from: Option<String> = None;
    loop {
        let page = somebody.try_messages(room, from.as_deref()).await.expect("the flood is over").ok();
        for event in page["chunk"].as_array().into_iter().flatten() {
            let event_id = event["event_id"].as_str().unwrap_or_default().to_owned();
            assert!(seen.insert(event_id), "twice in the timeline: {event}");
        }
        from = page["end"].as_str().map(str::to_owned);
        if from.is_none() {
            break;
        }
    }
    let missing = accepted.iter().filter(|(event_id, _)| !seen.contains(event_id)).count();
    assert_eq!(missing, 0, "messages that were accepted are not there");
}
