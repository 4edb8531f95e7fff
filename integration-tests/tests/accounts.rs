//! Accounts that an operator makes.

use hmac::{Hmac, KeyInit as _, Mac as _};
use myelin_integration_tests::{Answer, Options, Server};
use reqwest::Method;
use serde_json::{Value, json};
use sha1::Sha1;

const PATH: &str = "/_synapse/admin/v1/register";

async fn register(server: &Server, secret: &str, change: impl FnOnce(&mut Value)) -> Answer {
    let nonce = server.api().get(PATH).await.ok()["nonce"].as_str().expect("a nonce").to_owned();
    let mut hmac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("any length is good");
    hmac.update(format!("{nonce}\0operator\0correct horse\0admin").as_bytes());
    let mac = hex::encode(hmac.finalize().into_bytes());
    let mut body = json!({
        "nonce": nonce, "username": "operator", "password": "correct horse", "admin": true, "mac": mac,
    });
    change(&mut body);

    server.api().request(Method::POST, PATH, Some(&body.to_string())).await
}

#[tokio::test]
async fn who_knows_the_shared_secret_registers() {
    let options = Options::default()
        .set("registration_shared_secret", json!("deep"))
        .set("enable_registration", json!(false));
    let server = Server::start(options).await;

    register(&server, "shallow", |_| {}).await.is_error(403, "M_FORBIDDEN");
    register(&server, "deep", |body| body["password"] = "another".into()).await.is_error(403, "M_FORBIDDEN");
    register(&server, "deep", |body| body["nonce"] = "made up".into()).await.is_error(400, "M_INVALID_PARAM");
    let answer = register(&server, "deep", |_| {}).await.ok();
    assert_eq!(answer["user_id"], "@operator:myelin.test");
    let token = answer["access_token"].as_str().expect("an access token");
    let whoami = "/_matrix/client/v3/account/whoami";
    let whoami = server.api().try_request(Method::GET, whoami, Some(token), None).await.expect("an answer");
    assert_eq!(whoami.ok()["device_id"], answer["device_id"]);
    register(&server, "deep", |_| {}).await.is_error(400, "M_USER_IN_USE");
}

#[tokio::test]
async fn without_a_shared_secret_nobody_registers_by_one() {
    let server = Server::start(Options::default().set("registration_shared_secret", Value::Null)).await;

    server.api().get(PATH).await.is_error(400, "M_UNKNOWN");
}
