//! What users take along into a room that replaces another
//! (<https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>): push rules, tags, the place in `m.direct`.

use myelin_accounts::Login;
use ruma::RoomId;
use tracing::warn;

use crate::App;

/// Carries the settings of a user who has come into a room over from the room that it replaces, if any. If that fails,
/// the user is in the room all the same.
pub(crate) async fn carry_over(app: &App, user: &Login, room_id: &RoomId) {
    // A room whose creation makes no sense replaces none.
    let Ok(Some(old)) = app.rooms.predecessor(room_id).await else { return };
    let user_id = &user.user_id;
    if let Err(error) = app.push_rules.carry_over(user_id, old.clone(), room_id.to_owned()).await {
        warn!(%user_id, %room_id, %error, "push rules could not be carried over");
    }
    if let Err(error) = app.account_data.carry_over(user_id, &old, room_id).await {
        warn!(%user_id, %room_id, %error, "account data could not be carried over");
    }
}
