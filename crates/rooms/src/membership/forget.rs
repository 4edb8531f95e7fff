//! Forgetting rooms.

use myelin_storage::memberships;
use ruma::{RoomId, UserId, events::room::member::MembershipState};

use crate::{RoomError, Rooms};

impl Rooms {
    /// Forgets a room that the user has left or is banned from: it is in none of the user's lists any more
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#leaving-rooms)).
    ///
    /// # Errors
    /// [`RoomError::Forbidden`] if the user is still in the room, or invited; answer `M_UNKNOWN` (400).
    pub async fn forget(&self, user_id: &UserId, room_id: &RoomId) -> Result<(), RoomError> {
        let room = self.enter(room_id).await?;
        let is_out = matches!(room.membership(user_id), MembershipState::Leave | MembershipState::Ban);
        if !is_out {
            return Err(RoomError::Forbidden("you are still in this room".to_owned()));
        }
        // What is under way may be the very event by which the user left.
        room.quiet().await?;
        let [user_sid] = self.0.numbers.strings([user_id.as_str()]).await?;
        let client = self.0.database.get().await?;
        memberships::forget(&client, user_sid, room.nid.0).await?;
        Ok(())
    }
}
