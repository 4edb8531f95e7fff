//! Joining rooms that are open to the members of other rooms
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms)).

use myelin_events::{JoinRules, join_rules::authorising_user};
use ruma::{
    OwnedRoomId, OwnedUserId,
    events::{StateEventType, room::member::MembershipState},
};

use super::{ChangeMembership, MembershipAction};
use crate::{RoomError, Rooms, resident::Resident};

impl Rooms {
    /// The rooms that count for a join into a restricted room: those that the user is in. Nothing for other rooms.
    pub(super) async fn rooms_for_restricted_join(
        &self,
        request: &ChangeMembership,
    ) -> Result<Vec<OwnedRoomId>, RoomError> {
        if request.action != MembershipAction::Join {
            return Ok(Vec::new());
        }
        let room = self.enter(&request.room_id).await?;
        let needs_rooms = restricted(&room, request).is_some();
        drop(room);
        match needs_rooms {
            true => self.list_joined_rooms(&request.target).await,
            false => Ok(Vec::new()),
        }
    }
}

/// The join rules, if they restrict this join.
fn restricted(room: &Resident, request: &ChangeMembership) -> Option<JoinRules> {
    let rules = JoinRules::of(room.pdu(&StateEventType::RoomJoinRules, "").map(|event| &**event));
    let is_expected =
        matches!(room.membership(&request.target), MembershipState::Join | MembershipState::Invite);
    (rules.is_restricted(room.rules) && !is_expected).then_some(rules)
}

/// The member who vouches for a join, where the room wants one.
pub(super) fn authorise_join(
    room: &Resident,
    request: &ChangeMembership,
    joined_rooms: &[OwnedRoomId],
) -> Result<Option<OwnedUserId>, RoomError> {
    let Some(rules) = restricted(room, request) else { return Ok(None) };
    if !rules.allow.iter().any(|allowed| joined_rooms.contains(allowed)) {
        return Err(RoomError::Forbidden("you are in none of the rooms whose members may join".to_owned()));
    }
    let members = room.audience.members();
    let authoriser = authorising_user(members, room.power_levels()?);
    authoriser.map(|user| Some(user.to_owned())).ok_or(RoomError::UnableToAuthoriseJoin)
}
