//! Server-side key backups
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups)).

use std::collections::BTreeMap;

use myelin_devices::{BackupInfo, BackupKey, BackupState, KeySelection};
use myelin_http::{ApiError, Routes};
use ruma::{
    OwnedRoomId, UInt,
    api::client::backup::{
        BackupAlgorithm, KeyBackupData, RoomKeyBackup, add_backup_keys, add_backup_keys_for_room,
        add_backup_keys_for_session, create_backup_version, delete_backup_keys, delete_backup_keys_for_room,
        delete_backup_keys_for_session, delete_backup_version, get_backup_info, get_backup_keys,
        get_backup_keys_for_room, get_backup_keys_for_session, get_latest_backup_info, update_backup_version,
    },
    serde::Raw,
};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{App, LocalUser, error::api};

/// Keys of many rooms come in one request.
const MAX_BODY_BYTES: usize = 16 << 20;

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(create_version);
    routes.add(current_version);
    routes.add(version);
    routes.add(update_version);
    routes.add(delete_version);
    routes.add(put_all).body_limit(MAX_BODY_BYTES);
    routes.add(put_room).body_limit(MAX_BODY_BYTES);
    routes.add(put_session);
    routes.add(get_all);
    routes.add(get_room);
    routes.add(get_session);
    routes.add(delete_all);
    routes.add(delete_room);
    routes.add(delete_session);
}

/// What describes a version. ruma's type would drop what it doesn't know of `auth_data`.
#[derive(Deserialize)]
struct Description<'a> {
    #[serde(borrow)]
    algorithm: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    auth_data: &'a RawValue,
    /// Clients may repeat the path's version in the body.
    version: Option<String>,
}

fn describe(algorithm: &Raw<BackupAlgorithm>) -> Result<Description<'_>, ApiError> {
    let description: Description<'_> =
        serde_json::from_str(algorithm.json().get()).map_err(|error| ApiError::from_json(&error))?;
    match description.auth_data.get().starts_with('{') {
        true => Ok(description),
        false => Err(ApiError::bad_json("`auth_data` must be an object")),
    }
}

fn algorithm_of(info: &BackupInfo) -> Result<Raw<BackupAlgorithm>, ApiError> {
    let auth_data = RawValue::from_string(info.auth_data.clone()).map_err(ApiError::internal)?;
    let json = BTreeMap::from([
        ("algorithm", to_raw_value(&info.algorithm).map_err(ApiError::internal)?),
        ("auth_data", auth_data),
    ]);
    Ok(Raw::from_json(to_raw_value(&json).map_err(ApiError::internal)?))
}

async fn create_version(
    app: App,
    user: LocalUser,
    request: create_backup_version::v3::Request,
) -> Result<create_backup_version::v3::Response, ApiError> {
    let Description { algorithm, auth_data, .. } = describe(&request.algorithm)?;
    let version = app.key_backups.create_version(&user.user_id, &algorithm, auth_data).await.map_err(api)?;
    Ok(create_backup_version::v3::Response::new(version))
}

async fn current_version(
    app: App,
    user: LocalUser,
    _: get_latest_backup_info::v3::Request,
) -> Result<get_latest_backup_info::v3::Response, ApiError> {
    let info = app.key_backups.current_version(&user.user_id).await.map_err(api)?;
    let BackupState { etag, count } = info.state.clone();
    let count = UInt::new_saturating(count);
    Ok(get_latest_backup_info::v3::Response::new(algorithm_of(&info)?, count, etag, info.version))
}

async fn version(
    app: App,
    user: LocalUser,
    request: get_backup_info::v3::Request,
) -> Result<get_backup_info::v3::Response, ApiError> {
    let info = app.key_backups.version(&user.user_id, &request.version).await.map_err(api)?;
    let BackupState { etag, count } = info.state.clone();
    let count = UInt::new_saturating(count);
    Ok(get_backup_info::v3::Response::new(algorithm_of(&info)?, count, etag, info.version))
}

async fn update_version(
    app: App,
    user: LocalUser,
    request: update_backup_version::v3::Request,
) -> Result<update_backup_version::v3::Response, ApiError> {
    let Description { algorithm, auth_data, version } = describe(&request.algorithm)?;
    if version.is_some_and(|version| version != request.version) {
        return Err(ApiError::invalid_param("The version in the body is not that of the path"));
    }
    app.key_backups
        .update_version(&user.user_id, &request.version, &algorithm, auth_data)
        .await
        .map_err(api)?;
    Ok(update_backup_version::v3::Response::new())
}

async fn delete_version(
    app: App,
    user: LocalUser,
    request: delete_backup_version::v3::Request,
) -> Result<delete_backup_version::v3::Response, ApiError> {
    app.key_backups.delete_version(&user.user_id, &request.version).await.map_err(api)?;
    Ok(delete_backup_version::v3::Response::new())
}

type NewKey = (OwnedRoomId, String, BackupKey);

