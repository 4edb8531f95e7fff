//! A user's rules: those of the server with the user's changes, and the user's own.

use ruma::{
    UserId,
    push::{Action, NewPushRule, RuleKind, Ruleset},
};
use serde::Serialize;
use serde_json::Value;

use crate::{PushRuleError, defaults};

/// Rules of one user's own at most.
const MAX_OWN_RULES: usize = 1000;

/// The rules of a user, from what was stored of them.
pub(crate) fn load(user_id: &UserId, stored: Option<&str>) -> Result<Ruleset, serde_json::Error> {
    let default = defaults::ruleset(user_id);
    let Some(stored) = stored else { return Ok(default) };
    let mut rules: Ruleset = serde_json::from_str(stored)?;
    rules.update_with_server_default(default);
    Ok(rules)
}

/// What has to be stored of a user's rules: what is not the server's.
pub(crate) fn changes(user_id: &UserId, mut rules: Ruleset) -> Ruleset {
    let default = defaults::ruleset(user_id);
    macro_rules! retain_changes {
        ($($kind:ident),+) => {$(
            rules.$kind.retain(|rule| {
                let default = default.$kind.get(rule.rule_id.as_str());
                default.is_none_or(|default| {
                    default.enabled != rule.enabled || !same_actions(&default.actions, &rule.actions)
                })
            });
        )+};
    }
    retain_changes!(override_, content, room, sender, underride);
    rules.postcontent.clear();
    rules
}

fn same_actions(one: &[Action], other: &[Action]) -> bool {
    let json = |actions: &[Action]| serde_json::to_value(actions).unwrap_or(Value::Null);
    json(one) == json(other)
}

/// Rules as JSON, with all kinds of them, be there any or none.
pub(crate) fn to_json(rules: &Ruleset) -> String {
    #[derive(Serialize)]
    struct Kinds<'a, C, P, R, S> {
        #[serde(rename = "override")]
        override_: &'a C,
        content: &'a P,
        room: &'a R,
        sender: &'a S,
        underride: &'a C,
    }
    let Ruleset { override_, content, room, sender, underride, .. } = rules;
    let kinds = Kinds { override_, content, room, sender, underride };
    serde_json::to_string(&kinds).expect("rules came from JSON and have text for keys")
}

/// Adds a rule, or replaces the one of its kind and id, which then stays enabled or disabled as it was. It goes before
/// or after another of the user's, else a new one goes first.
pub(crate) fn put(
    rules: &mut Ruleset,
    rule: NewPushRule,
    after: Option<&str>,
    before: Option<&str>,
) -> Result<(), PushRuleError> {
    let (kind, rule_id) = (rule.kind(), rule.rule_id().to_owned());
    if !is_served(&kind) {
        return Err(PushRuleError::UnknownKind);
    }
    let former = rules.get(kind.clone(), &rule_id).map(|rule| rule.enabled());
    if former.is_none() && own_rules(rules) >= MAX_OWN_RULES {
        return Err(PushRuleError::TooMany);
    }
    if former.is_some() && (after.is_some() || before.is_some()) && !rule_id.starts_with('.') {
        // ruma's positions are off, or out of bounds, for a rule that is there already.
        rules.remove(kind.clone(), &rule_id).map_err(|_| PushRuleError::NotFound)?;
    }
    rules.insert(rule, after, before)?;
    if let Some(enabled) = former {
        rules.set_enabled(kind, &rule_id, enabled).map_err(|_| PushRuleError::NotFound)?;
    }
    Ok(())
}

/// Whether rules of this kind are known here.
pub(crate) fn is_served(kind: &RuleKind) -> bool {
    matches!(
        kind,
        RuleKind::Override | RuleKind::Content | RuleKind::Room | RuleKind::Sender | RuleKind::Underride
    )
}

fn own_rules(rules: &Ruleset) -> usize {
    rules.iter().filter(|rule| !rule.is_server_default()).count()
}

#[cfg(test)]
mod tests {
    use ruma::{push::NewPatternedPushRule, user_id};

