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

async fn log_in(server: &Server, user: &str, password: &str) -> Answer {
    let identifier = json!({ "type": "m.id.user", "user": user });
    let body = json!({ "type": "m.login.password", "identifier": identifier, "password": password });

    server.api().request(Method::POST, "/_matrix/client/v3/login", Some(&body.to_string())).await
}

#[tokio::test]
async fn the_control_program_registers_users() {
    let options = Options::default().set("registration_shared_secret", json!("deep"));
    let server = Server::start(options).await;
    let register = async |arguments: &[&str]| server.control("register-user", arguments).await;

    let said = register(&["--username", "demo", "--password", "demo", "--no-admin"]).await;
    assert_eq!(said.stdout, "@demo:myelin.test", "{}", said.stderr);
    let again = register(&["-u", "demo", "-p", "other"]).await;
    assert!(!again.success && again.stderr.contains("M_USER_IN_USE"), "{again:?}");
    assert!(register(&["-u", "demo", "-p", "other", "--exists-ok"]).await.success);
    log_in(&server, "demo", "demo").await.ok();
    let wrong = register(&["-u", "eve", "-p", "eve", "-k", "shallow"]).await;
    assert!(!wrong.success && wrong.stderr.contains("M_FORBIDDEN"), "{wrong:?}");
    let nowhere = register(&["-u", "eve", "-p", "eve", "http://127.0.0.1:1"]).await;
    assert!(!nowhere.success && nowhere.stderr.contains("asking http://127.0.0.1:1"), "{nowhere:?}");
}

#[tokio::test]
async fn a_hash_by_the_control_program_is_a_password() {
    let options = Options::default()
        .set("registration_shared_secret", json!("deep"))
        .set("password_config", json!({ "pepper": "hot" }));
    let server = Server::start(options).await;
    server.control("register-user", &["-u", "demo", "-p", "before"]).await;

    let hash = server.control("hash-password", &["-p", "after"]).await.stdout;
    let database = server.database();
    let client = database.server().connect(database.name()).await.expect("the server's database");
    let sql = "UPDATE users SET password_hash = $1 WHERE user_id = '@demo:myelin.test'";
    assert_eq!(client.execute(sql, &[&hash]).await.expect("users have passwords"), 1, "{hash}");

    log_in(&server, "demo", "after").await.ok();
    log_in(&server, "demo", "before").await.is_error(403, "M_FORBIDDEN");
}
