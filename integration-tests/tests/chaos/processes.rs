//! Processes are killed, put to sleep and restarted.

use std::time::Duration;

use myelin_integration_tests::{Cluster, Daemon, Topology, load::Plan, resident_bytes};

use crate::{Case, REPLACED, full};

/// How long a request waits at most that a process took which then stands still for 20 s: nginx gives it up after 5 s.
const MEANWHILE: Duration = Duration::from_secs(12);

fn case(name: &'static str) -> Case {
    Case::new("processes", name)
}

/// A case of the short suite: messages as fast as they go, at four processes.
async fn survives(name: &'static str, fault: impl AsyncFnOnce(&mut Cluster)) {
    let plan = Plan { extras_every: 2, ..Plan::default() };
    case(name).saying(plan).survives(Cluster::start(Topology::default()).await, fault).await;
}

async fn kill(cluster: &mut Cluster, names: &[&str]) {
    for name in names {
        cluster.daemon_mut(name).kill().await;
    }
    for name in names {
        cluster.daemon_mut(name).start_again().await;
    }
}

#[tokio::test]
async fn nothing_happens() {
    survives("nothing, for comparison", async |_| {}).await;
}

#[tokio::test]
async fn a_writer_of_rooms_is_killed() {
    survives("kill -9 of a writer of rooms", async |cluster| kill(cluster, &["events1"]).await).await;
}

#[tokio::test]
async fn a_writer_of_rooms_is_killed_and_stays_away() {
    let name = "kill -9 of a writer of rooms, which stays away";
    survives(name, async |cluster| cluster.daemon_mut("events2").kill().await).await;
}

#[tokio::test]
async fn a_worker_is_killed() {
    survives("kill -9 of a generic worker", async |cluster| kill(cluster, &["worker1"]).await).await;
}

#[tokio::test]
async fn main_is_killed() {
    survives("kill -9 of main", async |cluster| kill(cluster, &["main"]).await).await;
}

#[tokio::test]
async fn a_writer_of_rooms_sleeps_while_it_is_replaced() {
    survives("SIGSTOP of a writer of rooms for 20 s", async |cluster| sleeps(cluster, "events1").await).await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn main_sleeps_while_it_is_replaced() {
    case("SIGSTOP of main for 20 s")
        .behind_nginx()
        .survives(full().await, async |cluster| sleeps(cluster, "main").await)
        .await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn a_writer_of_rooms_sleeps_behind_a_proxy() {
    case("SIGSTOP of a writer of rooms for 20 s, behind nginx")
        .behind_nginx()
        .waiting_at_most(MEANWHILE)
        .survives(full().await, async |cluster| sleeps(cluster, "events1").await)
        .await;
}

/// A process sleeps for long enough to be replaced, and ends when it wakes up and finds out.
async fn sleeps(cluster: &mut Cluster, name: &str) {
    let daemon = cluster.daemon_mut(name);
    daemon.pause().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    daemon.resume().await;
    let status = daemon.ended().await;
    assert_eq!(status.code(), Some(REPLACED), "{status}");
    daemon.start_again().await;
}

/// By how much a process may grow in the second half of a minute in which nothing changes.
const GROWTH_BYTES: u64 = 8 << 20;

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn nothing_happens_for_a_minute_and_no_process_grows() {
    const HALF: Duration = Duration::from_secs(30);
    let memory = |cluster: &Cluster| -> Vec<(String, u64)> {
        let resident = |daemon: &Daemon| resident_bytes(daemon.process_id().unwrap_or_default().into());
        cluster.daemons().iter().map(|daemon| (daemon.name().to_owned(), resident(daemon))).collect()
    };
    case("nothing for a minute, to see memory")
        .survives(full().await, async |cluster| {
            tokio::time::sleep(HALF).await;
            let half = memory(cluster);
            tokio::time::sleep(HALF).await;
            for ((name, before), (_, after)) in half.into_iter().zip(memory(cluster)) {
                #[expect(clippy::print_stderr, reason = "the figures are of interest to who runs this")]
                {
                    eprintln!(
                        "{name}: {} KiB after half a minute, {} KiB after a whole",
                        before >> 10,
                        after >> 10
                    );
                }
                assert!(before > 0, "{name} is gone");
                assert!(after < before + GROWTH_BYTES, "{name} grew from {before} to {after} bytes");
            }
        })
        .await;
}

#[tokio::test]
async fn every_process_is_restarted_one_after_the_other() {
    survives("SIGTERM and start of each process in turn", async |cluster| {
        for name in ["worker1", "worker2", "events1", "events2", "main"] {
            let daemon = cluster.daemon_mut(name);
            let status = daemon.stop().await;
            assert!(status.success(), "{name}: {status}");
            daemon.start_again().await;
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn each_process_is_killed_in_turn() {
    case("kill -9 and start of each of eleven processes in turn")
        .behind_nginx()
        .survives(full().await, async |cluster| {
            let names: Vec<_> = cluster.daemons().iter().map(|daemon| daemon.name().to_owned()).collect();
            for name in &names {
                kill(cluster, &[name]).await;
            }
        })
        .await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn main_and_a_writer_of_rooms_are_killed_at_once() {
    case("kill -9 of main and a writer of rooms at once")
        .behind_nginx()
        .survives(full().await, async |cluster| kill(cluster, &["main", "events1"]).await)
        .await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn both_writers_of_rooms_are_killed_at_once() {
    case("kill -9 of both writers of rooms at once")
        .behind_nginx()
        .survives(full().await, async |cluster| kill(cluster, &["events1", "events2"]).await)
        .await;
}