fn new_key(room_id: &OwnedRoomId, session_id: String, key: &Raw<KeyBackupData>) -> Result<NewKey, ApiError> {
    let key = serde_json::from_str(key.json().get()).map_err(|error| ApiError::from_json(&error))?;
    Ok((room_id.clone(), session_id, key))
}

async fn put(
    app: &App,
    user: &LocalUser,
    version: &str,
    keys: Vec<NewKey>,
) -> Result<(String, UInt), ApiError> {
    let state = app.key_backups.put_keys(&user.user_id, version, keys).await.map_err(api)?;
    Ok((state.etag, UInt::new_saturating(state.count)))
}

async fn put_all(
    app: App,
    user: LocalUser,
    request: add_backup_keys::v3::Request,
) -> Result<add_backup_keys::v3::Response, ApiError> {
    let rooms = request.rooms.into_iter();
    let keys = rooms.flat_map(|(room_id, room)| {
        let sessions = room.sessions.into_iter();
        sessions.map(move |(session_id, key)| new_key(&room_id, session_id, &key))
    });
    let keys = keys.collect::<Result<_, _>>()?;
    let (etag, count) = put(&app, &user, &request.version, keys).await?;
    Ok(add_backup_keys::v3::Response::new(etag, count))
}

async fn put_room(
    app: App,
    user: LocalUser,
    request: add_backup_keys_for_room::v3::Request,
) -> Result<add_backup_keys_for_room::v3::Response, ApiError> {
    let sessions = request.sessions.into_iter();
    let keys = sessions.map(|(session_id, key)| new_key(&request.room_id, session_id, &key));
    let keys = keys.collect::<Result<_, _>>()?;
    let (etag, count) = put(&app, &user, &request.version, keys).await?;
    Ok(add_backup_keys_for_room::v3::Response::new(etag, count))
}

async fn put_session(
    app: App,
    user: LocalUser,
    request: add_backup_keys_for_session::v3::Request,
) -> Result<add_backup_keys_for_session::v3::Response, ApiError> {
    let key = new_key(&request.room_id, request.session_id, &request.session_data)?;
    let (etag, count) = put(&app, &user, &request.version, vec![key]).await?;
    Ok(add_backup_keys_for_session::v3::Response::new(etag, count))
}

async fn keys(
    app: &App,
    user: &LocalUser,
    version: &str,
    selection: KeySelection<'_>,
) -> Result<BTreeMap<OwnedRoomId, RoomKeyBackup>, ApiError> {
    let keys = app.key_backups.keys(&user.user_id, version, selection).await.map_err(api)?;
    let mut rooms: BTreeMap<OwnedRoomId, RoomKeyBackup> = BTreeMap::new();
    for (room_id, session_id, key) in keys {
        let key = Raw::from_json(to_raw_value(&key).map_err(ApiError::internal)?);
        let room = rooms.entry(room_id).or_insert_with(|| RoomKeyBackup::new(BTreeMap::new()));
        room.sessions.insert(session_id, key);
    }
    Ok(rooms)
}

async fn get_all(
    app: App,
    user: LocalUser,
    request: get_backup_keys::v3::Request,
) -> Result<get_backup_keys::v3::Response, ApiError> {
    let rooms = keys(&app, &user, &request.version, KeySelection::All).await?;
    Ok(get_backup_keys::v3::Response::new(rooms))
}

async fn get_room(
    app: App,
    user: LocalUser,
    request: get_backup_keys_for_room::v3::Request,
) -> Result<get_backup_keys_for_room::v3::Response, ApiError> {
    let mut rooms = keys(&app, &user, &request.version, KeySelection::Room(&request.room_id)).await?;
    let sessions = rooms.remove(&request.room_id).map(|room| room.sessions).unwrap_or_default();
    Ok(get_backup_keys_for_room::v3::Response::new(sessions))
}

async fn get_session(
    app: App,
    user: LocalUser,
    request: get_backup_keys_for_session::v3::Request,
) -> Result<get_backup_keys_for_session::v3::Response, ApiError> {
    let selection = KeySelection::Session(&request.room_id, &request.session_id);
    let mut rooms = keys(&app, &user, &request.version, selection).await?;
    let room = rooms.remove(&request.room_id);
    let key = room.and_then(|mut room| room.sessions.remove(&request.session_id));
    let key = key.ok_or_else(|| ApiError::not_found("There is no such key in the backup"))?;
    Ok(get_backup_keys_for_session::v3::Response::new(key))
}

async fn delete(
    app: &App,
    user: &LocalUser,
    version: &str,
    selection: KeySelection<'_>,
) -> Result<(String, UInt), ApiError> {
    let state = app.key_backups.delete_keys(&user.user_id, version, selection).await.map_err(api)?;
    Ok((state.etag, UInt::new_saturating(state.count)))
}

async fn delete_all(
    app: App,
    user: LocalUser,
    request: delete_backup_keys::v3::Request,
) -> Result<delete_backup_keys::v3::Response, ApiError> {
    let (etag, count) = delete(&app, &user, &request.version, KeySelection::All).await?;
    Ok(delete_backup_keys::v3::Response::new(etag, count))
}

