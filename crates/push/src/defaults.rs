//! The server's default rules ([spec](https://spec.matrix.org/v1.19/client-server-api/#predefined-rules)).

use ruma::{
    UserId,
    power_levels::NotificationPowerLevelsKey,
    push::{
        Action, ConditionalPushRule, ConditionalPushRuleInit, EventMatchConditionData, HighlightTweakValue,
        PatternedPushRuleInit, PushCondition, Ruleset, SenderNotificationPermissionConditionData,
        SoundTweakValue, Tweak,
    },
};

/// Rules for clients that don't say whom a message mentions. Version 1.17 of the specification took them away, but
/// such clients are still about, and the rules don't apply where `m.mentions` is given.
pub(crate) const CONTAINS_DISPLAY_NAME: &str = ".m.rule.contains_display_name";
pub(crate) const CONTAINS_USER_NAME: &str = ".m.rule.contains_user_name";
pub(crate) const ROOM_NOTIF: &str = ".m.rule.roomnotif";

pub(crate) const INVITE_FOR_ME: &str = ".m.rule.invite_for_me";
pub(crate) const IS_USER_MENTION: &str = ".m.rule.is_user_mention";
const IS_ROOM_MENTION: &str = ".m.rule.is_room_mention";

/// The rules that a user has who changed nothing.
pub(crate) fn ruleset(user_id: &UserId) -> Ruleset {
    let mut rules = Ruleset::server_default(user_id);
    // Rules on subscribed threads are for servers that have subscriptions.
    rules.postcontent.clear();
    let mut overrides = Vec::with_capacity(rules.override_.len() + 2);
    for rule in std::mem::take(&mut rules.override_) {
        let (is_user_mention, is_room_mention) =
            (rule.rule_id == IS_USER_MENTION, rule.rule_id == IS_ROOM_MENTION);
        overrides.push(rule);
        if is_user_mention {
            overrides.push(contains_display_name());
        }
        if is_room_mention {
            overrides.push(room_notif());
        }
    }
    rules.override_ = overrides.into_iter().collect();
    let contains_user_name = PatternedPushRuleInit {
        actions: mention(true),
        default: true,
        enabled: true,
        rule_id: CONTAINS_USER_NAME.to_owned(),
        pattern: user_id.localpart().to_owned(),
    };
    rules.content.insert(contains_user_name.into());
    rules
}

#[expect(deprecated, reason = "the rule is for clients that are older than the deprecation")]
fn contains_display_name() -> ConditionalPushRule {
    ConditionalPushRuleInit {
        actions: mention(true),
        default: true,
        enabled: true,
        rule_id: CONTAINS_DISPLAY_NAME.to_owned(),
        conditions: vec![PushCondition::ContainsDisplayName],
    }
    .into()
}

fn room_notif() -> ConditionalPushRule {
    ConditionalPushRuleInit {
        actions: mention(false),
        default: true,
        enabled: true,
        rule_id: ROOM_NOTIF.to_owned(),
        conditions: vec![
            EventMatchConditionData::new("content.body".to_owned(), "@room".to_owned()).into(),
            SenderNotificationPermissionConditionData::new(NotificationPowerLevelsKey::Room).into(),
        ],
    }
    .into()
}

fn mention(with_sound: bool) -> Vec<Action> {
    let highlight = Action::SetTweak(Tweak::Highlight(HighlightTweakValue::Yes));
    let sound = Action::SetTweak(Tweak::Sound(SoundTweakValue::Default));
    if with_sound { vec![Action::Notify, sound, highlight] } else { vec![Action::Notify, highlight] }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn the_default_rules_come_in_the_order_of_the_specification_with_the_older_ones_between() {
        let rules = ruleset(user_id!("@alice:x"));
        let ids = |rules: Vec<&str>| rules.join(" ").replace(".m.rule.", "");
        assert_eq!(
            ids(rules.override_.iter().map(|rule| rule.rule_id.as_str()).collect()),
            "master suppress_notices invite_for_me member_event is_user_mention contains_display_name \
             is_room_mention roomnotif tombstone reaction room.server_acl suppress_edits"
        );
        assert_eq!(
            ids(rules.content.iter().map(|rule| rule.rule_id.as_str()).collect()),
            "contains_user_name"
        );
        assert_eq!(
            ids(rules.underride.iter().map(|rule| rule.rule_id.as_str()).collect()),
            "call encrypted_room_one_to_one room_one_to_one message encrypted"
        );
        assert!(rules.room.is_empty() && rules.sender.is_empty() && rules.postcontent.is_empty());
    }
}
