//! Room tags ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-tagging)).

use myelin_http::{ApiError, Routes};
use ruma::{
    api::client::tag::{create_tag, delete_tag, get_tags},
    events::tag::Tags,
};
use serde_json::Value as JsonValue;

use crate::{App, LocalUser, LoggedInCaller as _, error::api};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(get);
    routes.add(create);
    routes.add(delete);
}

async fn get(
    app: App,
    user: LocalUser,
    request: get_tags::v3::Request,
) -> Result<get_tags::v3::Response, ApiError> {
    user.require_self(&request.user_id)?;
    let tags = app.account_data.tags(&user.user_id, &request.room_id).await.map_err(api)?;
    // One that is malformed, which a client can set as account data, is left out.
    let tags: Tags = tags
        .into_iter()
        .filter_map(|(name, info)| Some((name.into(), serde_json::from_value(info).ok()?)))
        .collect();
    Ok(get_tags::v3::Response::new(tags))
}

async fn create(
    app: App,
    user: LocalUser,
    request: create_tag::v3::Request,
) -> Result<create_tag::v3::Response, ApiError> {
    user.require_self(&request.user_id)?;
    let Ok(JsonValue::Object(info)) = serde_json::to_value(&request.tag_info) else {
        return Err(ApiError::bad_json("A tag's information must be a JSON object"));
    };
    let user_id = user.user_id.clone();
    app.account_data.set_tag(user_id, request.room_id, request.tag, info).await.map_err(api)?;
    Ok(create_tag::v3::Response::new())
}

async fn delete(
    app: App,
    user: LocalUser,
    request: delete_tag::v3::Request,
) -> Result<delete_tag::v3::Response, ApiError> {
    user.require_self(&request.user_id)?;
    app.account_data.delete_tag(user.user_id.clone(), request.room_id, &request.tag).await.map_err(api)?;
    Ok(delete_tag::v3::Response::new())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn tags_are_set_listed_and_deleted() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let tags = "/_matrix/client/v3/user/@alice:example.org/rooms/!r:example.org/tags";
        let tag = |name: &str| format!("{tags}/{name}");
        check(app.put(&tag("m.favourite"), Some(&alice), json!({ "order": 0.25 })).await, 200, "");
        check(app.put(&tag("u.work"), Some(&alice), json!({})).await, 200, "");
        check(app.put(&tag(&"x".repeat(256)), Some(&alice), json!({})).await, 400, "M_INVALID_PARAM");
        check(app.put(&tag("u.x"), Some(&alice), json!({ "order": {} })).await, 400, "M_BAD_JSON");
        let expected = json!({ "m.favourite": { "order": 0.25 }, "u.work": {} });
        assert_eq!(app.get(tags, Some(&alice)).await, (200, json!({ "tags": expected })));
        check(app.delete(&tag("u.work"), Some(&alice), json!({})).await, 200, "");
        assert_eq!(
            app.get(tags, Some(&alice)).await.1,
            json!({ "tags": { "m.favourite": { "order": 0.25 } } })
        );
        let bobs = tags.replace("@alice", "@bob");
        check(app.get(&bobs, Some(&alice)).await, 403, "M_FORBIDDEN");
    }
}
