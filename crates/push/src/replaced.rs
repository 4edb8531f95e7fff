//! What is to become of the rules for a room that was replaced
//! (<https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>).

use ruma::{
    RoomId,
    push::{
        ConditionalPushRule, EventMatchConditionData, NewConditionalPushRule, NewPushRule, NewSimplePushRule,
        PushCondition, RuleKind, Ruleset,
    },
};

/// The rules that a new room needs to be treated like the old one, and whether each is enabled; without those that are
/// there.
pub(crate) fn about_room(rules: &Ruleset, old: &RoomId, new: &RoomId) -> Vec<(NewPushRule, bool)> {
    let mut found = Vec::new();
    if let Some(rule) = rules.room.iter().find(|rule| rule.rule_id == old) {
        let copy = NewSimplePushRule::new(new.to_owned(), rule.actions.clone());
        found.push((NewPushRule::Room(copy), rule.enabled));
    }
    let overrides = rules.override_.iter().map(|rule| (rule, NewPushRule::Override as fn(_) -> _));
    let underrides = rules.underride.iter().map(|rule| (rule, NewPushRule::Underride as fn(_) -> _));
    for (rule, kind) in overrides.chain(underrides) {
        found.extend(conditional(rule, old, new).map(|copy| (kind(copy), rule.enabled)));
    }
    found.retain(|(rule, _)| !has(rules, &rule.kind(), rule.rule_id()));
    found
}

fn has(rules: &Ruleset, kind: &RuleKind, rule_id: &str) -> bool {
    rules.get(kind.clone(), rule_id).is_some()
}

/// The rule for the new room, if this is one for the old: clients name it after the room.
fn conditional(rule: &ConditionalPushRule, old: &RoomId, new: &RoomId) -> Option<NewConditionalPushRule> {
    let mut is_about_old = false;
    let conditions = rule.conditions.iter().map(|condition| match condition {
        PushCondition::EventMatch(data) if data.key == "room_id" && data.pattern == old.as_str() => {
            is_about_old = true;
            let data = EventMatchConditionData::new("room_id".to_owned(), new.to_string());
            PushCondition::EventMatch(data)
        }
        other => other.clone(),
    });
    let conditions = conditions.collect();
    let rule_id = rule.rule_id.replace(old.as_str(), new.as_str());
    let is_ours = is_about_old && !rule.default && rule_id != rule.rule_id;
    is_ours.then(|| NewConditionalPushRule::new(rule_id, conditions, rule.actions.clone()))
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, user_id};
    use serde_json::json;

    use super::*;
    use crate::ruleset;

    #[test]
    fn the_new_room_gets_what_the_old_one_has() {
        let (old, new) = (room_id!("!old:b.c"), room_id!("!new:b.c"));
        let muted = json!({
            "override": [{
                "rule_id": old, "default": false, "enabled": false, "actions": [],
                "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": old }],
            }, {
                "rule_id": "other", "default": false, "enabled": true, "actions": [],
                "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": "!other:b.c" }],
            }],
            "room": [{ "rule_id": old, "default": false, "enabled": true, "actions": ["notify"] }],
        });
        let user = user_id!("@a:b.c");
        let mut rules = ruleset::load(user, Some(&muted.to_string())).unwrap();
        let found = about_room(&rules, old, new);
        let told: Vec<_> =
            found.iter().map(|(rule, enabled)| (rule.kind(), rule.rule_id().to_owned(), *enabled)).collect();
        let new_id = new.to_string();
        assert_eq!(told, [(RuleKind::Room, new_id.clone(), true), (RuleKind::Override, new_id, false)]);
        let [_, (NewPushRule::Override(copy), _)] = &found[..] else { panic!("{found:?}") };
        let conditions = serde_json::to_value(&copy.conditions).unwrap();
        assert_eq!(conditions, json!([{ "kind": "event_match", "key": "room_id", "pattern": new }]));
        for (rule, _) in found {
            ruleset::put(&mut rules, rule, None, None).unwrap();
        }
        assert!(about_room(&rules, old, new).is_empty(), "once is enough");
    }
}
