//! One homeserver of many processes.

use std::time::Duration;

use myelin_integration_tests::{Cluster, PATIENCE, Sync, Topology, User, path_segment};
use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

#[tokio::test]
async fn users_on_different_processes_talk_to_each_other() {
    let cluster = Cluster::start(Topology::default()).await;
    let alice = cluster.register("worker1", "alice").await;
    let bob = cluster.register("worker2", "bob").await;
    let room_id = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room_id).await;
    let said = alice.send_text(&room_id, "hello").await;
    bob.sync_until(|sync| sync.has(&said)).await;
    let answered = bob.send_text(&room_id, "hello yourself").await;
    alice.sync_until(|sync| sync.has(&answered)).await;
}

#[tokio::test]
async fn processes_may_speak_tls_to_each_other() {
    let mut cluster = Cluster::start(Topology { tls: true, workers: 1, ..Topology::default() }).await;
    let alice = cluster.register("worker1", "alice").await;
    // Some of these rooms are written by each of the two writers, so requests are passed on to both.
    for room_id in rooms_of(&alice).await {
        let said = alice.send_text(&room_id, "hello").await;
        alice.sync_until(|sync| sync.has(&said)).await;
    }
    let said = cluster.control(&["status", "--json"]).await;
    assert!(said.success, "{}", said.stderr);
    let reports: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    assert!(reports[0]["pid"].is_number(), "main tells of itself over TLS: {reports}");

    let text =
        std::fs::read_to_string(cluster.folder().join("homeserver.yaml")).expect("the file was written");
    let shared: serde_json::Value = serde_json::from_str(&text).expect("it was written as JSON");
    let port = &shared["instance_map"]["events1"]["port"];
    let clear = reqwest::get(format!("http://127.0.0.1:{port}/health/live")).await;
    assert!(clear.is_err(), "nothing is answered in the clear: {clear:?}");
}

/// Room ids enough for each writer to have some.
async fn rooms_of(user: &User) -> Vec<String> {
    let mut rooms = Vec::new();
    for _ in 0..8 {
        rooms.push(user.create_room(json!({ "preset": "public_chat" })).await);
    }
    rooms
}

#[tokio::test]
async fn a_profile_change_reaches_rooms_that_other_processes_write() {
    let cluster = Cluster::start(Topology::default()).await;
    let alice = cluster.register("events1", "alice").await;
    let rooms = rooms_of(&alice).await;
    alice
        .put(&format!("/_matrix/client/v3/profile/{}/displayname", alice.id), json!({ "displayname": "Al" }))
        .await;
    let elsewhere = alice.at(cluster.api("worker2"));
    for room_id in rooms {
        let path = format!("/_matrix/client/v3/rooms/{}/joined_members", path_segment(&room_id));
        let shown = async {
            while elsewhere.get(&path).await["joined"][&alice.id]["display_name"] != "Al" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, shown).await.expect("the room shows the new name");
    }
}

#[tokio::test]
async fn postgresql_tells_whose_its_connections_are() {
    let cluster = Cluster::start(Topology { workers: 1, event_writers: 0, ..Topology::default() }).await;
    let database = cluster.database().connect().await.expect("the database is up");
    let sql = "
        SELECT DISTINCT application_name FROM pg_stat_activity
         WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
         ORDER BY 1";
    let rows = database.query(sql, &[]).await.expect("everybody may read this");
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, ["myelin main", "myelin worker1"]);
}

/// Everything that a user can write, written at one process and read at another at once.
#[tokio::test]
async fn what_was_answered_is_seen_at_once_on_every_other_process() {
    let cluster = Cluster::start(Topology::default()).await;
    let alice = cluster.register("worker1", "alice").await;
    let bob = cluster.register("worker2", "bob").await;
    let names = ["main", "events1", "events2", "worker1", "worker2"];
    let pairs = names.iter().flat_map(|writer| names.iter().map(move |reader| (writer, reader)));
    for (round, (writer, reader)) in pairs.enumerate() {
        let between = Between {
            here: alice.at(cluster.api(writer)),
            there: alice.at(cluster.api(reader)),
            bob: bob.clone(),
            names: [writer, reader],
            round,
        };
        let room_id = between.rooms().await;
        between.own_things(&room_id).await;
        between.sessions().await;
        between.what_fades(&room_id).await;
    }
}