    use super::*;

    fn user() -> &'static UserId {
        user_id!("@alice:x")
    }

    fn keyword(word: &str) -> NewPushRule {
        NewPushRule::Content(NewPatternedPushRule::new(
            word.to_owned(),
            word.to_owned(),
            vec![Action::Notify],
        ))
    }

    fn order(rules: &Ruleset) -> String {
        let own = rules.content.iter().filter(|rule| !rule.default);
        own.map(|rule| rule.rule_id.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn rules_go_first_or_where_they_are_told_to() {
        let mut rules = defaults::ruleset(user());
        let steps = [
            (("a", None, None), Ok("a")),
            (("b", None, None), Ok("b a")),
            (("c", Some("b"), None), Ok("b c a")),
            (("b", Some("a"), None), Ok("c a b")),
            (("b", None, Some("c")), Ok("b c a")),
            (("c", None, None), Ok("b c a")),
            (("a", Some("b"), Some("c")), Ok("b a c")),
            (("d", Some("c"), Some("b")), Err("before has a higher priority than after")),
            (("d", Some("nothing"), None), Err("The before or after rule could not be found")),
            (
                ("d", Some(".m.rule.contains_user_name"), None),
                Err("can't place rule relative to server-default rule"),
            ),
            ((".d", None, None), Err("rule IDs starting with a dot are reserved for server-default rules")),
        ];
        for ((word, after, before), expected) in steps {
            let mut changed = rules.clone();
            let outcome = put(&mut changed, keyword(word), after, before).map_err(|error| error.to_string());
            match expected {
                Ok(expected) => {
                    outcome.unwrap();
                    rules = changed;
                    assert_eq!(order(&rules), expected, "{word}");
                }
                Err(expected) => assert_eq!(outcome.unwrap_err(), expected),
            }
        }
        assert!(rules.content.last().unwrap().default, "the server's rules come after the user's");
    }

    #[test]
    fn only_what_differs_from_the_default_is_stored_and_nothing_is_lost() {
        let mut rules = defaults::ruleset(user());
        assert_eq!(serde_json::to_string(&changes(user(), rules.clone())).unwrap(), "{}");
        put(&mut rules, keyword("cake"), None, None).unwrap();
        rules.set_enabled(RuleKind::Content, "cake", false).unwrap();
        rules.set_enabled(RuleKind::Override, ".m.rule.master", true).unwrap();
        rules.set_actions(RuleKind::Underride, ".m.rule.message", vec![]).unwrap();
        let stored = serde_json::to_string(&changes(user(), rules.clone())).unwrap();
        assert_eq!(stored.matches("rule_id").count(), 3, "{stored}");
        let loaded = load(user(), Some(&stored)).unwrap();
        assert_eq!(to_json(&loaded), to_json(&rules));
    }

    #[test]
    fn a_replaced_rule_stays_disabled() {
        let mut rules = defaults::ruleset(user());
        put(&mut rules, keyword("a"), None, None).unwrap();
        put(&mut rules, keyword("b"), None, None).unwrap();
        rules.set_enabled(RuleKind::Content, "a", false).unwrap();
        let actions = serde_json::from_str(r#"["dont_notify"]"#).unwrap();
        let rule = NewPatternedPushRule::new("a".to_owned(), "x".to_owned(), actions);
        put(&mut rules, NewPushRule::Content(rule), None, Some("b")).unwrap();
        let rule = rules.content.get("a").unwrap();
        assert!(!rule.enabled && rule.pattern == "x" && rule.actions.len() == 1);
    }

    #[test]
    fn the_number_of_own_rules_is_bounded() {
        let mut rules = defaults::ruleset(user());
        for number in 0..MAX_OWN_RULES {
            put(&mut rules, keyword(&number.to_string()), None, None).unwrap();
        }
        assert!(matches!(put(&mut rules, keyword("more"), None, None), Err(PushRuleError::TooMany)));
        put(&mut rules, keyword("0"), None, None).unwrap();
    }
}
