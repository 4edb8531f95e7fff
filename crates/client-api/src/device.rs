//! Devices ([spec](https://spec.matrix.org/v1.19/client-server-api/#device-management)).

use std::collections::BTreeSet;

use myelin_accounts::{Accounts, Device as StoredDevice, SessionsEnded};
use myelin_devices::TransactionWork;
use myelin_http::{ApiError, RequestHead, Routes};
use myelin_push::Pushers;
use ruma::{
    DeviceId, MilliSecondsSinceUnixEpoch, OwnedDeviceId, UInt, UserId,
    api::client::device::{self, delete_device, delete_devices, get_device, get_devices, update_device},
};

use crate::{
    App, GuestOrUser, LocalUser,
    error::api,
    ui_auth::{Recent, require_confirmation},
};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(list);
    routes.add(get);
    routes.add(update);
    routes.add(delete_one);
    routes.add(delete_many);
}

async fn list(
    app: App,
    user: GuestOrUser,
    _: get_devices::v3::Request,
) -> Result<get_devices::v3::Response, ApiError> {
    let devices = app.accounts.devices(&user.user_id).await.map_err(api)?;
    Ok(get_devices::v3::Response::new(devices.into_iter().map(to_client).collect()))
}

async fn get(
    app: App,
    user: GuestOrUser,
    request: get_device::v3::Request,
) -> Result<get_device::v3::Response, ApiError> {
    let device = app.accounts.device(&user.user_id, &request.device_id).await.map_err(api)?;
    let device = device.ok_or_else(|| ApiError::not_found("You have no such device"))?;
    Ok(get_device::v3::Response::new(to_client(device)))
}

fn to_client(stored: StoredDevice) -> device::Device {
    let mut device = device::Device::new(stored.device_id);
    device.display_name = stored.display_name;
    device.last_seen_ip = stored.last_seen.ip;
    device.last_seen_ts = stored.last_seen.ts.and_then(UInt::new).map(MilliSecondsSinceUnixEpoch);
    device
}

async fn update(
    app: App,
    user: GuestOrUser,
    request: update_device::v3::Request,
) -> Result<update_device::v3::Response, ApiError> {
    let name = request.display_name.as_deref();
    if !app.accounts.rename_device(&user.user_id, &request.device_id, name).await.map_err(api)? {
        return Err(ApiError::not_found("You have no such device"));
    }
    if name.is_some() {
        // The name is part of what others see of the device's keys.
        app.devices.note_change(&user.user_id).await.map_err(api)?;
    }
    Ok(update_device::v3::Response::new())
}

async fn delete_one(
    app: App,
    user: LocalUser,
    request: delete_device::v3::Request,
    head: RequestHead,
) -> Result<delete_device::v3::Response, ApiError> {
    require_confirmation(&app, &head, &user, request.auth.as_ref(), Recent::IsEnough).await?;
    delete_devices(&app, &user.user_id, vec![request.device_id]).await?;
    Ok(delete_device::v3::Response::new())
}

async fn delete_many(
    app: App,
    user: LocalUser,
    request: delete_devices::v3::Request,
    head: RequestHead,
) -> Result<delete_devices::v3::Response, ApiError> {
    require_confirmation(&app, &head, &user, request.auth.as_ref(), Recent::IsEnough).await?;
    let devices: BTreeSet<OwnedDeviceId> = request.devices.into_iter().collect();
    delete_devices(&app, &user.user_id, devices.into_iter().collect()).await?;
    Ok(delete_devices::v3::Response::new())
}

/// Ends the sessions of devices: tokens, keys, waiting messages and pushers go in one transaction.
pub(crate) async fn delete_devices(
    app: &App,
    user: &UserId,
    devices: Vec<OwnedDeviceId>,
) -> Result<(), ApiError> {
    let (user_id, doomed) = (user.to_owned(), devices.clone());
    let work: TransactionWork<SessionsEnded> = Box::new(move |transaction| {
        Box::pin(async move {
            Pushers::delete_of_devices_in(transaction, &user_id, &doomed).await?;
            Accounts::delete_devices_in(transaction, &user_id, &doomed).await
        })
    });
    let ended = app.devices.remove_devices(user, devices, work).await.map_err(api)?;
    app.accounts.forget_tokens(&ended.revoked).await;
    Ok(())
}

