//! Redis goes away, comes back empty, sleeps, or is a bad messenger.

use std::{path::PathBuf, time::Duration};

use myelin_integration_tests::{
    Cluster, Options, Topology,
    wire::{MangledNotices, Mangling},
};
use myelin_testing::{TestDatabase, TestRedis, TestSentinel};
use serde_json::json;

use crate::{Case, full};

const HALF_A_MINUTE: Duration = Duration::from_secs(30);

fn case(name: &'static str) -> Case {
    Case::new("redis", name)
}

#[tokio::test]
async fn redis_is_gone_for_half_a_minute_and_comes_back_empty() {
    case("killed for 30 s, and restarted empty")
        .survives(Cluster::start(Topology::default()).await, async |cluster| {
            cluster.redis().kill();
            tokio::time::sleep(HALF_A_MINUTE).await;
            cluster.redis().start_again();
        })
        .await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn redis_sleeps_for_half_a_minute() {
    case("SIGSTOP for 30 s")
        .survives(full().await, async |cluster| {
            cluster.redis().signal("STOP");
            tokio::time::sleep(HALF_A_MINUTE).await;
            cluster.redis().signal("CONT");
        })
        .await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn another_redis_takes_over_at_another_address() {
    let mut redis = TestSentinel::start();
    let settings = json!({
        "enabled": true,
        "password": TestSentinel::PASSWORD,
        "sentinels": [{ "host": "127.0.0.1", "port": redis.port() }],
        "sentinel_master": TestSentinel::MASTER,
    });
    let topology = Topology { options: Options::default().set("redis", settings), ..Topology::full() };
    let nowhere = PathBuf::new();
    let cluster = Cluster::start_in(TestDatabase::empty().await, nowhere, topology).await;
    case("killed; a Sentinel has its replica take over at another address")
        .behind_nginx()
        .survives(cluster, async |_| {
            redis.kill_master();
            tokio::time::sleep(Duration::from_secs(10)).await;
        })
        .await;
}

/// A bad messenger between the processes and Redis, all of the time.
async fn mangled(name: &'static str, mangling: Mangling) {
    let redis = TestRedis::start();
    let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
    let socket = folder.path().join("mangled.sock");
    let notices = MangledNotices::start(&socket, redis.socket(), mangling).await;
    let cluster = Cluster::start_in(TestDatabase::empty().await, socket, Topology::full()).await;
    case(name).survives(cluster, async |_| {}).await;
    assert!(notices.mangled() > 0, "no notice was mangled");
}

#[tokio::test]
async fn notices_are_lost_repeated_late_and_out_of_order() {
    let mangling = Mangling { lost: 10, twice: 10, late: 10, swapped: 10 };
    mangled("of all notices 10 % each are lost, repeated, late and swapped", mangling).await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn half_of_all_notices_are_lost() {
    mangled("half of all notices are lost", Mangling { lost: 50, ..Mangling::default() }).await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn half_of_all_notices_are_late() {
    mangled("half of all notices are late by up to 3 s", Mangling { late: 50, ..Mangling::default() }).await;
}
