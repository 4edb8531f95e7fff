//! What daemons refuse to start with, and that neighbors on one Redis don't meet.

use std::{
    path::Path,
    process::{Output, Stdio},
};

use myelin_integration_tests::{Cluster, PATIENCE, Topology, path_segment, program};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

/// The exit codes of the daemons.
const NAME_TAKEN: i32 = 69;
const WRONG_CONFIGURATION: i32 = 78;

/// Runs a daemon that is expected to end by itself.
async fn run(daemon: &str, shared: &Path, worker: Option<&Path>) -> (Option<i32>, String) {
    let mut command = Command::new(program(daemon).expect("it was built"));
    command.arg("--config-path").arg(shared).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(worker) = worker {
        command.arg("--config-path").arg(worker);
    }
    let output: Output = timeout(PATIENCE, command.output()).await.expect("it ends").expect("it can be run");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn daemons_refuse_what_is_not_for_them() {
    let cluster = Cluster::start(Topology { workers: 1, event_writers: 1, ..Topology::default() }).await;
    let folder = cluster.folder();
    let (shared, worker) = (folder.join("homeserver.yaml"), folder.join("workers/worker1.yaml"));
    let write = |name: &str, content: &Value| {
        let path = folder.join(name);
        std::fs::write(&path, content.to_string()).expect("the folder can be written to");
        path
    };
    let read = |path: &Path| -> Value {
        serde_json::from_str(&std::fs::read_to_string(path).expect("it is there"))
            .expect("it was written as JSON")
    };
    let check = async |daemon: &str, shared: &Path, worker: Option<&Path>, code: i32, words: &str| {
        let (status, said) = run(daemon, shared, worker).await;
        assert_eq!(status, Some(code), "{daemon}: {said}");
        assert!(said.contains(words), "{daemon} says nothing of {words:?}: {said}");
    };

    // A file of another role, or of none.
    check(
        "myelin-pusher",
        &shared,
        Some(&worker),
        WRONG_CONFIGURATION,
        "worker_app: synapse.app.generic_worker is for myelin-generic-worker, not for myelin-pusher",
    )
    .await;
    check("myelin-main", &shared, Some(&worker), WRONG_CONFIGURATION, "is for myelin-generic-worker").await;
    check("myelin-generic-worker", &shared, None, WRONG_CONFIGURATION, "no worker_app").await;

    // A second process of the same name, with ports of its own.
    let mut twin = read(&worker);
    twin["worker_listeners"] = json!([]);
    twin["worker_pid_file"] = Value::Null;
    let twin = write("twin.yaml", &twin);
    let taken = "another process named \"worker1\" is running on this database";
    check("myelin-generic-worker", &shared, Some(&twin), NAME_TAKEN, taken).await;

    // A writer that nobody could reach.
    let mut unknown = read(&shared);
    unknown["stream_writers"]["events"] = json!(["events1", "events9"]);
    let unknown = write("unknown.yaml", &unknown);
    check("myelin-main", &unknown, None, WRONG_CONFIGURATION, "`events9`, which is not in `instance_map`")
        .await;

    // A listener for the others that strangers can reach, without a secret.
    let mut open = read(&shared);
    open["listeners"][1]["bind_addresses"] = json!(["0.0.0.0"]);
    open["worker_replication_secret"] = Value::Null;
    let open = write("open.yaml", &open);
    check("myelin-main", &open, None, WRONG_CONFIGURATION, "to other machines without a secret").await;

    // Workers without Redis.
    let mut alone = read(&shared);
    alone["redis"] = json!({ "enabled": false });
    alone["stream_writers"] = json!({});
    let alone = write("alone.yaml", &alone);
    check("myelin-generic-worker", &alone, Some(&worker), WRONG_CONFIGURATION, "redis.enabled").await;
}

#[tokio::test]
async fn replication_listeners_answer_only_to_the_secret() {
    let cluster = Cluster::start(Topology { workers: 1, event_writers: 1, ..Topology::default() }).await;
    let text = std::fs::read_to_string(cluster.folder().join("homeserver.yaml")).expect("it is there");
    let shared: Value = serde_json::from_str(&text).expect("it was written as JSON");
    let port = &shared["instance_map"]["events1"]["port"];
    let api = myelin_integration_tests::Api::new(format!("http://127.0.0.1:{port}"));
    for (method, path) in [
        (Method::GET, "/_myelin/status"),
        (Method::POST, "/_myelin/replication/update_profile"),
        (Method::GET, "/_myelin/forward/_matrix/client/versions"),
    ] {
        for token in [None, Some("wrong")] {
            let answer = api.try_request(method.clone(), path, token, None).await.expect("an answer");
            assert_eq!((answer.status, &answer.body["errcode"]), (403, &json!("M_FORBIDDEN")), "{path}");
        }
    }
    let secret = shared["worker_replication_secret"].as_str();
    let answer = api.try_request(Method::GET, "/_myelin/status", secret, None).await.expect("an answer");
    assert_eq!((answer.status, &answer.body["process"]), (200, &json!("events1")));
    // Clients' own listeners know nothing of it.
    let answer = cluster.api("events1").try_request(Method::GET, "/_myelin/status", secret, None).await;
    assert_eq!(answer.expect("an answer").status, 404);
}

#[tokio::test]
async fn two_homeservers_on_one_redis_do_not_meet() {
    let one = Cluster::start(Topology { workers: 1, event_writers: 0, ..Topology::default() }).await;
    let other = Topology { workers: 1, event_writers: 0, ..Topology::default() };
    let options = other.options.clone().set("server_name", json!("neighbor.test"));
    let two = Cluster::start_on(one.redis_socket(), Topology { options, ..other }).await;
    let (alice, bob) = (one.register("worker1", "alice").await, two.register("worker1", "bob").await);
    assert_eq!((alice.id.as_str(), bob.id.as_str()), ("@alice:myelin.test", "@bob:neighbor.test"));
    for (cluster, user) in [(&one, &alice), (&two, &bob)] {
        let room_id = user.create_room(json!({})).await;
        let elsewhere = user.at(cluster.api("main"));
        let since = elsewhere.try_sync(None, 0).await.expect("an answer").ok()["next_batch"].clone();
        // The numbers of rooms are the same on both: what is typed here must not be seen there.
        let typing =
            format!("/_matrix/client/v3/rooms/{}/typing/{}", path_segment(&room_id), path_segment(&user.id));
        user.put(&typing, json!({ "typing": true, "timeout": 30_000 })).await;
        let said = user.send_text(&room_id, "hello").await;
        let mut since = since.as_str().expect("a token").to_owned();
        let (mut has_said, mut typed) = (false, false);
        let seen = async {
            while !(has_said && typed) {
                let sync = elsewhere.try_sync(Some(&since), 1_000).await.expect("an answer").ok();
                let text = sync.to_string();
                has_said |= text.contains(&said);
                typed |= sync["rooms"]["join"][&room_id]["ephemeral"].to_string().contains(&user.id);
                for stranger in [&alice, &bob].into_iter().filter(|other| other.id != user.id) {
                    assert!(!text.contains(&stranger.id), "{text}");
                }
                since = sync["next_batch"].as_str().expect("a token").to_owned();
            }
        };
        timeout(PATIENCE, seen).await.expect("one's own are heard");
    }
}
