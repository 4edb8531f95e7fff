//! Servers that relay calls ([spec](https://spec.matrix.org/v1.19/client-server-api/#voice-over-ip)).

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use myelin_config::Secret;
use myelin_http::{ApiError, JsonBody, Routes};
use ruma::{UserId, api::client::voip::get_turn_server_info};
use serde_json::json;
use sha1::Sha1;

use crate::{App, GuestOrUser};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(turn_server);
}

async fn turn_server(
    app: App,
    user: GuestOrUser,
    _: get_turn_server_info::v3::Request,
) -> Result<JsonBody, ApiError> {
    let voip = &app.settings.voip;
    let is_for_them = voip.turn_allow_guests || !user.flags.is_guest;
    let lifetime = voip.turn_user_lifetime;
    let credentials = match (&voip.turn_shared_secret, &voip.turn_username, &voip.turn_password) {
        (Some(secret), ..) => Some(limited(secret, &user.user_id, app.clock.now(), lifetime)),
        (None, Some(username), Some(password)) => Some((username.clone(), password.expose().to_owned())),
        _ => None,
    };
    let Some((username, password)) = credentials.filter(|_| is_for_them && !voip.turn_uris.is_empty()) else {
        // There is none. The specification has no words for that; clients know an empty object.
        return Ok(JsonBody("{}".into()));
    };
    let uris: Vec<&String> = voip.turn_uris.iter().collect();
    let answer =
        json!({ "username": username, "password": password, "uris": uris, "ttl": lifetime.as_secs() });
    Ok(JsonBody(answer.to_string().into()))
}

/// A name and a password that relays accept who share the secret, until the time in the name
/// (<https://datatracker.ietf.org/doc/html/draft-uberti-behave-turn-rest-00#section-2.2>). `now` is in milliseconds.
fn limited(secret: &Secret, user_id: &UserId, now: u64, lifetime: Duration) -> (String, String) {
    let expires = Duration::from_millis(now).saturating_add(lifetime).as_secs();
    let username = format!("{expires}:{user_id}");
    let mut hmac =
        Hmac::<Sha1>::new_from_slice(secret.expose().as_bytes()).expect("an HMAC takes keys of any length");
    hmac.update(username.as_bytes());
    let password = STANDARD.encode(hmac.finalize().into_bytes());
    (username, password)
}

#[cfg(test)]
mod tests {
    use myelin_config::{OneOrMany, Secret};
    use serde_json::json;

    use crate::testing::{TestApp, check};

    const PATH: &str = "/_matrix/client/v3/voip/turnServer";

    #[tokio::test]
    async fn a_password_of_limited_life_is_made_from_the_shared_secret() {
        let app = TestApp::with(|settings| {
            settings.voip.turn_uris = OneOrMany(vec!["turn:turn.example.org".to_owned()]);
            settings.voip.turn_shared_secret = Some(Secret::new("n0t4ctuallysecret"));
        });
        let app = app.await;
        let alice = app.user("alice").await;
        let (status, body) = app.get(PATH, Some(&alice)).await;
        // printf 1700003600:@alice:example.org | openssl dgst -sha1 -hmac n0t4ctuallysecret -binary | base64
        let expected = json!({
            "username": "1700003600:@alice:example.org", "password": "TNNCOWG0oJU55byQ096XDM3FFlo=",
            "uris": ["turn:turn.example.org"], "ttl": 3600,
        });
        assert_eq!((status, body), (200, expected));
        check(app.get(PATH, None).await, 401, "M_MISSING_TOKEN");
    }

    #[tokio::test]
    async fn without_a_relay_there_is_nothing_to_tell() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        assert_eq!(app.get(PATH, Some(&alice)).await, (200, json!({})));
    }
}
