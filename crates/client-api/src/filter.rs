//! Filters ([spec](https://spec.matrix.org/v1.19/client-server-api/#filtering)).

use myelin_http::{ApiError, Routes};
use ruma::api::client::filter::{create_filter, get_filter};

use crate::{App, LocalUser, LoggedInCaller as _, error::api};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(create);
    routes.add(get);
}

async fn create(
    app: App,
    user: LocalUser,
    request: create_filter::v3::Request,
) -> Result<create_filter::v3::Response, ApiError> {
    user.require_self(&request.user_id)?;
    let filter_id = app.filters.create(&user.user_id, &request.filter).await.map_err(api)?;
    Ok(create_filter::v3::Response::new(filter_id))
}

async fn get(
    app: App,
    user: LocalUser,
    request: get_filter::v3::Request,
) -> Result<get_filter::v3::Response, ApiError> {
    user.require_self(&request.user_id)?;
    let filter = app.filters.get(&user.user_id, &request.filter_id).await.map_err(api)?;
    let filter = filter.ok_or_else(|| ApiError::not_found("You have no such filter"))?;
    Ok(get_filter::v3::Response::new((*filter).clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn a_filter_is_kept_for_its_user() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let path = "/_matrix/client/v3/user/@alice:example.org/filter";
        let filter = json!({ "room": { "timeline": { "limit": 10 } } });
        let (status, body) = app.post(path, Some(&alice), filter.clone()).await;
        assert_eq!(status, 200, "{body}");
        let id = body["filter_id"].as_str().unwrap();
        assert_eq!(app.get(&format!("{path}/{id}"), Some(&alice)).await, (200, filter));
        check(app.get(&format!("{path}/99"), Some(&alice)).await, 404, "M_NOT_FOUND");
        check(app.get(&format!("{path}/x"), Some(&alice)).await, 404, "M_NOT_FOUND");
        let bad = json!({ "room": { "timeline": { "limit": "many" } } });
        check(app.post(path, Some(&alice), bad).await, 400, "M_BAD_JSON");
        check(app.post(&path.replace("alice", "bob"), Some(&alice), json!({})).await, 403, "M_FORBIDDEN");
    }
}
