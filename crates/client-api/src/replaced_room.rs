//! What users take along into a room that replaces another
//! (<https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-16>): push rules, tags, the place in `m.direct`.

use myelin_accounts::Login;
use myelin_rooms::read::Viewer;
use ruma::{OwnedRoomId, RoomId};
use serde::Deserialize;
use tracing::warn;

use crate::App;

#[derive(Deserialize)]
struct Create {
    predecessor: Option<Predecessor>,
}

#[derive(Deserialize)]
struct Predecessor {
    room_id: OwnedRoomId,
}

/// Carries the settings of a user who has come into a room over from the room that it replaces, if any. If that fails,
/// the user is in the room all the same.
pub(crate) async fn carry_over(app: &App, user: &Login, room_id: &RoomId) {
    let Some(old) = predecessor(app, user, room_id).await else { return };
    let user_id = &user.user_id;
    if let Err(error) = app.push_rules.carry_over(user_id, old.clone(), room_id.to_owned()).await {
        warn!(%user_id, %room_id, %error, "push rules could not be carried over");
    }
    if let Err(error) = app.account_data.carry_over(user_id, &old, room_id).await {
        warn!(%user_id, %room_id, %error, "account data could not be carried over");
    }
}

async fn predecessor(app: &App, user: &Login, room_id: &RoomId) -> Option<OwnedRoomId> {
    // Nobody is ignored when it comes to the state.
    let viewer = Viewer {
        user_id: user.user_id.clone(),
        device_id: user.device_id.clone(),
        ignored: Default::default(),
    };
    let create = app.room_reader.state_event(&viewer, room_id, ("m.room.create", ""), false).await.ok()?;
    let create: Create = serde_json::from_str(&create).ok()?;
    create.predecessor.map(|predecessor| predecessor.room_id)
}
