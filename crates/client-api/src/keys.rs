//! Keys of devices and users
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption)).

use std::collections::BTreeMap;

use myelin_devices::{KeyError, KeysUpload, SignatureFailure, SigningKeysUpload, WantedKeys};
use myelin_http::{ApiError, RequestHead, Routes};
use myelin_sync::SyncToken;
use ruma::{
    OwnedUserId, UInt,
    api::client::keys::{
        claim_keys, get_key_changes, get_keys, upload_keys,
        upload_signatures::{self, v3::Failure},
        upload_signing_keys,
    },
};
use serde_json::json;

use crate::{
    App, GuestOrUser, LocalUser, LoggedInCaller as _,
    error::api,
    ui_auth::{Recent, require_confirmation},
};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(upload);
    routes.add(query);
    routes.add(claim);
    routes.add(list_changes);
    routes.add(upload_signing);
    routes.add(upload_signed);
}

async fn upload(
    app: App,
    user: GuestOrUser,
    request: upload_keys::v3::Request,
) -> Result<upload_keys::v3::Response, ApiError> {
    let device_id = user.require_device()?;
    let upload = KeysUpload {
        device_keys: request.device_keys,
        one_time_keys: request.one_time_keys,
        fallback_keys: request.fallback_keys,
    };
    let counts = app.devices.upload_keys(&user.user_id, device_id, upload).await.map_err(api)?;
    let counts = counts.one_time.iter();
    let counts = counts.map(|(algorithm, count)| (algorithm.as_str().into(), UInt::new_saturating(*count)));
    Ok(upload_keys::v3::Response::new(counts.collect()))
}

async fn query(
    app: App,
    user: GuestOrUser,
    request: get_keys::v3::Request,
) -> Result<get_keys::v3::Response, ApiError> {
    let (local, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        request.device_keys.into_iter().partition(|(user_id, _)| app.accounts.is_local(user_id));
    let keys = app.devices.query_keys(Some(&user.user_id), &local).await.map_err(api)?;
    let mut response = get_keys::v3::Response::new();
    response.failures = unreachable_servers(others.keys());
    response.device_keys = keys.device_keys;
    response.master_keys = keys.master_keys;
    response.self_signing_keys = keys.self_signing_keys;
    response.user_signing_keys = keys.user_signing_keys;
    Ok(response)
}

async fn claim(
    app: App,
    _: GuestOrUser,
    request: claim_keys::v3::Request,
) -> Result<claim_keys::v3::Response, ApiError> {
    let (local, others): (WantedKeys, WantedKeys) =
        request.one_time_keys.into_iter().partition(|(user_id, _)| app.accounts.is_local(user_id));
    let keys = app.devices.claim_keys(&local).await.map_err(api)?;
    let mut response = claim_keys::v3::Response::new(keys);
    response.failures = unreachable_servers(others.keys());
    Ok(response)
}

async fn list_changes(
    app: App,
    user: LocalUser,
    request: get_key_changes::v3::Request,
) -> Result<get_key_changes::v3::Response, ApiError> {
    let token = |text: &str| {
        text.parse::<SyncToken>()
            .map_err(|_| ApiError::invalid_param("`from` and `to` must be tokens of this server's /sync"))
    };
    let (from, to) = (token(&request.from)?, token(&request.to)?);
    let changes = app.sync.key_changes(&user.user_id, &from, &to).await.map_err(api)?;
    let (changed, left) = (changes.changed.into_iter().collect(), changes.left.into_iter().collect());
    Ok(get_key_changes::v3::Response::new(changed, left))
}

/// Other servers are asked once there is federation; until then none can be reached.
fn unreachable_servers<'a>(
    users: impl Iterator<Item = &'a OwnedUserId>,
) -> BTreeMap<String, serde_json::Value> {
    let failure = json!({ "errcode": "M_UNKNOWN", "error": "This server does not talk to others yet" });
    users.map(|user_id| (user_id.server_name().to_string(), failure.clone())).collect()
}

/// First keys need no confirmation, and neither do keys that are there already: a device that logs in for the first
/// time sets up cross-signing without asking for the password again.
async fn upload_signing(
    app: App,
    user: LocalUser,
    request: upload_signing_keys::v3::Request,
    head: RequestHead,
) -> Result<upload_signing_keys::v3::Response, ApiError> {
    let upload = SigningKeysUpload {
        master_key: request.master_key,
        self_signing_key: request.self_signing_key,
        user_signing_key: request.user_signing_key,
    };
    match app.devices.upload_signing_keys(&user.user_id, &upload, false).await {
        Err(KeyError::AuthenticationRequired) => {
            require_confirmation(&app, &head, &user, request.auth.as_ref(), Recent::IsNotEnough).await?;
            app.devices.upload_signing_keys(&user.user_id, &upload, true).await.map_err(api)?;
        }
        outcome => outcome.map_err(api)?,
    }
    Ok(upload_signing_keys::v3::Response::new())
}

async fn upload_signed(
    app: App,
    user: LocalUser,
    request: upload_signatures::v3::Request,
) -> Result<upload_signatures::v3::Response, ApiError> {
    let signed = request.signed_keys.iter().map(|(user_id, keys)| (user_id, keys.iter()));
    let failures = app.devices.upload_signatures(&user.user_id, signed).await.map_err(api)?;
    let mut response = upload_signatures::v3::Response::new();
    for (user_id, failures) in failures {
        let failures = failures.into_iter().map(|(key_id, reason)| Ok((key_id, failure(reason)?)));
        response.failures.insert(user_id, failures.collect::<Result<_, ApiError>>()?);
    }
    Ok(response)
}

/// ruma's type has no constructor.
fn failure(reason: SignatureFailure) -> Result<Failure, ApiError> {
    let errcode = match reason {
        SignatureFailure::UnknownKey => "M_NOT_FOUND",
        SignatureFailure::OtherKey | SignatureFailure::InvalidSignature => "M_INVALID_SIGNATURE",
    };
    serde_json::from_value(json!({ "errcode": errcode, "error": reason.to_string() }))
        .map_err(ApiError::internal)
}

#[cfg(test)]
mod tests;