/// Alice at the process where she writes and at the one where she reads.
struct Between<'a> {
    here: User,
    there: User,
    /// At another one, often enough.
    bob: User,
    names: [&'a str; 2],
    round: usize,
}

impl Between<'_> {
    fn seen(&self, what: &str, is_seen: bool) {
        let [writer, reader] = self.names;
        assert!(is_seen, "{what}, written at {writer} and read at {reader}");
    }

    /// Rooms: their state, timelines, memberships, aliases, directory. Gives one that Alice and Bob are in.
    async fn rooms(&self) -> String {
        let (Self { here, there, bob, .. }, round) = (self, self.round);
        let room_id = here.create_room(json!({ "preset": "public_chat", "name": "before" })).await;
        let room = format!("/_matrix/client/v3/rooms/{}", path_segment(&room_id));
        self.seen("a new room", there.get(&format!("{room}/state/m.room.name/")).await["name"] == "before");
        here.put(&format!("{room}/state/m.room.name/"), json!({ "name": "after" })).await;
        self.seen("state", there.get(&format!("{room}/state/m.room.name/")).await["name"] == "after");
        bob.at(here.api()).join(&room_id).await;
        self.seen(
            "a join",
            there.get(&format!("{room}/joined_members")).await["joined"][&bob.id].is_object(),
        );
        let start = there.try_sync(None, 0).await.expect("an answer").ok()["next_batch"].clone();
        let said = here.send_text(&room_id, "hello").await;
        let sync = Sync(there.try_sync(start.as_str(), 0).await.expect("an answer").ok());
        self.seen("a message in /sync", sync.has(&said));
        let messages = there.try_messages(&room_id, None).await.expect("an answer").ok();
        self.seen("a message in /messages", messages["chunk"][0]["event_id"] == said.as_str());
        let event = format!("{room}/event/{}", path_segment(&said));
        self.seen("an event", there.get(&event).await["content"]["body"] == "hello");
        here.put(&format!("{room}/redact/{}/r{round}", path_segment(&said)), json!({})).await;
        self.seen("a redaction", there.get(&event).await["content"]["body"].is_null());
        let alias =
            format!("/_matrix/client/v3/directory/room/{}", path_segment(&format!("#a{round}:myelin.test")));
        here.put(&alias, json!({ "room_id": room_id })).await;
        self.seen("an alias", there.get(&alias).await["room_id"] == room_id.as_str());
        room_id
    }

    /// What is the user's own.
    async fn own_things(&self, room_id: &str) {
        let (Self { here, there, .. }, round) = (self, self.round);
        let user = path_segment(&here.id);
        let data = format!("/_matrix/client/v3/user/{user}/account_data/test.data");
        here.put(&data, json!({ "round": round })).await;
        self.seen("account data", there.get(&data).await["round"] == round);
        let tags = format!("/_matrix/client/v3/user/{user}/rooms/{}/tags", path_segment(room_id));
        here.put(&format!("{tags}/u.mine"), json!({ "order": 0.5 })).await;
        self.seen("a tag", there.get(&tags).await["tags"]["u.mine"]["order"] == 0.5);
        let filter = here
            .post(
                &format!("/_matrix/client/v3/user/{user}/filter"),
                json!({ "room": { "rooms": [room_id] } }),
            )
            .await;
        let filter = filter["filter_id"].as_str().expect("a filter has an id").to_owned();
        let filter = there.get(&format!("/_matrix/client/v3/user/{user}/filter/{filter}")).await;
        self.seen("a filter", filter["room"]["rooms"][0] == room_id);
        let rule = format!("/_matrix/client/v3/pushrules/global/content/r{round}");
        here.put(&rule, json!({ "pattern": "myelin", "actions": ["notify"] })).await;
        self.seen("a push rule", there.get(&rule).await["pattern"] == "myelin");
        let name = format!("/_matrix/client/v3/profile/{user}/displayname");
        here.put(&name, json!({ "displayname": format!("Al {round}") })).await;
        self.seen("a profile", there.get(&name).await["displayname"] == format!("Al {round}"));
        let presence = format!("/_matrix/client/v3/presence/{user}/status");
        here.put(&presence, json!({ "presence": "unavailable", "status_msg": format!("{round}") })).await;
        self.seen("presence", there.get(&presence).await["status_msg"] == format!("{round}"));
    }

    /// Sessions, keys, messages between devices.
    async fn sessions(&self) {
        let (Self { here, there, .. }, round) = (self, self.round);
        let device = here.log_in_again().await;
        self.seen(
            "a new session",
            device.at(there.api()).get("/_matrix/client/v3/account/whoami").await["user_id"]
                == here.id.as_str(),
        );
        let renamed = format!("/_matrix/client/v3/devices/{}", path_segment(&device.device_id));
        here.put(&renamed, json!({ "display_name": format!("d{round}") })).await;
        self.seen("a device's name", there.get(&renamed).await["display_name"] == format!("d{round}"));
        let keys = json!({ "one_time_keys": { format!("curve25519:A{round}"): "key" } });
        here.post("/_matrix/client/v3/keys/upload", keys).await;
        let counts = there.try_sync(None, 0).await.expect("an answer").ok();
        let count = counts["device_one_time_keys_count"]["curve25519"].as_u64().unwrap_or_default();
        self.seen("one-time keys", count == u64::try_from(round).expect("few rounds") + 1);
        let wanted = json!({ "device_keys": { (here.id.as_str()): [] } });
        let query = async || there.post("/_matrix/client/v3/keys/query", wanted.clone()).await;
        let id = device.device_id.as_str();
        let before = query().await["device_keys"][&*here.id][id].clone();
        let identity = json!({
            "user_id": here.id, "device_id": id, "algorithms": ["m.megolm.v1.aes-sha2"],
            "keys": { format!("ed25519:{id}"): "key" }, "signatures": {},
        });
        device.post("/_matrix/client/v3/keys/upload", json!({ "device_keys": identity })).await;
        let after = query().await["device_keys"][&*here.id][id]["device_id"].clone();
        self.seen("a device's keys", before.is_null() && after == id);
        let since = counts["next_batch"].clone();
        let to_device = format!("/_matrix/client/v3/sendToDevice/test.type/t{round}");
        let content =
            json!({ "messages": { (here.id.as_str()): { (here.device_id.as_str()): { "round": round } } } });
        here.put(&to_device, content).await;
        let sync = there.try_sync(since.as_str(), 0).await.expect("an answer").ok();
        self.seen("a message to a device", sync["to_device"]["events"][0]["content"]["round"] == round);
        device.post("/_matrix/client/v3/logout", json!({})).await;
        let whoami =
            device.at(there.api()).request(Method::GET, "/_matrix/client/v3/account/whoami", None).await;
        self.seen("the end of a session", whoami.status == 401);
    }

    /// Receipts and typing, as /sync tells them; and leaving.
    async fn what_fades(&self, room_id: &str) {
        let Self { here, there, bob, .. } = self;
        let (room, user) =
            (format!("/_matrix/client/v3/rooms/{}", path_segment(room_id)), path_segment(&here.id));
        let said = bob.send_text(room_id, "read me").await;
        let since = there.try_sync(None, 0).await.expect("an answer").ok()["next_batch"].clone();
        here.post(&format!("{room}/receipt/m.read/{}", path_segment(&said)), json!({})).await;
        let sync = there.try_sync(since.as_str(), 0).await.expect("an answer").ok();
        let receipt = &sync["rooms"]["join"][room_id]["ephemeral"]["events"][0];
        self.seen("a receipt", receipt["content"][&said]["m.read"][&here.id].is_object());
        here.put(&format!("{room}/typing/{user}"), json!({ "typing": true, "timeout": 30_000 })).await;
        let mut since = sync["next_batch"].clone();
        let typing = async {
            loop {
                let sync = there.try_sync(since.as_str(), 1_000).await.expect("an answer").ok();
                let events = sync["rooms"]["join"][room_id]["ephemeral"]["events"].clone();
                let events = events.as_array().cloned().unwrap_or_default();
                if events.iter().any(|event| {
                    event["type"] == "m.typing" && event["content"]["user_ids"][0] == here.id.as_str()
                }) {
                    return;
                }
                since = sync["next_batch"].clone();
            }
        };
        timeout(PATIENCE, typing).await.expect("typing is told");
        here.leave(room_id).await;
        let left = there.get("/_matrix/client/v3/joined_rooms").await;
        self.seen(
            "leaving",
            !left["joined_rooms"].as_array().is_some_and(|rooms| rooms.contains(&json!(room_id))),
        );
    }
}
