//! The reverse proxies that `myelin-ctl proxy-config` configures.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
    time::Duration,
};

use myelin_integration_tests::{
    Cluster, PATIENCE, Topology, User,
    haproxy::{Haproxy, Share},
    nginx::Nginx,
    path_segment,
    proxy::proxy_config,
};
use myelin_routing::{Api, Operation, ServedBy, operations};
use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

/// The processes that a row of the table asks for, in this cluster: streams that no worker was given are main's.
fn wanted(operation: &Operation) -> &'static [&'static str] {
    match operation.served_by {
        ServedBy::EventsWriter => &["events1", "events2"],
        ServedBy::GenericWorker => &["worker1", "worker2"],
        ServedBy::MediaRepo => &["media1"],
        ServedBy::UserDir => &["users1"],
        ServedBy::Main
        | ServedBy::TypingWriter
        | ServedBy::ToDeviceWriter
        | ServedBy::ReceiptsWriter
        | ServedBy::PresenceWriter
        | ServedBy::AccountDataWriter
        | ServedBy::PushRulesWriter
        | ServedBy::DeviceListsWriter => &["main"],
    }
}

fn path_of(operation: &Operation) -> String {
    let segments = operation.path.split('/').map(|segment| match segment {
        "{roomId}" => "!room:myelin.test",
        segment if segment.starts_with('{') => "x",
        segment => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_operation_reaches_the_process_that_serves_it_best() {
    let cluster = Cluster::start(Topology { others: true, ..Topology::default() }).await;
    let nginx = Nginx::start(cluster.folder());
    for operation in operations() {
        // Nobody is logged in: what is answered does not matter, but who answers.
        let answer = nginx.api().request(operation.method.clone(), &path_of(operation), Some("{}")).await;
        assert!(answer.status < 500, "{}: {}", operation.name, answer.status);
    }
    let names: BTreeMap<String, &str> = cluster
        .daemons()
        .iter()
        .map(|daemon| (daemon.api().base().replace("http://", ""), daemon.name()))
        .collect();
    let log = loop {
        // It is written a moment after the answer.
        let log = nginx.log();
        if log.len() >= operations().len() {
            break log;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    for (operation, [method, path, upstream, _]) in operations().iter().zip(&log) {
        assert_eq!((method.as_str(), path), (operation.method.as_str(), &path_of(operation)));
        let name =
            names.get(upstream).copied().unwrap_or_else(|| panic!("{path}: nobody is at {upstream:?}"));
        let is_wanted = wanted(operation).contains(&name);
        assert!(is_wanted, "{} ({:?}) was answered by {name}", operation.name, operation.api == Api::Client);
    }
}

#[tokio::test]
async fn users_and_rooms_stay_at_their_processes() {
    let cluster = Cluster::start(Topology { workers: 3, ..Topology::default() }).await;
    let nginx = Nginx::start(cluster.folder());
    let upstreams = |wanted: &str| {
        let mut found: Vec<String> = nginx
            .log()
            .into_iter()
            .filter(|[_, path, ..]| path.contains(wanted))
            .map(|[_, _, at, _]| at)
            .collect();
        found.sort();
        found.dedup();
        found
    };
    let users = ["alice", "bob", "carol", "dora", "emil", "frida"];
    for user in users {
        let user = User::register(nginx.api(), user).await;
        let room_id = user.create_room(json!({})).await;
        let first = user.try_sync(None, 0).await.expect("an answer").ok();
        let mut since = first["next_batch"].as_str().expect("a token").to_owned();
        for _ in 0..4 {
            user.send_text(&room_id, "hello").await;
            let sync = user.try_sync(Some(&since), 0).await.expect("an answer").ok();
            since = sync["next_batch"].as_str().expect("a token").to_owned();
        }
        let room = room_id.replace('!', "%21").replace(':', "%3A");
        assert_eq!(upstreams(&format!("/rooms/{room}/send/")).len(), 1, "a room has one process");
    }
    // The first sync of each has its own worker; the others are spread over the other two.
    let initial: Vec<String> = nginx
        .log()
        .into_iter()
        .filter(|[_, path, ..]| path.contains("/sync") && !path.contains("since="))
        .map(|[_, _, at, _]| at)
        .collect();
    assert_eq!(initial.len(), users.len());
    let of_worker3 = cluster.api("worker3").base().replace("http://", "");
    assert!(initial.iter().all(|at| *at == of_worker3), "{initial:?}");
}

#[tokio::test]
async fn what_changes_a_room_reaches_its_writer() {
    let cluster = Cluster::start(Topology::default()).await;
    let nginx = Nginx::start(cluster.folder());
    let alice = User::register(nginx.api(), "alice").await;
    let database = cluster.database().connect().await.expect("the database is up");
    let stored = async |event_id: &str| {
        let sql = "
            SELECT i.instance_name FROM events e JOIN instances i USING (writer_id) WHERE e.event_id = $1";
        let row = database.query_one(sql, &[&event_id]).await.expect("the event is stored");
        row.get::<_, String>(0)
    };
    let sent_to = async |path: &str| loop {
        // It is written a moment after the answer.
        if let Some([_, _, upstream, _]) = nginx.log().into_iter().find(|[_, sent, ..]| sent == path) {
            return upstream;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let mut writers = BTreeSet::new();
    for _ in 0..12 {
        let room_id = alice.create_room(json!({})).await;
        // Some clients encode the room's id, some don't.
        for id in [path_segment(&room_id), room_id] {
            let reached = async {
                for round in 0.. {
                    let path = format!("/_matrix/client/v3/rooms/{id}/send/a.b/{id}{round}");
                    let event_id = alice.put(&path, json!({})).await["event_id"].clone();
                    let writer = stored(event_id.as_str().expect("an event has an id")).await;
                    // Right after the start the one may still have what will be the other's.
                    if sent_to(&path).await == cluster.api(&writer).base().replace("http://", "") {
                        writers.insert(writer);
                        break;
                    }
                }
            };
            timeout(PATIENCE, reached).await.expect("requests for a room go to its writer");
        }
    }
    assert_eq!(writers.len(), 2, "twelve rooms are not all one writer's");
}

#[tokio::test]
async fn haproxy_takes_its_configuration() {
    let cluster = Cluster::start(Topology { others: true, ..Topology::default() }).await;
    let path = cluster.folder().join("haproxy.cfg");
    fs::write(&path, proxy_config("haproxy", cluster.folder(), 8008)).expect("the folder can be written to");
    let output = Command::new("haproxy").args(["-c", "-f"]).arg(&path).output();
    let output = output.expect("haproxy can be run: `make prepare` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn haproxy_carries_a_conversation_and_sends_what_changes_a_room_to_its_writer() {
    let cluster = Cluster::start(Topology::default()).await;
    let haproxy = Haproxy::start(cluster.folder());
    let alice = User::register(haproxy.api(), "alice").await.log_in_again().await;
    let bob = User::register(haproxy.api(), "bob").await;
    let database = cluster.database().connect().await.expect("the database is up");
    for _ in 0..4 {
        let room_id = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room_id).await;
        let room = format!("/_matrix/client/v3/rooms/{}", path_segment(&room_id));
        alice.put(&format!("{room}/state/m.room.name/"), json!({ "name": "By HAProxy" })).await;
        let said = alice.send_text(&room_id, "hello").await;
        bob.sync_until(|sync| sync.has(&said)).await;
        assert_eq!(bob.get(&format!("{room}/state/m.room.name/")).await["name"], "By HAProxy");

        let sql = "
            SELECT i.instance_name FROM events e JOIN instances i USING (writer_id) WHERE e.event_id = $1";
        let reaches_its_writer = async {
            // Right after the start the one may still have what will be the other's.
            for round in 0.. {
                let before = to_writers(&haproxy.shares());
                let path = format!("{room}/send/a.b/{round}");
                let event_id = alice.put(&path, json!({})).await["event_id"].clone();
                let event_id = event_id.as_str().expect("an event has an id");
                let row = database.query_one(sql, &[&event_id]).await.expect("the event is stored");
                let writer = cluster.api(row.get::<_, &str>(0)).base().replace("http://", "");
                let mut after = to_writers(&haproxy.shares());
                after.retain(|address, requests| before.get(address) != Some(requests));
                if after.keys().eq([&writer]) {
                    break;
                }
            }
        };
        timeout(PATIENCE, reaches_its_writer).await.expect("requests for a room go to its writer");
    }
    let first = bob.try_sync(None, 0).await.expect("an answer").ok();
    bob.try_sync(first["next_batch"].as_str(), 0).await.expect("an answer").ok();
    let shares = haproxy.shares();
    let of = |backend: &str| shares.iter().filter(|share| share.backend == backend).count();
    assert!(of("sync") > 0 && of("initial_sync") > 0, "each kind of sync has its own backend: {shares:?}");
}

/// How many of the requests that change a room each process got.
fn to_writers(shares: &[Share]) -> BTreeMap<String, u64> {
    let send = shares.iter().filter(|share| share.backend == "send_by_room_on_writer_events");
    send.map(|share| (share.address.clone(), share.requests)).collect()
}

#[tokio::test]
async fn a_request_reaches_another_process_when_the_best_one_is_away() {
    let mut cluster = Cluster::start(Topology { others: true, ..Topology::default() }).await;
    let nginx = Nginx::start(cluster.folder());
    for name in ["worker1", "main", "media1", "users1"] {
        cluster.daemon_mut(name).stop().await;
    }
    for operation in operations() {
        let answer = nginx.api().request(operation.method.clone(), &path_of(operation), Some("{}")).await;
        assert!(answer.status < 500, "{}: {}", operation.name, answer.status);
    }
    let answer = nginx.api().request(Method::GET, "/_matrix/client/versions", None).await;
    assert_eq!(answer.status, 200);
}
