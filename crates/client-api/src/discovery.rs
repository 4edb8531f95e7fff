//! What a client asks before it knows anything: `GET /_matrix/client/versions` and `GET /.well-known/matrix/client`
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#server-discovery)).

use http::Method;
use myelin_http::{ApiError, RawRequest, RawResponse, Routes};
use ruma::api::client::discovery::get_supported_versions as versions;
use serde_json::json;

use crate::{Anyone, App};

/// The versions of the specification of which every operation that clients rely on is served.
///
/// None yet: a client that reads a version here may call all that this version has.
const VERSIONS: &[&str] = &[];

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(get_supported_versions);
    routes.add_raw(Method::GET, "/.well-known/matrix/client", well_known_client);
}

async fn get_supported_versions(
    _: App,
    _: Anyone,
    _: versions::Request,
) -> Result<versions::Response, ApiError> {
    Ok(versions::Response::new(VERSIONS.iter().map(|version| (*version).to_owned()).collect()))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixclient>
async fn well_known_client(app: App, _: Anyone, _: RawRequest) -> Result<RawResponse, ApiError> {
    let server = &app.settings.server;
    let Some(base_url) = &server.public_baseurl else {
        return Err(ApiError::not_found("This server does not tell its address"));
    };
    let mut content: serde_json::Map<_, _> =
        server.extra_well_known_client_content.clone().into_iter().collect();
    // The specification's examples have no slash at the end, and old clients append a path that begins with one.
    let base_url = base_url.as_str().trim_end_matches('/');
    content.insert("m.homeserver".to_owned(), json!({ "base_url": base_url }));
    Ok(RawResponse::json(serde_json::Value::Object(content).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn versions_are_a_list() {
        let app = TestApp::new().await;
        let (status, body) = app.get("/_matrix/client/versions", None).await;
        assert_eq!(status, 200);
        assert_eq!(body["versions"].as_array().map(Vec::len), Some(VERSIONS.len()));
    }

    #[tokio::test]
    async fn the_well_known_file_is_answered_only_if_the_address_is_known() {
        let path = "/.well-known/matrix/client";
        check(TestApp::new().await.get(path, None).await, 404, "M_NOT_FOUND");

        let app = TestApp::with(|settings| {
            settings.server.public_baseurl = Some("https://matrix.example.org/".parse().expect("a URL"));
            settings.server.extra_well_known_client_content.insert("org.example".to_owned(), json!(1));
        });
        let expected =
            json!({ "m.homeserver": { "base_url": "https://matrix.example.org" }, "org.example": 1 });
        assert_eq!(app.await.get(path, None).await, (200, expected));
    }
}
