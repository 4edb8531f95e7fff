//! Memberships ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-membership)): who joins, invites, leaves,
//! is removed.

use myelin_events::{EventTemplate, member::MemberContent};
use myelin_storage::memberships;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde_json::{Map, Value, value::RawValue};

use crate::{MemberProfile, RoomError, Rooms, resident::Draft, rooms::InRoom};

mod forget;
mod profile;

pub use self::profile::ProfileUpdate;
mod restricted;

use restricted::authorise_join;

/// What is to become of a membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipAction {
    /// The sender joins.
    Join,
    /// The sender invites the target.
    Invite,
    /// The sender leaves, or rejects an invite, or takes a knock back.
    Leave,
    /// The sender removes the target, who is in the room, invited or knocking.
    Kick,
    /// The sender bans the target.
    Ban,
    /// The sender lifts the target's ban.
    Unban,
    /// [`Kick`](Self::Kick) or [`Unban`](Self::Unban), whatever the target is: a member event that says `leave`.
    KickOrUnban,
    /// The sender asks to be let in.
    Knock,
}

impl MembershipAction {
    fn membership(self) -> MembershipState {
        match self {
            Self::Join => MembershipState::Join,
            Self::Invite => MembershipState::Invite,
            Self::Leave | Self::Kick | Self::Unban | Self::KickOrUnban => MembershipState::Leave,
            Self::Ban => MembershipState::Ban,
            Self::Knock => MembershipState::Knock,
        }
    }

    /// Whether the member event shows the target's profile.
    fn shows_profile(self) -> bool {
        matches!(self, Self::Join | Self::Invite | Self::Knock)
    }
}

/// A change of a membership that a local user asks for.
#[derive(Clone, Debug)]
pub struct ChangeMembership {
    /// The local user who asks.
    pub sender: OwnedUserId,
    /// The user whose membership changes; the sender for joining, leaving and knocking.
    pub target: OwnedUserId,
    /// The room.
    pub room_id: OwnedRoomId,
    /// What is to become of it.
    pub action: MembershipAction,
    /// Why.
    pub reason: Option<String>,
    /// What else the content says (`is_direct`, `third_party_invite`, a name for this room alone, …); it comes before
    /// the profile.
    pub content: Map<String, Value>,
    /// The user who asks is a guest.
    pub is_guest: bool,
    /// The user's device.
    pub device_id: Option<OwnedDeviceId>,
    /// When it was sent, where an application service may say so; else now.
    pub timestamp: Option<MilliSecondsSinceUnixEpoch>,
}

impl ChangeMembership {
    /// A change of the sender's own membership; set [`target`](Self::target) for that of another.
    pub fn new(sender: OwnedUserId, room_id: OwnedRoomId, action: MembershipAction) -> Self {
        Self {
            target: sender.clone(),
            sender,
            room_id,
            action,
            reason: None,
            content: Map::new(),
            is_guest: false,
            device_id: None,
            timestamp: None,
        }
    }
}

impl Rooms {
    /// Changes a membership and gives the id of the member event, once it is committed. To join a room that one is in
    /// already gives the event by which one is, and to say again what one has said of a membership gives the event by which one
    /// did: a request may come twice.
    ///
    /// # Errors
    /// See [`RoomError`]. [`RoomError::UnknownRoom`] if no user of this server was ever in the room: joining it through
    /// another server is another matter.
    pub async fn change_membership(&self, request: ChangeMembership) -> Result<OwnedEventId, RoomError> {
        let is_local = |user: &UserId| user.server_name() == self.server_name();
        if request.action == MembershipAction::Invite && !is_local(&request.target) {
            return Err(RoomError::RemoteUser(request.target));
        }
        let profile = match request.action.shows_profile() {
            true => self.0.profiles.profile(&request.target).await,
            false => MemberProfile::default(),
        };
        // Looked up before the turn at this room, since it takes looking at others.
        let joined_rooms = self.rooms_for_restricted_join(&request).await?;
        let content = content(&request, &profile);
        let mut draft = self.draft_member(&request, &content).await?;
        let room = self.enter(&request.room_id).await?;
        if room.is_blocked && request.action != MembershipAction::Leave {
            return Err(RoomError::Blocked);
        }
        if let Some(event_id) = said_already(&room, &request, &content) {
            room.already(event_id.clone()).await?;
            self.forget_if_left(&request).await?;
            return Ok(event_id);
        }
        check_target(&room, &request)?;
        if request.action == MembershipAction::Join {
            if let Some(event_id) = joined_already(&room, &request, &content) {
                return room.already(event_id).await;
            }
            check_guest(&room, &request)?;
            if let Some(authoriser) = authorise_join(&room, &request, &joined_rooms)? {
                let mut content = content;
                let field = "join_authorised_via_users_server".to_owned();
                content.insert(field, authoriser.as_str().into());
                draft.template.content = raw(content)?;
            }
        }
        let event_id = self.send_even_if_blocked(room, draft, None, None).await?;
        self.forget_if_left(&request).await?;
        Ok(event_id)
    }

    async fn forget_if_left(&self, request: &ChangeMembership) -> Result<(), RoomError> {
        if request.action == MembershipAction::Leave && self.0.options.forget_on_leave {
            self.forget(&request.sender, &request.room_id).await?;
        }
        Ok(())
    }

    async fn draft_member(
        &self,
        request: &ChangeMembership,
        content: &Map<String, Value>,
    ) -> Result<Draft, RoomError> {
        let template = EventTemplate::state(
            request.sender.clone(),
            TimelineEventType::RoomMember,
            request.target.as_str(),
            raw(content.clone())?,
        );
        let mut draft = Draft::new(&self.0, template).await?;
        draft.timestamp = request.timestamp;
        Ok(draft)
    }

