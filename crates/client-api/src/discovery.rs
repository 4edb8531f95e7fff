//! What a client asks before it knows anything: `GET /_matrix/client/versions` and `GET /.well-known/matrix/client`
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#server-discovery)).

use http::Method;
use myelin_http::{ApiError, RawRequest, RawResponse, Routes};
use ruma::api::client::discovery::get_supported_versions as versions;
use serde_json::json;

use crate::{Anyone, App};

/// The versions of the specification by which clients may speak to us. What of them is not served yet answers
/// `M_UNRECOGNIZED`; README's table names it.
///
/// A version is added here once what it brought to rooms, sync, accounts and keys is served and tested: clients take
/// from this list alone what they may use.
const VERSIONS: &[&str] = &[
    "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9",
    "v1.10", "v1.11", "v1.12",
];

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
    use ruma::api::MatrixVersion;

    use super::*;
    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn versions_are_those_that_ruma_knows_how_to_speak() {
        let app = TestApp::new().await;
        let (status, body) = app.get("/_matrix/client/versions", None).await;
        assert_eq!(status, 200);
        let versions = body["versions"].as_array().expect("a list");
        for version in versions {
            let version = version.as_str().expect("a string");
            assert!(MatrixVersion::try_from(version).is_ok(), "{version}");
        }
        assert!(versions.contains(&json!("v1.11")), "{versions:?}");
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
