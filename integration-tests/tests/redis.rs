//! A homeserver on Redis.

use std::{path::Path, time::Duration};

use myelin_integration_tests::{Options, Server};
use myelin_testing::TestRedis;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn on(redis: &TestRedis) -> Server {
    let settings = json!({ "enabled": true, "path": redis.socket() });
    Server::start(Options::default().set("redis", settings)).await
}

/// The first notice of the stream `events` with these words in it, as a stranger on the same Redis sees it.
async fn notice_of(words: &str, socket: &Path) -> Value {
    let mut lines = BufReader::new(UnixStream::connect(socket).await.expect("Redis is up"));
    lines.get_mut().write_all(b"SUBSCRIBE myelin:myelin.test:stream:events\r\n").await.expect("Redis is up");
    loop {
        let mut line = String::new();
        let bytes = lines.read_line(&mut line).await.expect("Redis is up");
        assert_ne!(bytes, 0, "Redis closed the connection");
        // The first notices may be of what was committed earlier.
        if line.starts_with('{') && line.contains(words) {
            return serde_json::from_str(&line).expect("notices are JSON");
        }
    }
}

#[tokio::test]
async fn what_is_committed_is_told_to_others() {
    let redis = TestRedis::start();
    let server = on(&redis).await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({})).await;
    // Before the connection stands, nothing is published.
    let say_it_again = async {
        loop {
            alice.send_text(&room_id, "for everyone").await;
        }
    };
    let socket = redis.socket();
    let notice = async {
        tokio::select! {
            notice = notice_of("for everyone", &socket) => notice,
            () = say_it_again => unreachable!("it is said again and again"),
        }
    };
    let notice = timeout(PATIENCE, notice).await.expect("a notice comes in time");
    let rows = notice["notice"]["rows"].as_array().expect("a notice has rows");
    assert!(rows.iter().any(|row| row.to_string().contains("for everyone")), "{notice}");
}

#[tokio::test]
async fn the_server_goes_on_while_redis_is_gone() {
    let mut redis = TestRedis::start();
    let server = on(&redis).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room_id).await;
    redis.kill();
    let said = alice.send_text(&room_id, "still here").await;
    bob.sync_until(|sync| sync.has(&said)).await;
    redis.start_again();
    let said = alice.send_text(&room_id, "and now").await;
    bob.sync_until(|sync| sync.has(&said)).await;
}
