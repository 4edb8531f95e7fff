//! Cables are pulled: what is sent disappears, and nobody is told. And a clock is wrong.

use std::{path::Path, time::Duration};

use myelin_integration_tests::{Cluster, Topology, wire::Wire};
use myelin_testing::{TestDatabase, TestRedis};
use serde_json::json;

use crate::{Case, REPLACED, section};

const AWAY: Duration = Duration::from_secs(20);

fn case(name: &'static str) -> Case {
    Case::new("network", name)
}

async fn pull(wire: &Wire) {
    wire.go_silent();
    tokio::time::sleep(AWAY).await;
    wire.heal();
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn a_writer_of_rooms_does_not_reach_postgresql() {
    let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
    let (database, redis) = (TestDatabase::empty().await, TestRedis::start());
    let socket = format!(".s.PGSQL.{}", database.server().port());
    let to = Path::new(&database.server().host()).join(&socket);
    let wire = Wire::unix(&folder.path().join(&socket), to).await;
    let own = json!({ "database": section(&database, &folder.path().display().to_string()) });
    let topology = Topology { own_options: [("events1".to_owned(), own)].into(), ..Topology::full() };
    let cluster = Cluster::start_in(database, redis.socket(), topology).await;
    case("a writer of rooms does not reach PostgreSQL for 20 s")
        .behind_nginx()
        // It is known to be dead after four seconds, and knows that itself.
        .waiting_at_most(Duration::from_secs(12))
        .survives(cluster, async |cluster| {
            pull(&wire).await;
            let writer = cluster.daemon_mut("events1");
            let status = writer.ended().await;
            assert_eq!(status.code(), Some(REPLACED), "{status}");
            writer.start_again().await;
        })
        .await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn a_writer_of_rooms_is_not_reached_by_the_others() {
    let (database, redis) = (TestDatabase::empty().await, TestRedis::start());
    let wire = Wire::tcp().await;
    let topology = Topology { reached_at: [("events1".to_owned(), wire.port())].into(), ..Topology::full() };
    let cluster = Cluster::start_led(database, redis.socket(), topology, |name, port| {
        if name == "events1" {
            wire.lead_to(port);
        }
    });
    case("a writer of rooms is not reached by other processes for 20 s")
        .survives(cluster.await, async |_| pull(&wire).await)
        .await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn a_worker_does_not_reach_a_writer_of_rooms() {
    let (database, redis) = (TestDatabase::empty().await, TestRedis::start());
    let wire = Wire::tcp().await;
    let reaches_at = [("worker1".to_owned(), ("events1".to_owned(), wire.port()))].into();
    let topology = Topology { reaches_at, ..Topology::full() };
    let cluster = Cluster::start_led(database, redis.socket(), topology, |name, port| {
        if name == "events1" {
            wire.lead_to(port);
        }
    });
    case("one worker does not reach one writer of rooms for 20 s; all others do")
        // It asks through another process after a second.
        .waiting_at_most(Duration::from_secs(5))
        .survives(cluster.await, async |_| {
            pull(&wire).await;
            assert!(wire.carried() > 0, "nothing went that way");
        })
        .await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn a_worker_does_not_hear_redis() {
    let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
    let (database, redis) = (TestDatabase::empty().await, TestRedis::start());
    let socket = folder.path().join("redis.sock");
    let wire = Wire::unix(&socket, redis.socket()).await;
    let own = json!({ "redis": { "enabled": true, "path": socket } });
    let topology = Topology { own_options: [("worker1".to_owned(), own)].into(), ..Topology::full() };
    let cluster = Cluster::start_in(database, redis.socket(), topology).await;
    case("a generic worker does not hear Redis for 20 s")
        .survives(cluster, async |_| pull(&wire).await)
        .await;
}

/// Where Debian's package `libfaketime` has its library.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn a_writer_and_a_worker_have_wrong_clocks() {
    let Some(library) = FAKETIME.into_iter().find(|path| Path::new(path).exists()) else {
        #[expect(clippy::print_stderr, reason = "who runs this must know that nothing was tried")]
        {
            eprintln!("skipped: libfaketime is not installed");
        }
        return;
    };
    let off_by = |offset: &str| {
        let pairs = [
            ("LD_PRELOAD", library),
            ("FAKETIME", offset),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.into())).to_vec()
    };
    let environment = [("events1".to_owned(), off_by("+10m")), ("worker1".to_owned(), off_by("-10m"))].into();
    let cluster = Cluster::start(Topology { environment, ..Topology::full() }).await;
    case("the clock of a writer of rooms is 10 min ahead, that of a worker 10 min behind")
        .survives(cluster, async |cluster| {
            let writer = cluster.daemon_mut("events2");
            writer.kill().await;
            writer.start_again().await;
        })
        .await;
}
