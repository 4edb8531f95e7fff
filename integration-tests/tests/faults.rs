//! Nothing that was acknowledged is lost, repeated or reordered, whatever happens to the processes of a cluster.
//!
//! Each request of each client goes to another process than the one before.

use std::time::Duration;

use myelin_integration_tests::{
    Cluster, Topology,
    load::{Load, Plan},
};

/// What a process that was replaced ends with.
const REPLACED: i32 = 75;

/// Breaks something in the middle of a load, and judges what all members saw.
async fn survives(topology: Topology, fault: impl AsyncFnOnce(&mut Cluster)) {
    let mut cluster = Cluster::start(topology).await;
    let plan = Plan::default();
    let load = Load::prepare(&cluster.everywhere(), plan).await;
    let history = load.run(async || fault(&mut cluster).await).await;
    assert_eq!(history.acknowledged(), plan.rooms * plan.senders * plan.messages);
    history.assert_holds();
}

#[tokio::test]
async fn nothing_happens() {
    survives(Topology::default(), async |_| {}).await;
}

#[tokio::test]
async fn a_writer_of_rooms_is_killed() {
    survives(Topology::default(), async |cluster| {
        let writer = cluster.daemon_mut("events1");
        writer.kill().await;
        writer.start_again().await;
    })
    .await;
}

#[tokio::test]
async fn a_writer_of_rooms_is_killed_and_stays_away() {
    survives(Topology::default(), async |cluster| cluster.daemon_mut("events2").kill().await).await;
}

#[tokio::test]
async fn a_worker_is_killed() {
    survives(Topology::default(), async |cluster| {
        let worker = cluster.daemon_mut("worker1");
        worker.kill().await;
        worker.start_again().await;
    })
    .await;
}

#[tokio::test]
async fn main_is_killed() {
    survives(Topology::default(), async |cluster| {
        let main = cluster.daemon_mut("main");
        main.kill().await;
        main.start_again().await;
    })
    .await;
}

#[tokio::test]
async fn a_writer_of_rooms_sleeps_while_it_is_replaced() {
    survives(Topology::default(), async |cluster| {
        let writer = cluster.daemon_mut("events1");
        writer.pause().await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        writer.resume().await;
        let status = writer.ended().await;
        assert_eq!(status.code(), Some(REPLACED), "{status}");
        writer.start_again().await;
    })
    .await;
}

#[tokio::test]
async fn redis_is_gone_for_half_a_minute_and_comes_back_empty() {
    survives(Topology::default(), async |cluster| {
        cluster.redis().kill();
        tokio::time::sleep(Duration::from_secs(30)).await;
        cluster.redis().start_again();
    })
    .await;
}

#[tokio::test]
async fn every_process_is_restarted_one_after_the_other() {
    survives(Topology::default(), async |cluster| {
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
async fn a_writer_of_rooms_is_added_and_another_removed() {
    survives(Topology::default(), async |cluster| {
        cluster.add_event_writer("events3").await;
        cluster.remove_event_writer("events1").await;
    })
    .await;
}
