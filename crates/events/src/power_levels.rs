//! The power levels of a room, read once and asked often.

use std::collections::{BTreeMap, HashSet};

use ruma::{
    Int, OwnedUserId, UserId,
    events::{TimelineEventType, room::power_levels::UserPowerLevel},
    int,
    state_res::events::{RoomCreateEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField},
};

use crate::{Pdu, Rules};

/// The level of a creator in a room without power levels, before room version 12.
const CREATOR_LEVEL: i32 = 100;

/// The [power levels](https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels) of a room, with its creators,
/// who stand above all levels from room version 12 on.
///
/// These answers are for checking requests early; what counts in the end is
/// [`auth`](crate::auth). Both read the levels by the same code, ruma's.
#[derive(Debug, Clone)]
pub struct PowerLevels {
    users: BTreeMap<OwnedUserId, Int>,
    users_default: Int,
    events: BTreeMap<TimelineEventType, Int>,
    events_default: Int,
    state_default: Int,
    invite: Int,
    redact: Int,
    notify_room: Int,
    creators: HashSet<OwnedUserId>,
    rules: Rules,
}

impl PowerLevels {
    /// The levels by the `m.room.create` and `m.room.power_levels` events of a state.
    ///
    /// A field that can't be read has its default. Authorization is stricter: it rejects what depends on it.
    pub fn new(create: &Pdu, power_levels: Option<&Pdu>) -> Self {
        let rules = create.rules();
        let authorization = &rules.authorization;
        let creators = RoomCreateEvent::new(create).creators(authorization).unwrap_or_default();
        let event = power_levels.map(RoomPowerLevelsEvent::new);
        let level = |field: RoomPowerLevelsIntField| {
            let stated =
                event.as_ref().and_then(|event| event.get_as_int(field, authorization).ok().flatten());
            stated.unwrap_or_else(|| field.default_value())
        };
        let users = match &event {
            Some(event) => event.users(authorization).ok().flatten().cloned().unwrap_or_default(),
            None => creators.iter().map(|creator| (creator.clone(), CREATOR_LEVEL.into())).collect(),
        };
        let events =
            event.as_ref().and_then(|event| event.events(authorization).ok().flatten()).unwrap_or_default();
        let notifications =
            event.as_ref().and_then(|event| event.notifications(authorization).ok().flatten());
        Self {
            users,
            users_default: level(RoomPowerLevelsIntField::UsersDefault),
            events,
            events_default: level(RoomPowerLevelsIntField::EventsDefault),
            state_default: level(RoomPowerLevelsIntField::StateDefault),
            invite: level(RoomPowerLevelsIntField::Invite),
            redact: level(RoomPowerLevelsIntField::Redact),
            notify_room: notifications.and_then(|levels| levels.get("room").copied()).unwrap_or(int!(50)),
            creators,
            rules,
        }
    }

    /// The creators of the room; in room version 12 with those that `additional_creators` names.
    pub fn creators(&self) -> &HashSet<OwnedUserId> {
        &self.creators
    }

    /// The level of a user, member or not.
    pub(crate) fn of_user(&self, user_id: &UserId) -> UserPowerLevel {
        if self.rules.authorization.explicitly_privilege_room_creators && self.creators.contains(user_id) {
            return UserPowerLevel::Infinite;
        }
        UserPowerLevel::Int(self.users.get(user_id).copied().unwrap_or(self.users_default))
    }

    /// The level that sending an event of this type takes.
    fn for_event(&self, event_type: &TimelineEventType, is_state: bool) -> Int {
        let default = if is_state { self.state_default } else { self.events_default };
        self.events.get(event_type).copied().unwrap_or(default)
    }

    /// Whether a member has the power to send events of this type.
    pub fn can_send(&self, user_id: &UserId, event_type: &TimelineEventType, is_state: bool) -> bool {
        self.of_user(user_id) >= self.for_event(event_type, is_state)
    }

    /// Whether a member has the power to invite.
    pub(crate) fn can_invite(&self, user_id: &UserId) -> bool {
        self.of_user(user_id) >= self.invite
    }

    /// Whether a member has the power to redact events of others.
    pub fn can_redact_others(&self, user_id: &UserId) -> bool {
        self.of_user(user_id) >= self.redact
    }

    /// Whether a redaction [takes effect](https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions) on an event:
    /// its sender has the power, or both senders are of one server.
    ///
    /// The levels are those of the state before the redaction.
    pub fn redaction_applies(&self, redaction: &Pdu, target: &Pdu) -> bool {
        redaction.room_id() == target.room_id()
            && redaction.redacts() == Some(target.event_id())
            && *target.event_type() != TimelineEventType::RoomCreate
            && (redaction.origin() == target.origin() || self.can_redact_others(redaction.sender()))
    }

    /// Whether a member has the power to notify the whole room
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels)) (`notifications.room`).
    pub fn can_notify_room(&self, user_id: &UserId) -> bool {
        self.of_user(user_id) >= self.notify_room
    }
}

#[cfg(test)]
mod tests {
    use ruma::RoomVersionId;
    use serde_json::json;

