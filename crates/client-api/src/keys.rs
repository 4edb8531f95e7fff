//! Keys of devices and users
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption)).

use std::collections::BTreeMap;

use myelin_devices::{KeyError, KeysUpload, SignatureFailure, SigningKeysUpload, WantedKeys};
use myelin_http::{ApiError, RequestHead, Routes};
use ruma::{
    OwnedUserId, UInt,
    api::client::keys::{
        claim_keys, get_keys, upload_keys,
        upload_signatures::{self, v3::Failure},
        upload_signing_keys,
    },
};
use serde_json::json;

use crate::{
    App, GuestOrUser, LocalUser, LoggedInCaller as _,
    error::api,
    ui_auth::{Recent, require_confirmation},
};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(upload);
    routes.add(query);
    routes.add(claim);
    routes.add(upload_signing);
    routes.add(upload_signed);
}

async fn upload(
    app: App,
    user: GuestOrUser,
    request: upload_keys::v3::Request,
) -> Result<upload_keys::v3::Response, ApiError> {
    let device_id = user.require_device()?;
    let upload = KeysUpload {
        device_keys: request.device_keys,
        one_time_keys: request.one_time_keys,
        fallback_keys: request.fallback_keys,
    };
    let counts = app.devices.upload_keys(&user.user_id, device_id, upload).await.map_err(api)?;
    let counts = counts.one_time.iter();
    let counts = counts.map(|(algorithm, count)| (algorithm.as_str().into(), UInt::new_saturating(*count)));
    Ok(upload_keys::v3::Response::new(counts.collect()))
}

async fn query(
    app: App,
    user: GuestOrUser,
    request: get_keys::v3::Request,
) -> Result<get_keys::v3::Response, ApiError> {
    let (local, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        request.device_keys.into_iter().partition(|(user_id, _)| app.accounts.is_local(user_id));
    let keys = app.devices.query_keys(Some(&user.user_id), &local).await.map_err(api)?;
    let mut response = get_keys::v3::Response::new();
    response.failures = unreachable_servers(others.keys());
    response.device_keys = keys.device_keys;
    response.master_keys = keys.master_keys;
    response.self_signing_keys = keys.self_signing_keys;
    response.user_signing_keys = keys.user_signing_keys;
    Ok(response)
}

async fn claim(
    app: App,
    _: GuestOrUser,
    request: claim_keys::v3::Request,
) -> Result<claim_keys::v3::Response, ApiError> {
    let (local, others): (WantedKeys, WantedKeys) =
        request.one_time_keys.into_iter().partition(|(user_id, _)| app.accounts.is_local(user_id));
    let keys = app.devices.claim_keys(&local).await.map_err(api)?;
    let mut response = claim_keys::v3::Response::new(keys);
    response.failures = unreachable_servers(others.keys());
    Ok(response)
}

/// Other servers are asked once there is federation; until then none can be reached.
fn unreachable_servers<'a>(
    users: impl Iterator<Item = &'a OwnedUserId>,
) -> BTreeMap<String, serde_json::Value> {
    let failure = json!({ "errcode": "M_UNKNOWN", "error": "This server does not talk to others yet" });
    users.map(|user_id| (user_id.server_name().to_string(), failure.clone())).collect()
}

/// First keys need no confirmation, and neither do keys that are there already: a device that logs in for the first
/// time sets up cross-signing without asking for the password again.
async fn upload_signing(
    app: App,
    user: LocalUser,
    request: upload_signing_keys::v3::Request,
    head: RequestHead,
) -> Result<upload_signing_keys::v3::Response, ApiError> {
    let upload = SigningKeysUpload {
        master_key: request.master_key,
        self_signing_key: request.self_signing_key,
        user_signing_key: request.user_signing_key,
    };
    match app.devices.upload_signing_keys(&user.user_id, &upload, false).await {
        Err(KeyError::AuthenticationRequired) => {
            require_confirmation(&app, &head, &user, request.auth.as_ref(), Recent::IsNotEnough).await?;
            app.devices.upload_signing_keys(&user.user_id, &upload, true).await.map_err(api)?;
        }
        outcome => outcome.map_err(api)?,
    }
    Ok(upload_signing_keys::v3::Response::new())
}

async fn upload_signed(
    app: App,
    user: LocalUser,
    request: upload_signatures::v3::Request,
) -> Result<upload_signatures::v3::Response, ApiError> {
    let signed = request.signed_keys.iter().map(|(user_id, keys)| (user_id, keys.iter()));
    let failures = app.devices.upload_signatures(&user.user_id, signed).await.map_err(api)?;
    let mut response = upload_signatures::v3::Response::new();
    for (user_id, failures) in failures {
        let failures = failures.into_iter().map(|(key_id, reason)| Ok((key_id, failure(reason)?)));
        response.failures.insert(user_id, failures.collect::<Result<_, ApiError>>()?);
    }
    Ok(response)
}

/// ruma's type has no constructor.
fn failure(reason: SignatureFailure) -> Result<Failure, ApiError> {
    let errcode = match reason {
        SignatureFailure::UnknownKey => "M_NOT_FOUND",
        SignatureFailure::OtherKey | SignatureFailure::InvalidSignature => "M_INVALID_SIGNATURE",
    };
    serde_json::from_value(json!({ "errcode": errcode, "error": reason.to_string() }))
        .map_err(ApiError::internal)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let wanted =
            json!({ "one_time_keys": { "@bob:example.org": { device.clone(): "signed_curve25519" } } });
        for expected in ["signed_curve25519:A", "signed_curve25519:F", "signed_curve25519:F"] {
            let (status, body) =
                app.post("/_matrix/client/v3/keys/claim", Some(&alice), wanted.clone()).await;
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
        let guest = app.app.accounts.register_guest().await.unwrap();
        let token = app.app.accounts.log_in(myelin_accounts::LogIn::new(&guest)).await.unwrap().access_token;
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
        let (status, body) =
            app.post("/_matrix/client/v3/keys/signatures/upload", Some(&alice), signed).await;
        assert_eq!(
            (status, &body["failures"]["@bob:example.org"]["NONE"]["errcode"]),
            (200, &json!("M_NOT_FOUND"))
        );
    }
}
