//! Client libraries that people use talk to each other through the server.

use myelin_integration_tests::{
    Api, Cluster, Server, Topology,
    nginx::Nginx,
    real_clients::{
        Library::{MatrixJsSdk, MatrixNio},
        RealClient,
    },
};
use serde_json::json;

/// An encrypted room of Alice (matrix-js-sdk, with cross-signing and key backup) and Bob (matrix-nio), in which both
/// have said something that the other has read.
struct Conversation {
    alice: RealClient,
    bob: RealClient,
    room_id: String,
    recovery_key: String,
}

impl Conversation {
    async fn new(api: &Api, bob: &str) -> Self {
        let mut alice = RealClient::register(MatrixJsSdk, api, "alice").await;
        let mut bob = RealClient::register(MatrixNio, api, bob).await;
        let recovery = alice.call("set_up_recovery", json!({})).await;
        let recovery_key = recovery["recovery_key"].as_str().expect("a recovery key").to_owned();

        let room = alice.call("create_encrypted_room", json!({ "invite": [bob.user_id] })).await;
        let room_id = room["room_id"].as_str().expect("a room ID").to_owned();
        bob.call("join", json!({ "room_id": room_id })).await;
        alice.call("await_member", json!({ "room_id": room_id, "user_id": bob.user_id })).await;

        let mut conversation = Self { alice, bob, room_id, recovery_key };
        conversation.say("Can you read this?", "I can.").await;
        conversation
    }

    /// Alice says something and Bob answers; each reads the other, encrypted.
    async fn say(&mut self, question: &str, answer: &str) {
        let Self { alice, bob, room_id, .. } = self;
        for (body, from_alice) in [(question, true), (answer, false)] {
            let message = json!({ "room_id": room_id, "body": body });
            let (sender, reader) =
                if from_alice { (&mut *alice, &mut *bob) } else { (&mut *bob, &mut *alice) };
            sender.call("send", message.clone()).await;
            let read = reader.call("await_message", message).await;
            assert_eq!(read, json!({ "sender": sender.user_id, "encrypted": true }));
        }
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
    let server = Server::start_default().await;
    let mut conversation = Conversation::new(server.api(), "bob").await;
    // One key for each sender.
    conversation.alice.call("await_backup", json!({ "keys": 2 })).await;
    let mut laptop = RealClient::log_in(MatrixJsSdk, server.api(), "alice").await;

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
    let server = Server::start_default().await;
    let mut conversation = Conversation::new(server.api(), "bob").await;
    conversation.alice.call("await_backup", json!({ "keys": 2 })).await;
    let mut laptop = RealClient::log_in(MatrixJsSdk, server.api(), "alice").await;

    let restored = laptop.call("recover", json!({ "recovery_key": conversation.recovery_key })).await;

    assert_eq!(restored["imported"], 2);
    conversation.trusts(&mut laptop).await;
    conversation.is_read_by(&mut laptop).await;
}

/// The process to which nginx sends what this user asks, by a token that only looks like one of the user's.
async fn process_of(nginx: &Nginx, username: &str) -> String {
    let token = format!("syt_{}_of_nobody", base64_url(username));
    let path = format!("/_matrix/client/v3/sync?since={username}");
    let answer = nginx.api().try_request(reqwest::Method::GET, &path, Some(&token), None).await;
    assert_eq!(answer.expect("an answer").status, 401);
    loop {
        // It is written a moment after the answer.
        if let Some([_, _, process, _]) = nginx.log().into_iter().find(|[_, asked, ..]| *asked == path) {
            return process;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Unpadded, URL-safe base64.
fn base64_url(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |chunk: &[u8]| {
        let bits =
            chunk.iter().chain([0; 2].iter()).take(3).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let all = [18, 12, 6, 0]
            .map(|shift| char::from(DIGITS[usize::try_from(bits >> shift & 63).expect("six bits")]));
        all.into_iter().take(chunk.len() + 1).collect::<String>()
    };
    text.as_bytes().chunks(3).map(digits).collect()
}

#[tokio::test]
async fn they_talk_through_different_workers_while_every_process_is_restarted() {
    let mut cluster = Cluster::start(Topology { others: true, ..Topology::default() }).await;
    let nginx = Nginx::start(cluster.folder());
    let of_alice = process_of(&nginx, "alice").await;
    let mut bob = String::from("bob");
    // Where a name goes depends on the processes' ports: the first that goes elsewhere will do.
    for number in 0..40 {
        if process_of(&nginx, &bob).await != of_alice {
            break;
        }
        bob = format!("bob{number}");
    }
    assert_ne!(process_of(&nginx, &bob).await, of_alice, "forty names go to one worker");
    let mut conversation = Conversation::new(nginx.api(), &bob).await;

    let restarted = std::cell::Cell::new(false);
    let restart = async {
        let said = cluster.control(&["restart"]).await;
        restarted.set(true);
        said
    };
    let talk = async {
        let mut rounds = 0;
        while !restarted.get() || rounds < 5 {
            conversation.say(&format!("question {rounds}"), &format!("answer {rounds}")).await;
            rounds += 1;
        }
    };
    let (said, ()) = tokio::join!(restart, talk);
    assert!(said.success, "{}\n{}", said.stdout, said.stderr);
    let refused: Vec<_> = nginx.log().into_iter().filter(|[.., status]| status.starts_with('5')).collect();
    assert!(refused.is_empty(), "{refused:?}");
}