async fn delete_room(
    app: App,
    user: LocalUser,
    request: delete_backup_keys_for_room::v3::Request,
) -> Result<delete_backup_keys_for_room::v3::Response, ApiError> {
    let (etag, count) = delete(&app, &user, &request.version, KeySelection::Room(&request.room_id)).await?;
    Ok(delete_backup_keys_for_room::v3::Response::new(etag, count))
}

async fn delete_session(
    app: App,
    user: LocalUser,
    request: delete_backup_keys_for_session::v3::Request,
) -> Result<delete_backup_keys_for_session::v3::Response, ApiError> {
    let selection = KeySelection::Session(&request.room_id, &request.session_id);
    let (etag, count) = delete(&app, &user, &request.version, selection).await?;
    Ok(delete_backup_keys_for_session::v3::Response::new(etag, count))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{TestApp, check};

    const VERSION: &str = "/_matrix/client/v3/room_keys/version";
    const KEYS: &str = "/_matrix/client/v3/room_keys/keys";

    fn description(public_key: &str) -> Value {
        json!({
            "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
            "auth_data": { "public_key": public_key, "signatures": {}, "org.example.more": 1 },
        })
    }

    fn key(index: u64) -> Value {
        json!({
            "first_message_index": index, "forwarded_count": 0, "is_verified": false,
            "session_data": { "ciphertext": "c", "ephemeral": "e", "mac": "m" },
        })
    }

    #[tokio::test]
    async fn a_backup_is_begun_described_and_ended() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        check(app.get(VERSION, Some(&alice)).await, 404, "M_NOT_FOUND");
        check(app.post(VERSION, Some(&alice), json!({ "algorithm": "a" })).await, 400, "M_MISSING_PARAM");
        let (status, body) = app.post(VERSION, Some(&alice), description("one")).await;
        assert_eq!((status, &body["version"]), (200, &json!("1")));
        let path = format!("{VERSION}/1");
        check(app.put(&path, Some(&alice), description("two")).await, 200, "");
        let other = json!({ "algorithm": "org.other", "auth_data": {} });
        check(app.put(&path, Some(&alice), other).await, 400, "M_INVALID_PARAM");
        let mut other = description("three");
        other["version"] = json!("2");
        check(app.put(&path, Some(&alice), other).await, 400, "M_INVALID_PARAM");
        for path in [VERSION, &path] {
            let (status, body) = app.get(path, Some(&alice)).await;
            assert_eq!((status, &body["auth_data"]), (200, &description("two")["auth_data"]), "{path}");
            assert_eq!((&body["count"], &body["version"]), (&json!(0), &json!("1")));
        }
        check(app.delete(&path, Some(&alice), Value::Null).await, 200, "");
        check(app.get(&path, Some(&alice)).await, 404, "M_NOT_FOUND");
    }

    #[tokio::test]
    async fn keys_are_kept_by_room_and_session_for_the_newest_version() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        app.post(VERSION, Some(&alice), description("one")).await;
        let all = json!({ "rooms": { "!r:x": { "sessions": { "s1": key(1), "s2": key(2) } } } });
        let (status, body) = app.put(&format!("{KEYS}?version=1"), Some(&alice), all).await;
        assert_eq!((status, &body["count"]), (200, &json!(2)));
        let session = format!("{KEYS}/!r:x/s3?version=1");
        check(app.put(&session, Some(&alice), key(3)).await, 200, "");
        assert_eq!(app.get(&session, Some(&alice)).await, (200, key(3)));
        let (_, body) = app.get(&format!("{KEYS}/!r:x?version=1"), Some(&alice)).await;
        assert_eq!(body["sessions"].as_object().map(|sessions| sessions.len()), Some(3));
        let (_, body) = app.get(&format!("{KEYS}?version=1"), Some(&alice)).await;
        assert_eq!(body["rooms"]["!r:x"]["sessions"]["s1"], key(1));
        check(app.get(&session, Some(&bob)).await, 404, "M_NOT_FOUND");
        check(app.get(&format!("{KEYS}/!r:x/none?version=1"), Some(&alice)).await, 404, "M_NOT_FOUND");

        app.post(VERSION, Some(&alice), description("two")).await;
        let (status, body) = app.put(&session, Some(&alice), key(3)).await;
        assert_eq!(
            (status, &body["errcode"], &body["current_version"]),
            (403, &json!("M_WRONG_ROOM_KEYS_VERSION"), &json!("2"))
        );
        let (status, body) = app.delete(&session, Some(&alice), Value::Null).await;
        assert_eq!((status, &body["count"]), (200, &json!(2)));
        check(app.delete(&format!("{KEYS}?version=1"), Some(&alice), Value::Null).await, 200, "");
        assert_eq!(app.get(&format!("{KEYS}?version=1"), Some(&alice)).await, (200, json!({ "rooms": {} })));
    }
}
