//! Rules in the form in which they are evaluated.

use std::sync::LazyLock;

use ruma::{
    OwnedRoomId, OwnedUserId,
    power_levels::NotificationPowerLevelsKey,
    push::{Action, PushCondition, RoomMemberCountIs, Ruleset, ScalarJsonValue},
    user_id,
};
use serde_json::Value;

use crate::{
    PushBits,
    defaults::{self, CONTAINS_DISPLAY_NAME, CONTAINS_USER_NAME, INVITE_FOR_ME, IS_USER_MENTION, ROOM_NOTIF},
    event::{EventView, Property, PropertyPath},
    pattern::Pattern,
};

/// A user's enabled rules, in the order in which they are asked.
#[derive(Debug)]
pub(crate) struct CompiledRules(pub Box<[CompiledRule]>);

#[derive(Debug)]
pub(crate) struct CompiledRule {
    pub matcher: Matcher,
    pub bits: PushBits,
}

/// What a rule asks for.
#[derive(Debug)]
pub(crate) enum Matcher {
    /// A default rule that is the same for everybody, by its number in [`COMMON`]: evaluated once per event.
    Common(usize),
    /// Default rules that ask about the user.
    InviteForMe,
    IsUserMention,
    ContainsDisplayName,
    ContainsUserName,
    Conditions(Box<[Condition]>),
    Words(Pattern),
    Room(OwnedRoomId),
    Sender(OwnedUserId),
}

#[derive(Debug)]
pub(crate) enum Condition {
    EventMatch(PropertyPath, Pattern),
    BodyMatch(Pattern),
    PropertyIs(PropertyPath, ScalarJsonValue),
    PropertyContains(PropertyPath, ScalarJsonValue),
    ContainsDisplayName,
    MemberCount(RoomMemberCountIs),
    SenderMayNotifyRoom,
    /// It is not known here: such a rule never matches.
    Never,
}

/// A default rule that is the same for everybody.
#[derive(Debug)]
pub(crate) struct CommonRule {
    rule_id: String,
    conditions: Box<[Condition]>,
}

/// The default rules that don't ask about the user.
pub(crate) static COMMON: LazyLock<Box<[CommonRule]>> = LazyLock::new(|| {
    // Whoever the user is: the rules that name the user are left out.
    let rules = defaults::ruleset(user_id!("@a:a"));
    let rules = rules.override_.iter().chain(&rules.underride);
    rules
        .filter(|rule| user_matcher(&rule.rule_id).is_none())
        .map(|rule| CommonRule { rule_id: rule.rule_id.clone(), conditions: conditions(&rule.conditions) })
        .collect()
});

/// The rules of everybody who changed nothing.
pub(crate) static DEFAULT: LazyLock<CompiledRules> =
    LazyLock::new(|| CompiledRules::new(&defaults::ruleset(user_id!("@a:a"))));

impl CompiledRules {
    pub fn new(ruleset: &Ruleset) -> Self {
        let conditional = |rule: &ruma::push::ConditionalPushRule| {
            let matcher = || match rule.default {
                true => default_matcher(&rule.rule_id),
                false => Some(Matcher::Conditions(conditions(&rule.conditions))),
            };
            compiled(rule.enabled, &rule.actions, matcher)
        };
        let content = |rule: &ruma::push::PatternedPushRule| {
            let matcher = || match rule.default {
                true => default_matcher(&rule.rule_id),
                false => Some(Matcher::Words(Pattern::new(&rule.pattern))),
            };
            compiled(rule.enabled, &rule.actions, matcher)
        };
        let room = |rule: &ruma::push::SimplePushRule<OwnedRoomId>| {
            compiled(rule.enabled, &rule.actions, || Some(Matcher::Room(rule.rule_id.clone())))
        };
        let sender = |rule: &ruma::push::SimplePushRule<OwnedUserId>| {
            compiled(rule.enabled, &rule.actions, || Some(Matcher::Sender(rule.rule_id.clone())))
        };
        let rules = (ruleset.override_.iter().filter_map(conditional))
            .chain(ruleset.content.iter().filter_map(content))
            .chain(ruleset.room.iter().filter_map(room))
            .chain(ruleset.sender.iter().filter_map(sender))
            .chain(ruleset.underride.iter().filter_map(conditional));
        Self(rules.collect())
    }
}

fn compiled(
    enabled: bool,
    actions: &[Action],
    matcher: impl FnOnce() -> Option<Matcher>,
) -> Option<CompiledRule> {
    if !enabled {
        return None;
    }
    Some(CompiledRule { matcher: matcher()?, bits: bits(actions) })
}

fn bits(actions: &[Action]) -> PushBits {
    if !actions.iter().any(Action::should_notify) {
        return PushBits::NONE;
    }
    if actions.iter().any(Action::is_highlight) { PushBits::HIGHLIGHT } else { PushBits::NOTIFY }
}

