//! What the specification gives administrators
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#account-moderation)); Synapse's admin API is a crate of its
//! own.

use std::collections::BTreeMap;

use myelin_accounts::{Restriction, UserFlags};
use myelin_http::{ApiError, Routes};
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt, UserId,
    api::client::admin::{
        get_user_info::{
            self,
            v3::{ConnectionInfo, DeviceInfo, SessionInfo},
        },
        is_user_locked, is_user_suspended, lock_user, suspend_user,
    },
};

use crate::{Admin, App, LocalUser, error::api};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(who_is);
    routes.add(is_locked);
    routes.add(lock);
    routes.add(is_suspended);
    routes.add(suspend);
}

async fn who_is(
    app: App,
    asker: LocalUser,
    request: get_user_info::v3::Request,
) -> Result<get_user_info::v3::Response, ApiError> {
    if asker.user_id != request.user_id && !asker.flags.is_admin {
        return Err(ApiError::forbidden("Only administrators of the server can ask for others"));
    }
    require_local(&app, &request.user_id)?;
    let devices = app.accounts.devices(&request.user_id).await.map_err(api)?;
    let devices: BTreeMap<String, DeviceInfo> = devices
        .into_iter()
        .map(|device| {
            let mut connection = ConnectionInfo::new();
            connection.ip = device.last_seen.ip;
            connection.last_seen = device.last_seen.ts.and_then(UInt::new).map(MilliSecondsSinceUnixEpoch);
            connection.user_agent = device.last_seen.user_agent;
            let (mut session, mut info) = (SessionInfo::new(), DeviceInfo::new());
            session.connections = vec![connection];
            info.sessions = vec![session];
            (device.device_id.to_string(), info)
        })
        .collect();
    let mut response = get_user_info::v3::Response::new();
    response.user_id = Some(request.user_id);
    response.devices = devices;
    Ok(response)
}

async fn is_locked(
    app: App,
    _: Admin,
    request: is_user_locked::v1::Request,
) -> Result<is_user_locked::v1::Response, ApiError> {
    Ok(is_user_locked::v1::Response::new(active_user(&app, &request.user_id).await?.locked))
}

async fn is_suspended(
    app: App,
    _: Admin,
    request: is_user_suspended::v1::Request,
) -> Result<is_user_suspended::v1::Response, ApiError> {
    Ok(is_user_suspended::v1::Response::new(active_user(&app, &request.user_id).await?.suspended))
}

async fn lock(
    app: App,
    admin: Admin,
    request: lock_user::v1::Request,
) -> Result<lock_user::v1::Response, ApiError> {
    restrict(&app, &admin, &request.user_id, Restriction::Locked, request.locked).await?;
    Ok(lock_user::v1::Response::new(request.locked))
}

async fn suspend(
    app: App,
    admin: Admin,
    request: suspend_user::v1::Request,
) -> Result<suspend_user::v1::Response, ApiError> {
    restrict(&app, &admin, &request.user_id, Restriction::Suspended, request.suspended).await?;
    Ok(suspend_user::v1::Response::new(request.suspended))
}

async fn restrict(
    app: &App,
    admin: &Admin,
    user: &UserId,
    restriction: Restriction,
    value: bool,
) -> Result<(), ApiError> {
    let flags = active_user(app, user).await?;
    if flags.is_admin || admin.user_id == user {
        return Err(ApiError::forbidden("Administrators can't be locked or suspended"));
    }
    match app.accounts.set_restriction(user, restriction, value).await.map_err(api)? {
        true => Ok(()),
        false => Err(ApiError::not_found("There is no such user")),
    }
}

fn require_local(app: &App, user: &UserId) -> Result<(), ApiError> {
    match app.accounts.is_local(user) {
        true => Ok(()),
        false => Err(ApiError::invalid_param("The user is not of this server")),
    }
}

async fn active_user(app: &App, user: &UserId) -> Result<UserFlags, ApiError> {
    require_local(app, user)?;
    let found = app.accounts.user(user).await.map_err(api)?;
    let flags = found.map(|user| user.flags).filter(|flags| !flags.deactivated);
    flags.ok_or_else(|| ApiError::not_found("There is no such user"))
}

#[cfg(test)]
mod tests {
    use myelin_accounts::{LogIn, NewAccount};
    use serde_json::json;

    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn administrators_lock_and_suspend_users_and_not_each_other() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let account = NewAccount { localpart: Some("root"), is_admin: true, ..NewAccount::default() };
        let root = app.app.accounts.register(account).await.unwrap().user_id;
        let root = app.app.accounts.log_in(&root, LogIn::default()).await.unwrap().access_token;
        let path = |what: &str, user: &str| format!("/_matrix/client/v1/admin/{what}/{user}");
        let lock = path("lock", "@alice:example.org");
        let suspend = path("suspend", "@alice:example.org");

        check(app.get(&lock, Some(&alice)).await, 403, "M_FORBIDDEN");
        check(app.put(&suspend, Some(&alice), json!({ "suspended": true })).await, 403, "M_FORBIDDEN");
        assert_eq!(app.get(&suspend, Some(&root)).await, (200, json!({ "suspended": false })));
        check(app.put(&suspend, Some(&root), json!({ "suspended": true })).await, 200, "");
        assert_eq!(app.get(&suspend, Some(&root)).await, (200, json!({ "suspended": true })));
        let name = "/_matrix/client/v3/profile/@alice:example.org/displayname";
        check(app.put(name, Some(&alice), json!({ "displayname": "x" })).await, 403, "M_USER_SUSPENDED");

        check(app.put(&lock, Some(&root), json!({ "locked": true })).await, 200, "");
        check(app.get("/_matrix/client/v3/account/whoami", Some(&alice)).await, 401, "M_USER_LOCKED");
        check(app.put(&lock, Some(&root), json!({ "locked": false })).await, 200, "");
        check(app.get("/_matrix/client/v3/account/whoami", Some(&alice)).await, 200, "");

        let myself = path("lock", "@root:example.org");
        check(app.put(&myself, Some(&root), json!({ "locked": true })).await, 403, "M_FORBIDDEN");
        check(app.get(&path("lock", "@nobody:example.org"), Some(&root)).await, 404, "M_NOT_FOUND");
        check(app.get(&path("lock", "@alice:else.org"), Some(&root)).await, 400, "M_INVALID_PARAM");
    }

    #[tokio::test]
    async fn users_see_their_own_sessions() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let path = "/_matrix/client/v3/admin/whois/@alice:example.org";
        let (status, body) = app.get(path, Some(&alice)).await;
        assert_eq!((status, body["devices"].as_object().map(|devices| devices.len())), (200, Some(1)));
        check(app.get(path, Some(&bob)).await, 403, "M_FORBIDDEN");
    }
}