    /// The rooms that a user of this server is in.
    pub(crate) async fn list_joined_rooms(&self, user_id: &UserId) -> Result<Vec<OwnedRoomId>, RoomError> {
        const JOIN: i16 = 1;
        let [user_sid] = self.0.numbers.strings([user_id.as_str()]).await?;
        let client = self.0.database.get().await?;
        let rooms = memberships::list_rooms_with_membership(&client, user_sid, JOIN).await?;
        Ok(rooms.iter().filter_map(|room_id| RoomId::parse(room_id).ok()).collect())
    }
}

pub(crate) fn raw(content: Map<String, Value>) -> Result<Box<RawValue>, RoomError> {
    serde_json::value::to_raw_value(&content).map_err(|error| RoomError::BadJson(error.to_string()))
}

/// The content of the member event.
pub(crate) fn content(request: &ChangeMembership, profile: &MemberProfile) -> Map<String, Value> {
    let mut content = request.content.clone();
    let mut add = |field: &str, value: Option<&String>| {
        if let Some(value) = value {
            content.entry(field).or_insert_with(|| value.as_str().into());
        }
    };
    add("displayname", profile.displayname.as_ref());
    add("avatar_url", profile.avatar_url.as_ref());
    add("reason", request.reason.as_ref());
    content.insert("membership".to_owned(), request.action.membership().as_str().into());
    // Only the server says who vouches for a join.
    content.remove("join_authorised_via_users_server");
    content
}

/// Checks that the target is what the action takes: the rules can't tell a kick from an unban.
fn check_target(room: &InRoom, request: &ChangeMembership) -> Result<(), RoomError> {
    use MembershipState::{Ban, Invite, Join, Knock};
    let membership = room.membership(&request.target);
    let forbidden = |message: &str| Err(RoomError::Forbidden(message.to_owned()));
    match (request.action, membership) {
        (MembershipAction::Kick, Join | Invite | Knock) | (MembershipAction::Unban, Ban) => Ok(()),
        (MembershipAction::Kick, Ban) => forbidden("the user is banned from the room"),
        (MembershipAction::Kick, _) => forbidden("the user is not in the room"),
        (MembershipAction::Unban, _) => forbidden("the user is not banned"),
        (MembershipAction::Join | MembershipAction::Knock | MembershipAction::Invite, Ban) => {
            Err(RoomError::Banned(request.target.clone()))
        }
        (MembershipAction::Invite, Join) => forbidden("the user is in the room already"),
        _ => Ok(()),
    }
}

/// The member event that the sender has sent, if it is the last one and says just what is to be said.
fn said_already(
    room: &InRoom,
    request: &ChangeMembership,
    content: &Map<String, Value>,
) -> Option<OwnedEventId> {
    let event = room.pdu(&StateEventType::RoomMember, request.target.as_str())?;
    let is_same = *event.sender() == *request.sender
        && event.content_as::<Map<String, Value>>().is_ok_and(|said| said == *content);
    is_same.then(|| event.event_id().clone())
}

/// The event by which the user is in the room, if joining would say nothing new.
fn joined_already(
    room: &InRoom,
    request: &ChangeMembership,
    content: &Map<String, Value>,
) -> Option<OwnedEventId> {
    let event = room.pdu(&StateEventType::RoomMember, request.target.as_str())?;
    let now = MemberContent::of(event).filter(|now| now.membership == MembershipState::Join)?;
    let text = |field: &str| content.get(field).and_then(Value::as_str);
    let is_same = text("displayname") == now.displayname.as_deref()
        && text("avatar_url") == now.avatar_url.as_deref()
        && request.content.is_empty();
    is_same.then(|| event.event_id().clone())
}

/// Guests come in only where the room lets them ([spec](https://spec.matrix.org/v1.19/client-server-api/#guest-access)).
fn check_guest(room: &InRoom, request: &ChangeMembership) -> Result<(), RoomError> {
    #[derive(serde::Deserialize)]
    struct GuestAccess {
        guest_access: String,
    }
    let event = room.pdu(&StateEventType::RoomGuestAccess, "");
    let access = event.and_then(|event| event.content_as::<GuestAccess>().ok());
    match !request.is_guest || access.is_some_and(|access| access.guest_access == "can_join") {
        true => Ok(()),
        false => Err(RoomError::GuestsForbidden),
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, owned_user_id};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_content_is_the_request_then_the_profile_and_the_membership_is_the_action() {
        let mut request =
            ChangeMembership::new(owned_user_id!("@me:x"), owned_room_id!("!r:x"), MembershipAction::Invite);
        let profile =
            MemberProfile { displayname: Some("Me".to_owned()), avatar_url: Some("mxc://x/y".to_owned()) };
        let expected = json!({ "membership": "invite", "displayname": "Me", "avatar_url": "mxc://x/y" });
        assert_eq!(Value::from(content(&request, &profile)), expected);
        let said = json!({
            "membership": "join",
            "displayname": "Me here",
            "is_direct": true,
            "join_authorised_via_users_server": "@me:x",
        });
        request.content = said.as_object().unwrap().clone();
        request.reason = Some("because".to_owned());
        let expected = json!({
            "membership": "invite",
            "displayname": "Me here",
            "avatar_url": "mxc://x/y",
            "is_direct": true,
            "reason": "because",
        });
        assert_eq!(Value::from(content(&request, &profile)), expected);
    }
}