fn default_matcher(rule_id: &str) -> Option<Matcher> {
    let common = || COMMON.iter().position(|rule| rule.rule_id == rule_id).map(Matcher::Common);
    user_matcher(rule_id).or_else(common)
}

fn user_matcher(rule_id: &str) -> Option<Matcher> {
    match rule_id {
        INVITE_FOR_ME => Some(Matcher::InviteForMe),
        IS_USER_MENTION => Some(Matcher::IsUserMention),
        CONTAINS_DISPLAY_NAME => Some(Matcher::ContainsDisplayName),
        CONTAINS_USER_NAME => Some(Matcher::ContainsUserName),
        _ => None,
    }
}

fn conditions(conditions: &[PushCondition]) -> Box<[Condition]> {
    conditions.iter().map(condition).collect()
}

fn condition(condition: &PushCondition) -> Condition {
    match condition {
        PushCondition::EventMatch(data) if data.key == "content.body" => {
            Condition::BodyMatch(Pattern::new(&data.pattern))
        }
        PushCondition::EventMatch(data) => {
            Condition::EventMatch(PropertyPath::new(&data.key), Pattern::new(&data.pattern))
        }
        PushCondition::EventPropertyIs(data) => {
            Condition::PropertyIs(PropertyPath::new(&data.key), data.value.clone())
        }
        PushCondition::EventPropertyContains(data) => {
            Condition::PropertyContains(PropertyPath::new(&data.key), data.value.clone())
        }
        #[expect(deprecated, reason = "users have rules that are older than the deprecation")]
        PushCondition::ContainsDisplayName => Condition::ContainsDisplayName,
        PushCondition::RoomMemberCount(data) => Condition::MemberCount(data.is),
        PushCondition::SenderNotificationPermission(data) if data.key == NotificationPowerLevelsKey::Room => {
            Condition::SenderMayNotifyRoom
        }
        _ => Condition::Never,
    }
}

impl CommonRule {
    pub fn matches(&self, event: &EventView<'_>) -> bool {
        if self.rule_id == ROOM_NOTIF && event.has_mentions() {
            return false;
        }
        self.conditions.iter().all(|condition| condition.matches(event, || false))
    }
}

impl Condition {
    /// Whether the event is as the condition wants it; `named` tells whether its body has the user's display name.
    pub fn matches(&self, event: &EventView<'_>, named: impl Fn() -> bool) -> bool {
        match self {
            Self::EventMatch(path, pattern) => match event.property(path) {
                Some(Property::Text(text)) => matches_lower(pattern, text),
                _ => false,
            },
            Self::BodyMatch(pattern) => event.lower_body().is_some_and(|body| pattern.matches_words(body)),
            Self::PropertyIs(path, wanted) => event.property(path).is_some_and(|property| match property {
                Property::Text(text) => matches!(wanted, ScalarJsonValue::String(wanted) if wanted == text),
                Property::Json(value) => is_scalar(value, wanted),
            }),
            Self::PropertyContains(path, wanted) => match event.property(path) {
                Some(Property::Json(Value::Array(array))) => {
                    array.iter().any(|value| is_scalar(value, wanted))
                }
                _ => false,
            },
            Self::ContainsDisplayName => named(),
            Self::MemberCount(count) => is_count(count, event.event.joined_members),
            Self::SenderMayNotifyRoom => event.event.sender_may_notify_room,
            Self::Never => false,
        }
    }
}

/// Most values are in lower case already.
fn matches_lower(pattern: &Pattern, text: &str) -> bool {
    if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        pattern.matches(text)
    } else {
        pattern.matches(&text.to_lowercase())
    }
}

fn is_count(wanted: &RoomMemberCountIs, count: u64) -> bool {
    use ruma::push::ComparisonOperator;

    let limit = u64::from(wanted.count);
    match wanted.prefix {
        ComparisonOperator::Eq => count == limit,
        ComparisonOperator::Lt => count < limit,
        ComparisonOperator::Gt => count > limit,
        ComparisonOperator::Ge => count >= limit,
        ComparisonOperator::Le => count <= limit,
    }
}

fn is_scalar(value: &Value, wanted: &ScalarJsonValue) -> bool {
    match (value, wanted) {
        (Value::Null, ScalarJsonValue::Null) => true,
        (Value::Bool(value), ScalarJsonValue::Bool(wanted)) => value == wanted,
        (Value::String(value), ScalarJsonValue::String(wanted)) => value == wanted,
        (Value::Number(value), ScalarJsonValue::Integer(wanted)) => {
            value.as_i64() == Some(i64::from(*wanted))
        }
        _ => false,
    }
}
