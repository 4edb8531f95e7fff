//! Client libraries that people use talk to each other through the server.

use myelin_integration_tests::{
    Server,
    real_clients::{
        Library::{MatrixJsSdk, MatrixNio},
        RealClient,
    },
};
use serde_json::json;

/// An encrypted room of Alice (matrix-js-sdk, with cross-signing and key backup) and Bob (matrix-nio), in which both
/// have said something that the other has read.
struct Conversation {
    server: Server,
    alice: RealClient,
    room_id: String,
    recovery_key: String,
}

impl Conversation {
    async fn new() -> Self {
        let server = Server::start_default().await;
        let mut alice = RealClient::register(MatrixJsSdk, &server, "alice").await;
        let mut bob = RealClient::register(MatrixNio, &server, "bob").await;
        let recovery = alice.call("set_up_recovery", json!({})).await;
        let recovery_key = recovery["recovery_key"].as_str().expect("a recovery key").to_owned();

        let room = alice.call("create_encrypted_room", json!({ "invite": [bob.user_id] })).await;
        let room_id = room["room_id"].as_str().expect("a room ID").to_owned();
        bob.call("join", json!({ "room_id": room_id })).await;
        alice.call("await_member", json!({ "room_id": room_id, "user_id": bob.user_id })).await;

        for (body, from_alice) in [("Can you read this?", true), ("I can.", false)] {
            let message = json!({ "room_id": room_id, "body": body });
            let (sender, reader) = if from_alice { (&mut alice, &mut bob) } else { (&mut bob, &mut alice) };
            sender.call("send", message.clone()).await;
            let read = reader.call("await_message", message).await;
            assert_eq!(read, json!({ "sender": sender.user_id, "encrypted": true }));
        }

        Self { server, alice, room_id, recovery_key }
    }

    /// A new device of Alice's reads all that was said before it was there.
    async fn is_read_by(&mut self, device: &mut RealClient) {
        device.call("fetch_history", json!({ "room_id": self.room_id })).await;
        for body in ["Can you read this?", "I can."] {
            device.call("await_message", json!({ "room_id": self.room_id, "body": body })).await;
        }
    }

    /// Both of Alice's devices see that the new one belongs to her.
    async fn trusts(&mut self, device: &mut RealClient) {
        let parameters = json!({ "user_id": device.user_id, "device_id": device.device_id });
        device.call("await_verified", parameters.clone()).await;
        self.alice.call("await_verified", parameters).await;
    }
}

#[tokio::test]
async fn a_third_device_is_verified_by_emoji_and_reads_history_from_the_key_backup() {
    let mut conversation = Conversation::new().await;
    // One key for each sender.
    conversation.alice.call("await_backup", json!({ "keys": 2 })).await;
    let mut laptop = RealClient::log_in(MatrixJsSdk, &conversation.server, "alice").await;

    let (asking, asked) = tokio::join!(
        laptop.call("request_verification", json!({})),
        conversation.alice.call("accept_verification", json!({})),
    );
    assert_eq!(asking["emoji"], asked["emoji"]);
    tokio::join!(
        laptop.call("confirm_emoji", json!({})),
        conversation.alice.call("confirm_emoji", json!({})),
    );

    conversation.trusts(&mut laptop).await;
    let restored = laptop.call("await_backup_key", json!({})).await;
    assert_eq!(restored["imported"], 2);
    conversation.is_read_by(&mut laptop).await;
}

#[tokio::test]
async fn a_recovery_key_verifies_a_third_device_and_opens_the_key_backup_while_the_others_are_gone() {
    let mut conversation = Conversation::new().await;
    conversation.alice.call("await_backup", json!({ "keys": 2 })).await;
    let mut laptop = RealClient::log_in(MatrixJsSdk, &conversation.server, "alice").await;

    let restored = laptop.call("recover", json!({ "recovery_key": conversation.recovery_key })).await;

    assert_eq!(restored["imported"], 2);
    conversation.trusts(&mut laptop).await;
    conversation.is_read_by(&mut laptop).await;
}
