//! `myelin-ctl` on the processes of a cluster.

use std::time::{Duration, Instant};

use myelin_integration_tests::{
    Cluster, Topology,
    load::{Load, Plan},
    nginx::Nginx,
    program,
};
use serde_json::Value;
use tokio::time::sleep;

fn all() -> Topology {
    Topology { others: true, ..Topology::default() }
}

/// What `status` tells once each process has its share: a process is ready before the others have handed it theirs.
async fn once_shared_out(cluster: &mut Cluster) -> Vec<Value> {
    let latest = Instant::now() + Duration::from_secs(20);
    loop {
        let said = cluster.control(&["status", "--json"]).await;
        assert!(said.success, "{}", said.stderr);
        let reports: Vec<Value> = serde_json::from_str(&said.stdout).expect("it is an array in JSON");
        let holds = |name: &str, duty: &str| report_of(&reports, name)["leases"][duty].as_u64() > Some(0);
        let of_writers = ["events1", "events2"].map(|writer| holds(writer, "events"));
        let rooms: u64 = reports.iter().filter_map(|report| report["leases"]["events"].as_u64()).sum();
        if of_writers == [true; 2] && rooms == 128 && holds("pusher1", "pusher") {
            return reports;
        }
        assert!(Instant::now() < latest, "the duties are not shared out: {reports:#?}");
        sleep(Duration::from_millis(200)).await;
    }
}

fn report_of<'a>(reports: &'a [Value], name: &str) -> &'a Value {
    reports.iter().find(|report| report["process"] == name).expect("each process is there")
}

#[tokio::test]
async fn a_rolling_restart_fails_no_request() {
    let mut cluster = Cluster::start(all()).await;
    let nginx = Nginx::start(cluster.folder());
    let plan = Plan { messages: 40, pause: Duration::from_millis(500), ..Plan::default() };
    let load = Load::prepare(nginx.api(), plan).await;
    let history = load.run(async || {
        let said = cluster.control(&["restart"]).await;
        assert!(said.success, "{}\n{}", said.stdout, said.stderr);
        assert_eq!(said.stdout.matches("is ready").count(), cluster.daemons().len(), "{}", said.stdout);
    });
    let history = history.await;
    assert_eq!(history.acknowledged(), plan.total());
    history.assert_holds();
    history.assert_no_request_failed();
}

#[tokio::test]
async fn status_tells_what_each_process_has() {
    let mut cluster = Cluster::start(all()).await;
    let reports = once_shared_out(&mut cluster).await;
    assert_eq!(reports.len(), cluster.daemons().len());
    let of = |name: &str| report_of(&reports, name);
    for daemon in cluster.daemons() {
        let report = of(daemon.name());
        assert_eq!((&report["ready"], &report["state"]), (&true.into(), &"ready".into()), "{report}");
        assert_eq!(report["pid"].as_u64(), daemon.process_id().map(u64::from), "{report}");
    }
    assert_eq!(of("pusher1")["role"], "pusher");
    assert_eq!(of("worker1")["streams"]["events"]["lag"], 0);

    cluster.daemon_mut("worker2").kill().await;
    let said = cluster.control(&["status"]).await;
    assert!(!said.success);
    assert!(said.stderr.contains("1 of 10 processes are not ready"), "{}", said.stderr);
    let line = said.stdout.lines().find(|line| line.starts_with("worker2 ")).expect("the table has it");
    assert!(line.contains("stopped"), "{line}");
    let said = cluster.control(&["start"]).await;
    assert!(said.success, "{}", said.stderr);
    assert_eq!(said.stdout.matches("runs already").count(), cluster.daemons().len() - 1, "{}", said.stdout);
    let said = cluster.control(&["stop"]).await;
    assert!(said.success, "{}", said.stderr);
    assert_eq!(said.stdout.matches("stopped").count(), cluster.daemons().len(), "{}", said.stdout);
}

#[tokio::test]
async fn files_that_contradict_each_other_are_found() {
    let cluster = Cluster::start(Topology { workers: 1, event_writers: 1, ..Topology::default() }).await;
    let folder = cluster.folder().to_owned();
    let check = async || {
        let program = program("myelin-ctl").expect("it was built");
        let mut control = tokio::process::Command::new(program);
        control
            .args(["config", "check", "--workers"])
            .arg(folder.join("workers"))
            .arg(folder.join("homeserver.yaml"));
        let output = control.output().await.expect("it can be run");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (success, said) = check().await;
    assert!(success, "{said}");
    let path = folder.join("workers/worker1.yaml");
    let text = std::fs::read_to_string(&path).expect("the file is there");
    std::fs::write(folder.join("workers/worker1-copy.yaml"), text).expect("the folder can be written to");
    let (success, said) = check().await;
    assert!(!success);
    assert!(said.contains("worker_name: `worker1` is also the name of"), "{said}");
    assert!(said.contains("is taken by `worker1`"), "{said}");
}
