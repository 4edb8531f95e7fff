//! Processes come and go as an operator wants it, and are replaced by newer ones.

use std::{env, fs, path::PathBuf, time::Duration};

use myelin_integration_tests::{Cluster, Topology, load::Plan};

use crate::{Case, full};

/// A folder with the daemons of a former build.
const PREVIOUS: &str = "MYELIN_PREVIOUS_BIN_DIR";

fn case(name: &'static str) -> Case {
    Case::new("fleet", name)
}

#[tokio::test]
async fn a_writer_of_rooms_is_added_and_another_removed() {
    let plan = Plan { extras_every: 2, ..Plan::default() };
    case("a writer of rooms is added, another removed")
        .saying(plan)
        .survives(Cluster::start(Topology::default()).await, async |cluster| {
            cluster.add_event_writer("events3").await;
            cluster.remove_event_writer("events1").await;
        })
        .await;
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn a_sender_and_a_pusher_are_added_and_others_removed() {
    case("a federation sender and a pusher are added, others removed")
        .behind_nginx()
        .failing_no_request()
        .survives(full().await, async |cluster| {
            cluster.add_other("synapse.app.federation_sender", "federation3").await;
            cluster.add_other("synapse.app.pusher", "pusher2").await;
            for name in ["federation1", "pusher1"] {
                let status = cluster.daemon_mut(name).stop().await;
                assert!(status.success(), "{name}: {status}");
            }
        })
        .await;
}

/// Has `myelin-ctl` restart all processes, one after the other.
async fn restart(cluster: &mut Cluster) {
    let said = cluster.control(&["restart"]).await;
    assert!(said.success, "{}\n{}", said.stdout, said.stderr);
    assert_eq!(said.stdout.matches("is ready").count(), cluster.daemons().len(), "{}", said.stdout);
}

#[tokio::test]
#[ignore = "takes long; make chaos runs it"]
async fn all_processes_are_restarted_by_the_control_program() {
    case("`myelin-ctl restart` of the whole fleet")
        .behind_nginx()
        .failing_no_request()
        .survives(full().await, restart)
        .await;
}

#[tokio::test]
#[ignore = "needs a former build; make chaos makes one"]
async fn all_processes_are_replaced_by_a_newer_build() {
    let previous = env::var_os(PREVIOUS).map(PathBuf::from).and_then(|path| path.canonicalize().ok());
    let Some(previous) = previous else {
        #[expect(clippy::print_stderr, reason = "who runs this must know that nothing was tried")]
        {
            eprintln!("skipped: {PREVIOUS} names no folder with the daemons of a former build");
        }
        return;
    };
    let topology = Topology { programs: Some(previous.clone()), ..Topology::full() };
    let plan = Plan { pause: Duration::from_millis(500), ..Plan::steady() };
    case("`myelin-ctl restart` from a former build to this one")
        .saying(plan)
        .behind_nginx()
        .failing_no_request()
        .survives(Cluster::start(topology).await, async |cluster| {
            let is_former = |program: &PathBuf| program.starts_with(&previous);
            assert!(programs(cluster).iter().all(is_former));
            restart(cluster).await;
            assert!(!programs(cluster).iter().any(is_former), "{:?}", programs(cluster));
        })
        .await;
}

/// The programs that the processes of a cluster run, by their pid files.
fn programs(cluster: &Cluster) -> Vec<PathBuf> {
    let program = |name: &str| {
        let file = cluster.folder().join(format!("{name}.pid"));
        let process = fs::read_to_string(file).expect("each process writes its number");
        fs::read_link(format!("/proc/{}/exe", process.trim())).expect("the process runs")
    };
    cluster.daemons().iter().map(|daemon| program(daemon.name())).collect()
}
