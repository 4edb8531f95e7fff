//! A server without any user: versions, health, and errors as the specification wants them.

use myelin_integration_tests::Server;
use reqwest::Method;

#[tokio::test]
async fn versions_are_told_to_everybody() {
    let server = Server::start_default().await;

    let versions = server.api().get("/_matrix/client/versions").await.ok();

    let versions = versions["versions"].as_array().expect("a list of versions");
    assert!(versions.iter().any(|version| version == "v1.11"), "{versions:?}");
}

#[tokio::test]
async fn health_endpoints_answer_without_a_token() {
    let server = Server::start_default().await;

    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(server.api().get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn unknown_endpoints_are_unrecognized() {
    let server = Server::start_default().await;

    for path in ["/_matrix/client/v3/nonsense", "/_matrix/client/v99/sync", "/_matrix/nonsense"] {
        server.api().get(path).await.is_error(404, "M_UNRECOGNIZED");
    }
    let wrong_method = server.api().request(Method::DELETE, "/_matrix/client/versions", None).await;
    wrong_method.is_error(405, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn misformed_input_gets_the_errcode_that_the_specification_names() {
    let server = Server::start_default().await;
    let login = async |body| server.api().request(Method::POST, "/_matrix/client/v3/login", Some(body)).await;

    login("{").await.is_error(400, "M_NOT_JSON");
    login("not json").await.is_error(400, "M_NOT_JSON");
    let wrong_type = login(r#"{ "type": 7 }"#).await;
    assert_eq!(wrong_type.status, 400, "{}", wrong_type.body);
    assert!(wrong_type.body["errcode"].is_string(), "{}", wrong_type.body);
}

#[tokio::test]
async fn requests_need_a_token_that_is_known() {
    let server = Server::start_default().await;
    let path = "/_matrix/client/v3/account/whoami";

    server.api().get(path).await.is_error(401, "M_MISSING_TOKEN");
    let unknown = server.api().try_request(Method::GET, path, Some("syt_nobody"), None).await.unwrap();
    unknown.is_error(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn browsers_may_call_from_any_page() {
    let server = Server::start_default().await;

    let preflight = server.api().request(Method::OPTIONS, "/_matrix/client/v3/sync", None).await;
    assert!(matches!(preflight.status, 200 | 204), "{}", preflight.status);
    for answer in [
        preflight,
        server.api().get("/_matrix/client/versions").await,
        server.api().get("/_matrix/client/nowhere").await,
    ] {
        let origin = answer.headers.get("access-control-allow-origin");
        assert_eq!(origin.and_then(|value| value.to_str().ok()), Some("*"));
    }
}