/// Ends all sessions of a user but that of `keep`.
pub(crate) async fn delete_all_devices(
    app: &App,
    user: &UserId,
    keep: Option<OwnedDeviceId>,
) -> Result<(), ApiError> {
    let devices = list_all_but(app, user, keep.as_deref()).await?;
    let (user_id, doomed) = (user.to_owned(), devices.clone());
    let work: TransactionWork<SessionsEnded> = Box::new(move |transaction| {
        Box::pin(async move {
            Pushers::delete_of_devices_in(transaction, &user_id, &doomed).await?;
            Accounts::delete_all_devices_in(transaction, &user_id, keep.as_deref()).await
        })
    });
    let ended = app.devices.remove_devices(user, devices, work).await.map_err(api)?;
    app.accounts.forget_tokens(&ended.revoked).await;
    Ok(())
}

/// The devices of a user, but `keep`.
pub(crate) async fn list_all_but(
    app: &App,
    user: &UserId,
    keep: Option<&DeviceId>,
) -> Result<Vec<OwnedDeviceId>, ApiError> {
    let devices = app.accounts.devices(user).await.map_err(api)?.into_iter();
    Ok(devices.map(|device| device.device_id).filter(|id| Some(&**id) != keep).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{PASSWORD, TestApp, check};

    const DEVICES: &str = "/_matrix/client/v3/devices";

    fn auth(user: &str, password: &str) -> serde_json::Value {
        let identifier = json!({ "type": "m.id.user", "user": user });
        json!({ "type": "m.login.password", "identifier": identifier, "password": password })
    }

    #[tokio::test]
    async fn a_device_is_renamed_and_others_are_not_found() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let (_, body) = app.get(DEVICES, Some(&alice)).await;
        let id = body["devices"][0]["device_id"].as_str().unwrap();
        let path = format!("{DEVICES}/{id}");
        check(app.put(&path, Some(&alice), json!({ "display_name": "Phone" })).await, 200, "");
        let (_, body) = app.get(&path, Some(&alice)).await;
        assert_eq!(body["display_name"], "Phone");
        check(app.get(&path, Some(&bob)).await, 404, "M_NOT_FOUND");
        check(app.put(&path, Some(&bob), json!({ "display_name": "x" })).await, 404, "M_NOT_FOUND");
        check(app.put(&path, Some(&alice), json!({ "display_name": "a\0b" })).await, 400, "M_INVALID_PARAM");
    }

    #[tokio::test]
    async fn a_device_is_deleted_with_the_password_only() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let (_, body) = app.get(DEVICES, Some(&alice)).await;
        let path = format!("{DEVICES}/{}", body["devices"][0]["device_id"].as_str().unwrap());
        let (status, body) = app.delete(&path, Some(&alice), json!({})).await;
        assert_eq!((status, &body["flows"]), (401, &json!([{ "stages": ["m.login.password"] }])));

        let (status, body) = app.delete(&path, Some(&alice), json!({ "auth": auth("alice", "wrong") })).await;
        assert_eq!((status, &body["errcode"]), (401, &json!("M_FORBIDDEN")));
        // Another user's password is none.
        let bobs = json!({ "auth": auth("bob", PASSWORD) });
        check(app.delete(&path, Some(&alice), bobs).await, 403, "M_FORBIDDEN");
        // Deleting a device of one's own that is not there succeeds, and touches nobody else's.
        check(app.delete(&path, Some(&bob), json!({ "auth": auth("bob", PASSWORD) })).await, 200, "");
        check(app.get(&path, Some(&alice)).await, 200, "");

        check(app.delete(&path, Some(&alice), json!({ "auth": auth("alice", PASSWORD) })).await, 200, "");
        check(app.get(DEVICES, Some(&alice)).await, 401, "M_UNKNOWN_TOKEN");
    }

    #[tokio::test]
    async fn a_confirmation_is_for_the_devices_it_was_asked_for() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let path = "/_matrix/client/v3/delete_devices";
        let (status, body) = app.post(path, Some(&alice), json!({ "devices": ["A"] })).await;
        assert_eq!(status, 401);
        let mut auth = auth("alice", PASSWORD);
        auth["session"] = body["session"].clone();
        let other = json!({ "devices": ["B"], "auth": auth });
        check(app.post(path, Some(&alice), other).await, 403, "M_FORBIDDEN");
        check(app.post(path, Some(&alice), json!({ "devices": ["A"], "auth": auth })).await, 200, "");
    }
}
