//! Where notifications go to
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushers)). They are kept; nothing is sent
//! to them yet.

use myelin_http::{ApiError, Routes};
use ruma::api::client::push::{
    Pusher, PusherIds, PusherKind, get_pushers,
    set_pusher::{
        self,
        v3::{PusherAction, PusherPostData},
    },
};

use crate::{App, LocalUser, error::api};

/// The longest `app_id` and `pushkey`
/// (<https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset>).
const MAX_APP_ID_BYTES: usize = 64;
const MAX_PUSHKEY_BYTES: usize = 512;

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(list);
    routes.add(set);
}

async fn list(
    app: App,
    user: LocalUser,
    _: get_pushers::v3::Request,
) -> Result<get_pushers::v3::Response, ApiError> {
    let pushers = app.pushers.list(&user.user_id).await.map_err(api)?;
    let pushers = pushers.iter().map(|json| serde_json::from_str::<Pusher>(json));
    let pushers = pushers.collect::<Result<_, _>>().map_err(ApiError::internal)?;
    Ok(get_pushers::v3::Response::new(pushers))
}

async fn set(
    app: App,
    user: LocalUser,
    request: set_pusher::v3::Request,
) -> Result<set_pusher::v3::Response, ApiError> {
    match request.action {
        PusherAction::Post(PusherPostData { pusher, append, .. }) => {
            check_pusher(&pusher)?;
            let PusherIds { app_id, pushkey, .. } = &pusher.ids;
            let json = serde_json::to_string(&pusher).map_err(ApiError::internal)?;
            let device_id = user.device_id.as_deref();
            app.pushers.set(&user.user_id, device_id, (app_id, pushkey), json, append).await.map_err(api)?;
        }
        PusherAction::Delete(PusherIds { app_id, pushkey, .. }) => {
            app.pushers.delete(&user.user_id, &app_id, &pushkey).await.map_err(api)?;
        }
        _ => return Err(ApiError::bad_json("Unknown action")),
    }
    Ok(set_pusher::v3::Response::new())
}

fn check_pusher(pusher: &Pusher) -> Result<(), ApiError> {
    if pusher.ids.app_id.len() > MAX_APP_ID_BYTES || pusher.ids.pushkey.len() > MAX_PUSHKEY_BYTES {
        return Err(ApiError::invalid_param("`app_id` has at most 64 bytes and `pushkey` 512"));
    }
    match &pusher.kind {
        PusherKind::Http(data) => {
            let url = url::Url::parse(&data.url).ok();
            let is_good = url.is_some_and(|url| {
                matches!(url.scheme(), "http" | "https") && url.path() == "/_matrix/push/v1/notify"
            });
            match is_good {
                true => Ok(()),
                false => Err(ApiError::invalid_param(
                    "`data.url` must be an HTTP(S) URL with the path /_matrix/push/v1/notify",
                )),
            }
        }
        _ => Err(ApiError::invalid_param("Only pushers of the kind `http` are known here")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{PASSWORD, TestApp, check};

    fn pusher(url: &str) -> Value {
        json!({
            "app_id": "org.example", "pushkey": "key", "kind": "http", "app_display_name": "App",
            "device_display_name": "Phone", "lang": "en", "data": { "url": url, "format": "event_id_only" },
        })
    }

    #[tokio::test]
    async fn a_pusher_is_set_listed_and_deleted() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let set = "/_matrix/client/v3/pushers/set";
        let good = pusher("https://push.example.org/_matrix/push/v1/notify");
        for wrong in ["ftp://push.example.org/_matrix/push/v1/notify", "https://push.example.org/", "x"] {
            check(app.post(set, Some(&alice), pusher(wrong)).await, 400, "M_INVALID_PARAM");
        }
        check(app.post(set, Some(&alice), good.clone()).await, 200, "");
        let listed = async || app.get("/_matrix/client/v3/pushers", Some(&alice)).await;
        assert_eq!(listed().await, (200, json!({ "pushers": [good] })));
        let gone = json!({ "app_id": "org.example", "pushkey": "key", "kind": null });
        check(app.post(set, Some(&alice), gone).await, 200, "");
        assert_eq!(listed().await, (200, json!({ "pushers": [] })));
    }

    #[tokio::test]
    async fn a_pusher_goes_with_the_device_that_set_it() {
        let app = TestApp::new().await;
        let here = app.user("alice").await;
        let alice = ruma::user_id!("@alice:example.org");
        let there = app.app.accounts.log_in(alice, myelin_accounts::LogIn::default()).await.unwrap();
        let good = pusher("https://push.example.org/_matrix/push/v1/notify");
        let set = app.post("/_matrix/client/v3/pushers/set", Some(&there.access_token), good).await;
        check(set, 200, "");
        let identifier = json!({ "type": "m.id.user", "user": "alice" });
        let auth = json!({ "type": "m.login.password", "identifier": identifier, "password": PASSWORD });
        let path = format!("/_matrix/client/v3/devices/{}", there.device_id);
        check(app.delete(&path, Some(&here), json!({ "auth": auth })).await, 200, "");
        let listed = app.get("/_matrix/client/v3/pushers", Some(&here)).await;
        assert_eq!(listed, (200, json!({ "pushers": [] })));
    }
}