    use super::*;
    use crate::{
        EventTemplate,
        test_events::{ALICE, BOB, CAROL, TestRoom, pdu_with_content, raw, user},
    };

    fn levels(version: &RoomVersionId, create: &str, power_levels: Option<&str>) -> PowerLevels {
        let create = pdu_with_content(version, "m.room.create", create);
        let power_levels =
            power_levels.map(|content| pdu_with_content(version, "m.room.power_levels", content));
        PowerLevels::new(&create, power_levels.as_ref())
    }

    #[test]
    fn users_have_their_level_or_the_default() {
        let levels =
            levels(&RoomVersionId::V11, "{}", Some(r#"{"users":{"@bob:two.test":50},"users_default":7}"#));
        assert_eq!(levels.of_user(&user(BOB)), UserPowerLevel::Int(int!(50)));
        assert_eq!(levels.of_user(&user(ALICE)), UserPowerLevel::Int(int!(7)));
    }

    #[test]
    fn creators_stand_above_all_levels_since_room_version_12() {
        let create = r#"{"additional_creators":["@carol:one.test"],"creator":"@alice:one.test"}"#;
        let new =
            levels(&RoomVersionId::V12, create, Some(r#"{"users":{"@bob:two.test":9007199254740991}}"#));
        assert_eq!(new.of_user(&user(ALICE)), UserPowerLevel::Infinite);
        assert_eq!(new.of_user(&user(CAROL)), UserPowerLevel::Infinite);
        assert_eq!(new.of_user(&user(BOB)), UserPowerLevel::Int(Int::MAX));
        let old = levels(&RoomVersionId::V11, create, Some("{}"));
        assert_eq!(old.of_user(&user(ALICE)), UserPowerLevel::Int(int!(0)));
        let without = levels(&RoomVersionId::V10, create, None);
        assert_eq!(without.of_user(&user(ALICE)), UserPowerLevel::Int(int!(100)));
        assert_eq!(without.of_user(&user(CAROL)), UserPowerLevel::Int(int!(0)));
    }

    #[test]
    fn what_a_level_allows() {
        let content = r#"{"events":{"m.room.name":30},"invite":20,"notifications":{"room":20},"redact":"50","users":{"@alice:one.test":60,"@carol:one.test":40}}"#;
        let levels = levels(&RoomVersionId::V9, r#"{"creator":"@alice:one.test"}"#, Some(content));
        let (alice, bob, carol) = (user(ALICE), user(BOB), user(CAROL));
        assert!(levels.can_invite(&carol) && !levels.can_invite(&bob));
        assert!(levels.can_redact_others(&alice) && !levels.can_redact_others(&carol));
        assert!(levels.can_notify_room(&carol) && !levels.can_notify_room(&bob));
        let (name, topic) = (TimelineEventType::RoomName, TimelineEventType::RoomTopic);
        assert!(levels.can_send(&carol, &name, true) && !levels.can_send(&carol, &topic, true));
        assert!(levels.can_send(&bob, &topic, false));
    }

    #[test]
    fn a_room_without_levels_has_the_defaults() {
        let levels = levels(&RoomVersionId::V11, "{}", None);
        let (alice, bob) = (user(ALICE), user(BOB));
        assert!(levels.can_send(&bob, &TimelineEventType::RoomMessage, false) && levels.can_invite(&bob));
        assert!(
            !levels.can_send(&bob, &TimelineEventType::RoomTopic, true) && !levels.can_redact_others(&bob)
        );
        assert!(levels.can_send(&alice, &TimelineEventType::RoomTopic, true));
    }

    #[test]
    fn floats_are_truncated_in_old_rooms() {
        // Such an event can't be built here, only received.
        let pdu = pdu_with_content(&RoomVersionId::V3, "m.room.power_levels", r#"{"redact":50}"#);
        let odd = Pdu::parse(&pdu.json().replace("50", "71.9"), pdu.rules()).unwrap();
        let create = pdu_with_content(&RoomVersionId::V3, "m.room.create", "{}");
        assert_eq!(PowerLevels::new(&create, Some(&odd)).redact, int!(71));
    }

    #[test]
    fn a_redaction_needs_the_power_or_the_same_server() {
        let (mut room, mut fork) = TestRoom::new(&RoomVersionId::V11);
        let create =
            room.fetch()(&room.lookup(&fork.state)(&"m.room.create".into(), "").unwrap().event_id().clone());
        let levels = PowerLevels::new(&create.unwrap(), None);
        room.member(&mut fork, BOB, BOB, "join");
        room.member(&mut fork, CAROL, CAROL, "join");
        let target = room.message(&mut fork, CAROL, "hello");
        let other = room.state(&mut fork, CAROL, "m.room.topic", "", json!({"topic": "a"}));
        let redaction = |sender| {
            room.build(&fork, EventTemplate::redaction(user(sender), target.event_id().clone(), raw("{}")))
        };
        assert!(levels.redaction_applies(&redaction(ALICE), &target));
        assert!(levels.redaction_applies(&redaction(CAROL), &target));
        assert!(!levels.redaction_applies(&redaction(BOB), &target));
        assert!(!levels.redaction_applies(&redaction(ALICE), &other));
    }
}
