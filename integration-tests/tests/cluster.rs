//! One homeserver of many processes.

use myelin_integration_tests::{Cluster, Topology};
use serde_json::json;

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
