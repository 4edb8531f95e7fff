//! What `m.room.join_rules` says, and who may vouch for a join into a restricted room.

use ruma::{OwnedRoomId, UserId, room::JoinRuleKind};
use serde::Deserialize;

use crate::{
    Pdu, Rules,
    lenient::{lenient, lenient_list},
    power_levels::PowerLevels,
};

/// The [join rules](https://spec.matrix.org/v1.19/client-server-api/#mroomjoin_rules) of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRules {
    /// The rule.
    pub rule: JoinRuleKind,
    /// For restricted rooms: the rooms whose members may join.
    pub allow: Vec<OwnedRoomId>,
}

impl JoinRules {
    /// The rules in this state event; without one (that can be read) people must be invited.
    pub fn of(event: Option<&Pdu>) -> Self {
        let content: Content = event.and_then(|event| event.content_as().ok()).unwrap_or_default();
        let allow = content.allow.into_iter().filter(|condition| condition.kind == "m.room_membership");
        Self {
            rule: content.join_rule.unwrap_or(JoinRuleKind::Invite),
            allow: allow.filter_map(|condition| condition.room_id).collect(),
        }
    }

    /// Whether members of the rooms in [`allow`](Self::allow) may
    /// [join](https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms) in this room version.
    pub fn is_restricted(&self, rules: Rules) -> bool {
        match self.rule {
            JoinRuleKind::Restricted => rules.authorization.restricted_join_rule,
            JoinRuleKind::KnockRestricted => rules.authorization.knock_restricted_join_rule,
            _ => false,
        }
    }

    /// Whether people may [knock](https://spec.matrix.org/v1.19/client-server-api/#knocking-on-rooms) in this room
    /// version.
    pub fn allows_knocking(&self, rules: Rules) -> bool {
        match self.rule {
            JoinRuleKind::Knock => rules.authorization.knocking,
            JoinRuleKind::KnockRestricted => rules.authorization.knock_restricted_join_rule,
            _ => false,
        }
    }
}

/// The member to name in `join_authorised_via_users_server`: of `members` (the joined members of our server), one who
/// may invite, those with the most power first. `None`: another server must be asked
/// ([spec](https://spec.matrix.org/v1.19/server-server-api/#restricted-rooms)).
pub fn authorising_user<'a>(
    members: impl IntoIterator<Item = &'a UserId>,
    levels: &PowerLevels,
) -> Option<&'a UserId> {
    members
        .into_iter()
        .filter(|user| levels.can_invite(user))
        .max_by(|a, b| levels.of_user(a).cmp(&levels.of_user(b)).then_with(|| b.cmp(a)))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Content {
    #[serde(deserialize_with = "lenient")]
    join_rule: Option<JoinRuleKind>,
    #[serde(deserialize_with = "lenient_list")]
    allow: Vec<AllowCondition>,
}

#[derive(Deserialize)]
struct AllowCondition {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "lenient")]
    room_id: Option<OwnedRoomId>,
}

#[cfg(test)]
mod tests {
    use ruma::RoomVersionId;

    use super::*;
    use crate::{rules, test_events::pdu_with_content};

    fn join_rules(content: &str) -> JoinRules {
        JoinRules::of(Some(&pdu_with_content(&RoomVersionId::V11, "m.room.join_rules", content)))
    }

    #[test]
    fn the_allowed_rooms_are_read() {
        let parsed = join_rules(
            r#"{"allow":[{"room_id":"!a:x","type":"m.room_membership"},{"room_id":"!b:x","type":"other"},5,{"type":"m.room_membership"}],"join_rule":"restricted"}"#,
        );
        assert_eq!(parsed.rule, JoinRuleKind::Restricted);
        assert_eq!(parsed.allow, ["!a:x"]);
    }

    #[test]
    fn without_rules_one_must_be_invited() {
        assert_eq!(JoinRules::of(None).rule, JoinRuleKind::Invite);
        assert_eq!(join_rules(r#"{"join_rule":5}"#).rule, JoinRuleKind::Invite);
    }

    #[test]
    fn rules_have_an_effect_from_their_room_version_on() {
        let in_version = |version| rules(&version).unwrap();
        let restricted = join_rules(r#"{"join_rule":"restricted"}"#);
        assert!(!restricted.is_restricted(in_version(RoomVersionId::V7)));
        assert!(restricted.is_restricted(in_version(RoomVersionId::V8)));
        assert!(!restricted.allows_knocking(in_version(RoomVersionId::V8)));
        let knock = join_rules(r#"{"join_rule":"knock"}"#);
        assert!(!knock.allows_knocking(in_version(RoomVersionId::V6)));
        assert!(knock.allows_knocking(in_version(RoomVersionId::V7)));
        let both = join_rules(r#"{"join_rule":"knock_restricted"}"#);
        assert!(!both.is_restricted(in_version(RoomVersionId::V9)));
        assert!(
            both.is_restricted(in_version(RoomVersionId::V10))
                && both.allows_knocking(in_version(RoomVersionId::V10))
        );
    }
}
