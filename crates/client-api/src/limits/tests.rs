use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::testing::{TestApp, check};

#[test]
fn a_customer_is_one_address() {
    let check = |one: &str, other: &str, same: bool| {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().expect("an address"));
        assert_eq!(address(one) == address(other), same, "{one} {other}");
    };
    check("192.0.2.1", "192.0.2.1", true);
    check("192.0.2.1", "192.0.2.2", false);
    check("192.0.2.1", "::ffff:192.0.2.1", true);
    check("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true);
    check("2001:db8:0:1::1", "2001:db8:0:2::1", false);
}

/// A user, and what they ask for; `{a}` and `{b}` stand for Alice's public rooms, `{d}` for Dora's.
type Ask<'a> = (&'a str, Method, &'a str, Value);

/// Checks that of the requests the last one is one too many where one is allowed, and none of them where all are.
async fn check_limit(set: fn(&mut RateLimits, ConfiguredLimit), asks: &[Ask<'_>]) {
    for allowed in [1, 100] {
        let app = TestApp::with(|settings| {
            set(&mut settings.rate_limits, ConfiguredLimit { per_second: 0.001, burst_count: allowed });
        });
        let app = app.await;
        let mut tokens = std::collections::HashMap::new();
        for user in ["alice", "bob", "carol", "dora"] {
            tokens.insert(user, app.user(user).await);
        }
        let rooms = [app.public_room("alice").await, app.public_room("alice").await];
        let doras = app.public_room("dora").await;
        for (index, (user, method, path, body)) in asks.iter().enumerate() {
            let mut path = format!("/_matrix/client/v3/{path}");
            for (name, room_id) in [("{a}", &rooms[0]), ("{b}", &rooms[1]), ("{d}", &doras)] {
                path = path.replace(name, room_id.as_str());
            }
            let answer = app.call(method.clone(), &path, tokens.get(user).map(String::as_str), body.clone());
            let is_too_much = allowed == 1 && index + 1 == asks.len();
            let (status, errcode) = if is_too_much { (429, "M_LIMIT_EXCEEDED") } else { (200, "") };
            check(answer.await, status, errcode);
        }
    }
}

#[tokio::test]
async fn what_users_write_to_rooms_is_limited() {
    let send: Ask<'_> = ("alice", Method::PUT, "rooms/{a}/send/m.room.message/1", json!({ "body": "one" }));
    let again = [
        ("alice", Method::PUT, "rooms/{b}/send/m.room.message/2", json!({ "body": "two" })),
        ("alice", Method::PUT, "rooms/{b}/state/m.room.topic/", json!({ "topic": "two" })),
    ];
    for again in again {
        check_limit(|limits, limit| limits.rc_message = limit, &[send.clone(), again]).await;
    }
    // One user's messages are nothing to another.
    let doras = ("dora", Method::PUT, "rooms/{d}/send/m.room.message/1", json!({ "body": "one" }));
    let own = ("dora", Method::PUT, "rooms/{d}/send/m.room.message/2", json!({ "body": "two" }));
    check_limit(|limits, limit| limits.rc_message = limit, &[send, doras, own]).await;
}

#[tokio::test]
async fn rooms_that_users_make_are_limited() {
    let create = ("alice", Method::POST, "createRoom", json!({}));
    let upgrade = ("alice", Method::POST, "rooms/{a}/upgrade", json!({ "new_version": "11" }));
    for again in [create.clone(), upgrade] {
        check_limit(|limits, limit| limits.rc_room_creation = limit, &[create.clone(), again]).await;
    }
}

#[tokio::test]
async fn joins_are_limited_by_user_and_by_room() {
    let join = |user, path| (user, Method::POST, path, json!({}));
    let by_user = |limits: &mut RateLimits, limit| limits.rc_joins.local = limit;
    check_limit(by_user, &[join("bob", "rooms/{a}/join"), join("bob", "rooms/{b}/join")]).await;
    check_limit(by_user, &[join("bob", "join/{a}"), join("carol", "join/{a}"), join("bob", "join/{b}")])
        .await;
    let by_room = |limits: &mut RateLimits, limit| limits.rc_joins_per_room = limit;
    let both = [join("bob", "join/{a}"), join("bob", "join/{b}"), join("carol", "join/{a}")];
    check_limit(by_room, &both).await;
}

#[tokio::test]
async fn invites_are_limited_by_who_invites_whom_and_whereto() {
    let invite = |user, path, target: &str| {
        (user, Method::POST, path, json!({ "user_id": format!("@{target}:example.org") }))
    };
    let by_issuer = |limits: &mut RateLimits, limit| limits.rc_invites.per_issuer = limit;
    let asks = [
        invite("alice", "rooms/{a}/invite", "bob"),
        invite("dora", "rooms/{d}/invite", "bob"),
        invite("alice", "rooms/{b}/invite", "carol"),
    ];
    check_limit(by_issuer, &asks).await;
    let by_user = |limits: &mut RateLimits, limit| limits.rc_invites.per_user = limit;
    let asks = [
        invite("alice", "rooms/{a}/invite", "bob"),
        invite("alice", "rooms/{b}/invite", "carol"),
        invite("dora", "rooms/{d}/invite", "bob"),
    ];
    check_limit(by_user, &asks).await;
    let by_room = |limits: &mut RateLimits, limit| limits.rc_invites.per_room = limit;
    let asks = [
        invite("alice", "rooms/{a}/invite", "bob"),
        invite("alice", "rooms/{b}/invite", "bob"),
        invite("alice", "rooms/{a}/invite", "carol"),
    ];
    check_limit(by_room, &asks).await;
}

#[tokio::test]
async fn changes_of_presence_are_limited() {
    let set = |presence| {
        ("alice", Method::PUT, "presence/@alice:example.org/status", json!({ "presence": presence }))
    };
    let by_user = |limits: &mut RateLimits, limit| limits.rc_presence.per_user = limit;
    check_limit(by_user, &[set("unavailable"), set("online")]).await;
}
