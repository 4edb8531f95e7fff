use serde_json::{Value as JsonValue, json};

use crate::testing::{PASSWORD, TestApp, check};

const UPLOAD: &str = "/_matrix/client/v3/keys/upload";

async fn device_of(app: &TestApp, token: &str) -> String {
    let (_, body) = app.get("/_matrix/client/v3/account/whoami", Some(token)).await;
    body["device_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_one_time_key_is_claimed_once_and_then_the_fallback_key() {
    let app = TestApp::new().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let device = device_of(&app, &bob).await;
    let keys = json!({
        "one_time_keys": { "signed_curve25519:A": { "key": "one" } },
        "fallback_keys": { "signed_curve25519:F": { "key": "last", "fallback": true } },
    });
    let counts = (200, json!({ "one_time_key_counts": { "signed_curve25519": 1 } }));
    assert_eq!(app.post(UPLOAD, Some(&bob), keys).await, counts);
    let wanted = json!({ "one_time_keys": { "@bob:example.org": { device.clone(): "signed_curve25519" } } });
    for expected in ["signed_curve25519:A", "signed_curve25519:F", "signed_curve25519:F"] {
        let (status, body) = app.post("/_matrix/client/v3/keys/claim", Some(&alice), wanted.clone()).await;
        let found = &body["one_time_keys"]["@bob:example.org"][&device];
        assert_eq!((status, found.get(expected).is_some()), (200, true), "{expected}: {body}");
    }
    let other = json!({ "one_time_keys": { "@x:else.org": { "D": "signed_curve25519" } } });
    let (_, body) = app.post("/_matrix/client/v3/keys/claim", Some(&alice), other).await;
    assert_eq!(body["failures"]["else.org"]["errcode"], "M_UNKNOWN");
}

#[tokio::test]
async fn keys_are_found_by_whoever_asks_and_must_be_ones_own() {
    let app = TestApp::new().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let device = device_of(&app, &bob).await;
    let keys = |user: &str| {
        json!({ "device_keys": {
            "user_id": user, "device_id": device, "algorithms": [], "signatures": {},
            "keys": { format!("ed25519:{device}"): "k" },
        } })
    };
    check(app.post(UPLOAD, Some(&bob), keys("@alice:example.org")).await, 400, "M_INVALID_PARAM");
    check(app.post(UPLOAD, Some(&bob), keys("@bob:example.org")).await, 200, "");
    let wanted = json!({ "device_keys": { "@bob:example.org": [], "@nobody:example.org": [] } });
    let (status, body) = app.post("/_matrix/client/v3/keys/query", Some(&alice), wanted).await;
    assert_eq!(status, 200);
    let found = &body["device_keys"]["@bob:example.org"][&device];
    assert_eq!(found["keys"][format!("ed25519:{device}")], "k", "{body}");
    check(
        app.post("/_matrix/client/v3/keys/query", Some(&alice), json!({ "device_keys": [] })).await,
        400,
        "M_BAD_JSON",
    );
    check(app.post(UPLOAD, None, json!({})).await, 401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn guests_have_keys_too_but_no_cross_signing() {
    let app = TestApp::new().await;
    let log_in = myelin_accounts::LogIn::default();
    let token = app.app.accounts.register_guest(log_in).await.unwrap().access_token;
    for (path, body) in [
        ("upload", json!({})),
        ("query", json!({ "device_keys": {} })),
        ("claim", json!({ "one_time_keys": {} })),
    ] {
        let path = format!("/_matrix/client/v3/keys/{path}");
        check(app.post(&path, Some(&token), body).await, 200, "");
    }
    for path in ["device_signing", "signatures"] {
        let path = format!("/_matrix/client/v3/keys/{path}/upload");
        check(app.post(&path, Some(&token), json!({})).await, 403, "M_GUEST_ACCESS_FORBIDDEN");
    }
}

#[tokio::test]
async fn only_other_cross_signing_keys_than_before_need_the_password() {
    let app = TestApp::new().await;
    let alice = app.user("alice").await;
    let path = "/_matrix/client/v3/keys/device_signing/upload";
    let upload = |public: &str| {
        json!({ "master_key": {
            "user_id": "@alice:example.org", "usage": ["master"],
            "keys": { format!("ed25519:{public}"): public },
        } })
    };
    let (first, second) = (
        upload("HFbPtaSxK5fsZ6tqWuVyNNFBNaTRhmg8i8nqOAsAxnI"),
        upload("nqOAsAxnIHFbPtaSxK5fsZ6tqWuVyNNFBNaTRhmg8i8"),
    );
    for _ in 0..2 {
        check(app.post(path, Some(&alice), first.clone()).await, 200, "");
    }
    let (status, body) = app.post(path, Some(&alice), second.clone()).await;
    assert_eq!((status, &body["flows"]), (401, &json!([{ "stages": ["m.login.password"] }])));
    let identifier = json!({ "type": "m.id.user", "user": "alice" });
    let mut confirmed = second.clone();
    confirmed["auth"] = json!({
        "type": "m.login.password", "identifier": identifier, "password": PASSWORD,
        "session": body["session"],
    });
    check(app.post(path, Some(&alice), confirmed).await, 200, "");
    let wanted = json!({ "device_keys": { "@alice:example.org": [] } });
    let (_, body) = app.post("/_matrix/client/v3/keys/query", Some(&alice), wanted).await;
    assert_eq!(body["master_keys"]["@alice:example.org"]["keys"], second["master_key"]["keys"]);
}

#[tokio::test]
async fn a_signing_key_without_a_master_key_is_refused() {
    let app = TestApp::new().await;
    let alice = app.user("alice").await;
    let path = "/_matrix/client/v3/keys/device_signing/upload";
    let public = "HFbPtaSxK5fsZ6tqWuVyNNFBNaTRhmg8i8nqOAsAxnI";
    let key = json!({
        "user_id": "@alice:example.org", "usage": ["self_signing"],
        "keys": { format!("ed25519:{public}"): public },
    });
    let upload = json!({ "self_signing_key": key });
    check(app.post(path, Some(&alice), upload).await, 400, "M_MISSING_PARAM");
    let signed = json!({ "@bob:example.org": { "NONE": { "user_id": "@bob:example.org" } } });
    let (status, body) = app.post("/_matrix/client/v3/keys/signatures/upload", Some(&alice), signed).await;
    assert_eq!(
        (status, &body["failures"]["@bob:example.org"]["NONE"]["errcode"]),
        (200, &json!("M_NOT_FOUND"))
    );
}

const SYNC: &str = "/_matrix/client/v3/sync";

/// Has both join a room that the first makes.
async fn share_a_room(app: &TestApp, one: &str, other: &str) {
    let request = json!({ "preset": "public_chat" });
    let (_, body) = app.post("/_matrix/client/v3/createRoom", Some(one), request).await;
    let path = format!("/_matrix/client/v3/join/{}", body["room_id"].as_str().unwrap());
    check(app.post(&path, Some(other), json!({})).await, 200, "");
}

async fn sync(app: &TestApp, token: &str, since: Option<&str>) -> (JsonValue, String) {
    let path = since.map_or(SYNC.to_owned(), |since| format!("{SYNC}?since={since}"));
    let (status, body) = app.get(&path, Some(token)).await;
    assert_eq!(status, 200, "{body}");
    let next = body["next_batch"].as_str().unwrap().to_owned();
    (body, next)
}

async fn upload_identity(app: &TestApp, token: &str, user_id: &str) {
    let device = device_of(app, token).await;
    let keys = json!({ "device_keys": {
        "user_id": user_id, "device_id": device, "algorithms": [], "signatures": {},
        "keys": { format!("ed25519:{device}"): "k" },
    } });
    check(app.post(UPLOAD, Some(token), keys).await, 200, "");
}

#[tokio::test]
async fn who_shares_a_room_learns_of_a_device_when_it_comes_and_when_it_goes() {
    let app = TestApp::new().await;
    let (alice, bob, eve) = (app.user("alice").await, app.user("bob").await, app.user("eve").await);
    share_a_room(&app, &alice, &bob).await;
    let (_, mut since) = sync(&app, &alice, None).await;
    let start = since.clone();
    let (_, eves) = sync(&app, &eve, None).await;
    let wanted = json!({ "device_keys": { "@bob:example.org": [] } });
    let found = async || {
        let (_, body) = app.post("/_matrix/client/v3/keys/query", Some(&alice), wanted.clone()).await;
        body["device_keys"]["@bob:example.org"].as_object().unwrap().len()
    };
    assert_eq!(found().await, 0);
    let told = json!({ "changed": ["@bob:example.org"], "left": [] });
    for devices in [1, 0] {
        match devices {
            1 => upload_identity(&app, &bob, "@bob:example.org").await,
            _ => check(app.post("/_matrix/client/v3/logout", Some(&bob), json!({})).await, 200, ""),
        }
        let (answer, next) = sync(&app, &alice, Some(&since)).await;
        assert_eq!(answer["device_lists"], told);
        let (answer, next) = sync(&app, &alice, Some(&next)).await;
        assert_eq!(answer["device_lists"]["changed"].as_array().map(Vec::len).unwrap_or_default(), 0);
        assert_eq!(found().await, devices);
        since = next;
    }
    let changes = |from: &str, to: &str| format!("/_matrix/client/v3/keys/changes?from={from}&to={to}");
    assert_eq!(app.get(&changes(&start, &since), Some(&alice)).await, (200, told));
    let (_, eves_next) = sync(&app, &eve, Some(&eves)).await;
    let nothing = json!({ "changed": [], "left": [] });
    assert_eq!(app.get(&changes(&eves, &eves_next), Some(&eve)).await, (200, nothing));
    check(app.get(&changes("x", &since), Some(&alice)).await, 400, "M_INVALID_PARAM");
    let half = "/_matrix/client/v3/keys/changes?from=x";
    check(app.get(half, Some(&alice)).await, 400, "M_MISSING_PARAM");
}

#[tokio::test]
async fn a_device_sees_in_each_sync_how_many_keys_it_has_left() {
    let app = TestApp::new().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let device = device_of(&app, &bob).await;
    let keys = json!({
        "one_time_keys": { "signed_curve25519:A": { "key": "one" } },
        "fallback_keys": { "signed_curve25519:F": { "key": "last", "fallback": true } },
    });
    check(app.post(UPLOAD, Some(&bob), keys).await, 200, "");
    let wanted = json!({ "one_time_keys": { "@bob:example.org": { device: "signed_curve25519" } } });
    let (_, mut since) = sync(&app, &bob, None).await;
    for (count, unused) in [(1, true), (0, true), (0, false)] {
        let (answer, next) = sync(&app, &bob, Some(&since)).await;
        assert_eq!(answer["device_one_time_keys_count"]["signed_curve25519"], count);
        let expected = if unused { json!(["signed_curve25519"]) } else { json!([]) };
        assert_eq!(answer["device_unused_fallback_key_types"], expected);
        check(app.post("/_matrix/client/v3/keys/claim", Some(&alice), wanted.clone()).await, 200, "");
        since = next;
    }
}

#[tokio::test]
async fn a_message_to_a_device_is_there_until_the_device_comes_back_with_the_token() {
    let app = TestApp::new().await;
    let (alice, bob) = (app.user("alice").await, app.user("bob").await);
    let (_, start) = sync(&app, &bob, None).await;
    let messages = json!({ "messages": { "@bob:example.org": { "*": { "n": 1 } } } });
    let path = "/_matrix/client/v3/sendToDevice/m.test/1";
    check(app.put(path, Some(&alice), messages).await, 200, "");
    let count = |answer: &JsonValue| answer["to_device"]["events"].as_array().map_or(0, Vec::len);
    let (first, next) = sync(&app, &bob, Some(&start)).await;
    let (again, _) = sync(&app, &bob, Some(&start)).await;
    assert_eq!((count(&first), count(&again)), (1, 1), "the first answer may have been lost");
    let (after, _) = sync(&app, &bob, Some(&next)).await;
    assert_eq!(count(&after), 0);
    // It was confirmed, and is deleted together with what others confirm.
    let client = app.app.database.get().await.unwrap();
    while client.query_one("SELECT count(*) FROM to_device_messages", &[]).await.unwrap().get::<_, i64>(0) > 0
    {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
