//! Who may see an event ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility)): a pure
//! function of the state at the event.

use ruma::{
    UserId,
    events::{
        TimelineEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
};
use serde::Deserialize;

use crate::{Pdu, lenient::lenient, member::membership_of};

/// The `history_visibility` that the state of a room says, given its `m.room.history_visibility` event: `shared` if
/// there is none, or one that isn't understood.
pub fn history_visibility(event: Option<&Pdu>) -> HistoryVisibility {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Content {
        #[serde(deserialize_with = "lenient")]
        history_visibility: Option<HistoryVisibility>,
    }
    let content: Content = event.and_then(|event| event.content_as().ok()).unwrap_or_default();
    match content.history_visibility {
        Some(
            known @ (HistoryVisibility::WorldReadable
            | HistoryVisibility::Invited
            | HistoryVisibility::Joined),
        ) => known,
        _ => HistoryVisibility::Shared,
    }
}

/// What decides whether a user may see an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewpoint {
    /// The history visibility in the state before the event.
    pub history_visibility: HistoryVisibility,
    /// The user's membership in the state before the event; `leave` for one who was never in the room.
    pub membership: MembershipState,
    /// Whether the user joined the room after the event; true for one who is in it now.
    pub joined_after: bool,
}

impl Viewpoint {
    /// Whether the user may see this event.
    ///
    /// Changes of the history visibility, and of the user's own membership, count for the event that makes them in
    /// both ways: before and after.
    pub fn may_see(&self, user_id: &UserId, event: &Pdu) -> bool {
        if self.allows() {
            return true;
        }
        match (event.event_type(), event.state_key()) {
            (TimelineEventType::RoomHistoryVisibility, Some("")) => {
                Self { history_visibility: history_visibility(Some(event)), ..self.clone() }.allows()
            }
            (TimelineEventType::RoomMember, Some(target)) if target == user_id => {
                let membership = membership_of(Some(event));
                Self { membership, ..self.clone() }.allows()
            }
            _ => false,
        }
    }

    /// Whether the user may see an event that changes neither of the two.
    pub fn allows(&self) -> bool {
        match (&self.history_visibility, &self.membership) {
            (HistoryVisibility::WorldReadable, _) | (_, MembershipState::Join) => true,
            (HistoryVisibility::Invited, MembershipState::Invite) => true,
            (HistoryVisibility::Shared, _) => self.joined_after,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use HistoryVisibility::{Invited, Joined, Shared, WorldReadable};
    use MembershipState::{Ban, Invite, Join, Leave};
    use ruma::RoomVersionId;
    use serde_json::json;

    use super::*;
    use crate::test_events::{ALICE, BOB, TestRoom, pdu_with_content, user};

    fn at(
        history_visibility: HistoryVisibility,
        membership: MembershipState,
        joined_after: bool,
    ) -> Viewpoint {
        Viewpoint { history_visibility, membership, joined_after }
    }

    #[test]
    fn a_message_is_seen_as_the_specification_says() {
        let message = pdu_with_content(&RoomVersionId::V11, "m.room.message", "{}");
        for (visibility, membership, joined_after, expected) in [
            (WorldReadable, Leave, false, true),
            (WorldReadable, Ban, false, true),
            (Shared, Join, false, true),
            (Shared, Leave, true, true),
            (Shared, Leave, false, false),
            (Shared, Invite, false, false),
            (Invited, Invite, false, true),
            (Invited, Leave, true, false),
            (Invited, Join, false, true),
            (Joined, Join, false, true),
            (Joined, Invite, true, false),
            (Joined, Ban, true, false),
        ] {
            let view = at(visibility, membership, joined_after);
            assert_eq!(view.may_see(&user(BOB), &message), expected, "{view:?}");
        }
    }

    #[test]
    fn a_change_of_visibility_is_seen_by_those_who_may_see_either_side() {
        let opening = pdu_with_content(
            &RoomVersionId::V11,
            "m.room.history_visibility",
            r#"{"history_visibility":"world_readable"}"#,
        );
        let closing = pdu_with_content(
            &RoomVersionId::V11,
            "m.room.history_visibility",
            r#"{"history_visibility":"joined"}"#,
        );
        assert!(at(Joined, Leave, false).may_see(&user(BOB), &opening));
        assert!(at(WorldReadable, Leave, false).may_see(&user(BOB), &closing));
        assert!(!at(Joined, Leave, false).may_see(&user(BOB), &closing));
    }

    #[test]
    fn users_see_their_own_comings_and_goings() {
        let (room, fork) = TestRoom::new(&RoomVersionId::V11);
        let member = |target, membership| {
            room.build(
                &fork,
                TestRoom::template(ALICE, "m.room.member", Some(target), &json!({"membership": membership})),
            )
        };
        assert!(at(Joined, Leave, false).may_see(&user(BOB), &member(BOB, "join")));
        assert!(at(Joined, Join, false).may_see(&user(BOB), &member(BOB, "ban")));
        assert!(at(Invited, Leave, false).may_see(&user(BOB), &member(BOB, "invite")));
        assert!(!at(Joined, Leave, false).may_see(&user(BOB), &member(ALICE, "join")));
        assert!(!at(Joined, Leave, false).may_see(&user(BOB), &member(BOB, "invite")));
    }

    #[test]
    fn what_is_not_understood_is_shared() {
        for content in ["{}", r#"{"history_visibility":5}"#, r#"{"history_visibility":"secret"}"#] {
            let event = pdu_with_content(&RoomVersionId::V11, "m.room.history_visibility", content);
            assert_eq!(history_visibility(Some(&event)), Shared);
        }
        assert_eq!(history_visibility(None), Shared);
        let event = pdu_with_content(
            &RoomVersionId::V11,
            "m.room.history_visibility",
            r#"{"history_visibility":"invited"}"#,
        );
        assert_eq!(history_visibility(Some(&event)), Invited);
    }
}
