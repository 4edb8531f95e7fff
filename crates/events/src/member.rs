//! What `m.room.member` events say.

use ruma::{
    OwnedUserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;

use crate::{Pdu, lenient::lenient};

/// The content of an [`m.room.member`](https://spec.matrix.org/v1.19/client-server-api/#mroommember) event. All but
/// `membership` is read leniently: what has the wrong type is absent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MemberContent {
    /// What the user is in the room.
    pub membership: MembershipState,
    /// The name that the user goes by in the room.
    #[serde(default, deserialize_with = "lenient")]
    pub displayname: Option<String>,
    /// The picture of the user in the room, an `mxc:` address.
    #[serde(default, deserialize_with = "lenient")]
    pub avatar_url: Option<String>,
    /// Why the membership changed.
    #[serde(default, deserialize_with = "lenient")]
    pub reason: Option<String>,
    /// Whether this invites to a direct chat.
    #[serde(default, deserialize_with = "lenient")]
    pub is_direct: Option<bool>,
    /// The member whose server vouches for a join into a restricted room.
    #[serde(default, deserialize_with = "lenient")]
    pub join_authorised_via_users_server: Option<OwnedUserId>,
}

impl MemberContent {
    /// Reads a member event; `None` if it is none, or has no membership.
    pub fn of(pdu: &Pdu) -> Option<Self> {
        if *pdu.event_type() != TimelineEventType::RoomMember || !pdu.is_state() {
            return None;
        }
        pdu.content_as().ok()
    }
}

/// The membership that a member event gives, or `leave` if there is none: how authorization and visibility count users
/// who were never in a room ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-membership)).
pub fn membership_of(event: Option<&Pdu>) -> MembershipState {
    #[derive(Deserialize)]
    struct Membership {
        membership: MembershipState,
    }
    event
        .filter(|event| *event.event_type() == TimelineEventType::RoomMember)
        .and_then(|event| event.content_as::<Membership>().ok())
        .map_or(MembershipState::Leave, |content| content.membership)
}

#[cfg(test)]
mod tests {
    use ruma::RoomVersionId;

    use super::*;
    use crate::test_events::pdu_with_content;

    #[test]
    fn fields_of_the_wrong_type_are_absent() {
        let content = r#"{"avatar_url":"mxc://x/y","displayname":5,"membership":"join"}"#;
        let event = pdu_with_content(&RoomVersionId::V11, "m.room.member", content);
        let member = MemberContent::of(&event).unwrap();
        assert_eq!(member.membership, MembershipState::Join);
        assert_eq!(member.displayname, None);
        assert_eq!(member.avatar_url.as_deref(), Some("mxc://x/y"));
    }

    #[test]
    fn without_a_membership_one_has_left() {
        for content in ["{}", r#"{"membership":5}"#] {
            let event = pdu_with_content(&RoomVersionId::V11, "m.room.member", content);
            assert_eq!(MemberContent::of(&event), None);
            assert_eq!(membership_of(Some(&event)), MembershipState::Leave);
        }
        assert_eq!(membership_of(None), MembershipState::Leave);
        let event = pdu_with_content(&RoomVersionId::V11, "m.room.topic", r#"{"membership":"join"}"#);
        assert_eq!(MemberContent::of(&event), None);
        assert_eq!(membership_of(Some(&event)), MembershipState::Leave);
    }
}
