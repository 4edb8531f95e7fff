use std::sync::Arc;

use ruma::{
    event_id, owned_room_id,
    push::{NewPushRule, RuleKind, Ruleset},
    room_id, user_id,
};
use serde_json::{Value, json};

use super::*;
use crate::{PushEvent, defaults, ruleset};

const MUTED: PushBits = PushBits::NONE;
const NOTIFY: PushBits = PushBits::NOTIFY;
const HIGHLIGHT: PushBits = PushBits::HIGHLIGHT;

/// A room of Amy (with the default rules), Bob, whose rules are given, and Sue, who sends.
fn room(bobs_rules: Option<&Ruleset>) -> Audience {
    let mut audience = Audience::new();
    audience.set_member(user_id!("@amy:x"), Some("Queen Amidala"));
    audience.set_member(user_id!("@bob:x"), Some("Bob"));
    audience.set_member(user_id!("@sue:x"), None);
    if let Some(rules) = bobs_rules {
        audience.custom.insert(user_id!("@bob:x").to_owned(), Arc::new(CompiledRules::new(rules)));
    }
    audience
}

#[derive(Clone, Copy)]
struct Circumstances {
    joined_members: u64,
    sender_may_notify_room: bool,
    state_key: Option<&'static str>,
}

const USUAL: Circumstances =
    Circumstances { joined_members: 5, sender_may_notify_room: false, state_key: None };

fn outcome(
    audience: &Audience,
    event_type: &str,
    content: &Value,
    circumstances: Circumstances,
) -> PushOutcome {
    let content = content.to_string();
    let event = PushEvent {
        room_id: room_id!("!r:x"),
        event_id: event_id!("$e"),
        sender: user_id!("@sue:x"),
        event_type,
        state_key: circumstances.state_key,
        content: &content,
        joined_members: circumstances.joined_members,
        sender_may_notify_room: circumstances.sender_may_notify_room,
    };
    evaluate(&EventView::new(&event), audience, None)
}

/// What the event is for Amy and Bob.
fn check(
    audience: &Audience,
    event_type: &str,
    content: Value,
    circumstances: Circumstances,
    expected: [PushBits; 2],
) {
    let outcome = outcome(audience, event_type, &content, circumstances);
    let found = [user_id!("@amy:x"), user_id!("@bob:x")].map(|user_id| outcome.for_user(user_id));
    assert_eq!(found, expected, "{event_type} {content}: {outcome:?}");
    assert!(outcome.exceptions.iter().all(|(_, bits)| *bits != outcome.default));
    assert!(outcome.exceptions.is_sorted_by(|(one, _), (other, _)| one.as_str() < other.as_str()));
    assert!(outcome.exceptions.iter().all(|(user_id, _)| user_id != "@sue:x"));
}

#[test]
fn the_default_rules_do_what_the_specification_says() {
    let audience = room(None);
    let check = |event_type, content, circumstances, amy, bob| {
        check(&audience, event_type, content, circumstances, [amy, bob]);
    };
    let may_notify = Circumstances { sender_may_notify_room: true, ..USUAL };
    let state = Circumstances { state_key: Some(""), ..USUAL };
    let about = |state_key| Circumstances { state_key: Some(state_key), ..USUAL };

    check("m.room.message", json!({ "msgtype": "m.text", "body": "hi" }), USUAL, NOTIFY, NOTIFY);
    check("m.room.encrypted", json!({}), USUAL, NOTIFY, NOTIFY);
    check("m.room.message", json!({ "msgtype": "m.notice", "body": "bob" }), USUAL, MUTED, MUTED);
    check("m.room.topic", json!({ "topic": "bob" }), state, MUTED, MUTED);
    check("m.call.invite", json!({}), USUAL, NOTIFY, NOTIFY);
    check("m.reaction", json!({}), USUAL, MUTED, MUTED);
    check("m.room.server_acl", json!({}), state, MUTED, MUTED);
    check("m.room.tombstone", json!({}), state, HIGHLIGHT, HIGHLIGHT);
    check("m.room.tombstone", json!({}), USUAL, MUTED, MUTED);
    let edit = json!({ "body": "* hi", "m.relates_to": { "rel_type": "m.replace" } });
    check("m.room.message", edit, USUAL, MUTED, MUTED);

    // Mentions.
    let mention = |user_ids: Value| json!({ "body": "hi", "m.mentions": { "user_ids": user_ids } });
    check("m.room.message", mention(json!(["@bob:x", "@far:y", 1, "no user"])), USUAL, NOTIFY, HIGHLIGHT);
    check("m.room.message", mention(json!("@bob:x")), USUAL, NOTIFY, NOTIFY);
    check("m.room.message", json!({ "body": "bob", "m.mentions": {} }), USUAL, NOTIFY, NOTIFY);
    let room_mention = json!({ "body": "hi", "m.mentions": { "room": true } });
    check("m.room.message", room_mention.clone(), USUAL, NOTIFY, NOTIFY);
    check("m.room.message", room_mention, may_notify, HIGHLIGHT, HIGHLIGHT);

    // Names and @room, where there are no mentions.
    check("m.room.message", json!({ "body": "Hail Queen AMIDALA!" }), USUAL, HIGHLIGHT, NOTIFY);
    check("m.room.message", json!({ "body": "amy and bob" }), USUAL, HIGHLIGHT, HIGHLIGHT);
    check("m.room.message", json!({ "body": "bobsled, queen" }), USUAL, NOTIFY, NOTIFY);
    check("m.room.message", json!({ "body": "hey @room" }), may_notify, HIGHLIGHT, HIGHLIGHT);
    check("m.room.message", json!({ "body": "hey @room" }), USUAL, NOTIFY, NOTIFY);
    check("m.room.message", json!({ "body": "hey @room", "m.mentions": {} }), may_notify, NOTIFY, NOTIFY);

    // Invitations.
    check("m.room.member", json!({ "membership": "invite" }), about("@bob:x"), MUTED, NOTIFY);
    check("m.room.member", json!({ "membership": "join" }), about("@bob:x"), MUTED, MUTED);
}

#[test]
fn a_user_who_is_invited_need_not_be_a_member() {
    let invited = Circumstances { state_key: Some("@new:x"), ..USUAL };
    let outcome = outcome(&room(None), "m.room.member", &json!({ "membership": "invite" }), invited);
    assert_eq!(outcome.for_user(user_id!("@new:x")), NOTIFY);
    assert_eq!(outcome.exceptions.len(), 1);
}

#[test]
fn changed_rules_are_the_users_alone() {
    let bob = user_id!("@bob:x");
    let with = |change: &dyn Fn(&mut Ruleset)| {
        let mut rules = defaults::ruleset(bob);
        change(&mut rules);
        room(Some(&rules))
    };
    let put = |kind: &str, rule: Value| {
        let rule = match kind {
            "override" => NewPushRule::Override(serde_json::from_value(rule).unwrap()),
            "content" => NewPushRule::Content(serde_json::from_value(rule).unwrap()),
            "sender" => NewPushRule::Sender(serde_json::from_value(rule).unwrap()),
            _ => NewPushRule::Underride(serde_json::from_value(rule).unwrap()),
        };
        with(&|rules| ruleset::put(rules, rule.clone(), None, None).unwrap())
    };
    let message = |body: &str| json!({ "msgtype": "m.text", "body": body });
    let check = |audience: &Audience, body: &str, bob| {
        check(audience, "m.room.message", message(body), USUAL, [NOTIFY, bob]);
    };

    let master = with(&|rules| rules.set_enabled(RuleKind::Override, ".m.rule.master", true).unwrap());
    check(&master, "bob", MUTED);
    let quiet = with(&|rules| rules.set_actions(RuleKind::Underride, ".m.rule.message", vec![]).unwrap());
    check(&quiet, "hi", MUTED);
    check(&quiet, "bob", HIGHLIGHT);
    let no_names = with(&|rules| {
        rules.set_enabled(RuleKind::Content, ".m.rule.contains_user_name", false).unwrap();
        rules.set_enabled(RuleKind::Override, ".m.rule.contains_display_name", false).unwrap();
    });
    check(&no_names, "bob", NOTIFY);
    let muted_room = with(&|rules| {
        let rule = ruma::push::NewSimplePushRule::new(owned_room_id!("!r:x"), vec![]);
        ruleset::put(rules, NewPushRule::Room(rule), None, None).unwrap();
    });
    check(&muted_room, "hi", MUTED);
    check(&muted_room, "bob", HIGHLIGHT);

    let highlight = json!(["notify", { "set_tweak": "highlight" }]);
    let cake = put("content", json!({ "rule_id": "cake", "pattern": "c?ke*", "actions": highlight }));
    check(&cake, "I like CAKE.", HIGHLIGHT);
    check(&cake, "pancake", NOTIFY);
    check(&put("sender", json!({ "rule_id": "@sue:x", "actions": [] })), "hi", MUTED);
    check(&put("sender", json!({ "rule_id": "@else:x", "actions": [] })), "hi", NOTIFY);

    let when = |condition: Value| {
        put("override", json!({ "rule_id": "r", "actions": highlight, "conditions": [condition] }))
    };
    let conditions = [
        (json!({ "kind": "event_match", "key": "content.body", "pattern": "hi" }), HIGHLIGHT),
        (json!({ "kind": "event_match", "key": "content.msgtype", "pattern": "M.*" }), HIGHLIGHT),
        (json!({ "kind": "event_match", "key": "room_id", "pattern": "!r:x" }), HIGHLIGHT),
        (json!({ "kind": "event_match", "key": "content.nothing", "pattern": "*" }), NOTIFY),
        (json!({ "kind": "event_property_is", "key": "content.msgtype", "value": "m.text" }), HIGHLIGHT),
        (json!({ "kind": "event_property_is", "key": "content.msgtype", "value": "m.*" }), NOTIFY),
        (json!({ "kind": "room_member_count", "is": ">=5" }), HIGHLIGHT),
        (json!({ "kind": "room_member_count", "is": "<5" }), NOTIFY),
        (json!({ "kind": "sender_notification_permission", "key": "room" }), NOTIFY),
        (json!({ "kind": "contains_display_name" }), NOTIFY),
        (json!({ "kind": "from_the_future" }), NOTIFY),
    ];
    for (condition, expected) in conditions {
        check(&when(condition), "hi there", expected);
    }
    check(&put("override", json!({ "rule_id": "all", "actions": [], "conditions": [] })), "bob", MUTED);
}

#[test]
fn rules_agree_with_rumas_reading_of_them() {
    use ruma::push::PushConditionRoomCtx;

    let bob = user_id!("@bob:x");
    let mut rules = defaults::ruleset(bob);
    let keyword = json!({ "rule_id": "k", "pattern": "ca?e", "actions": [] });
    ruleset::put(&mut rules, NewPushRule::Content(serde_json::from_value(keyword).unwrap()), None, None)
        .unwrap();
    let audience = room(Some(&rules));
    let bodies = ["hi", "Bob", "bob's cave", "a cafe", "cakes", "", "x.bob", "日本 bob"];
    let mentions = [
        None,
        Some(json!({})),
        Some(json!({ "user_ids": ["@bob:x"] })),
        Some(json!({ "user_ids": ["@amy:x"] })),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for body in bodies {
        for mentions in &mentions {
            for joined_members in [2, 3] {
                let mut content = json!({ "msgtype": "m.text", "body": body });
                if let Some(mentions) = mentions {
                    content["m.mentions"] = mentions.clone();
                }
                let found =
                    outcome(&audience, "m.room.message", &content, Circumstances { joined_members, ..USUAL });
                let event = json!({ "type": "m.room.message", "sender": "@sue:x", "content": content });
                let event =
                    ruma::serde::Raw::<Value>::from_json(serde_json::value::to_raw_value(&event).unwrap());
                let count = joined_members.try_into().unwrap();
                let context = PushConditionRoomCtx::new(
                    owned_room_id!("!r:x"),
                    count,
                    bob.to_owned(),
                    "Bob".to_owned(),
                );
                let actions = runtime.block_on(rules.get_actions(&event, &context));
                let notifies = actions.iter().any(ruma::push::Action::should_notify);
                assert_eq!(found.for_user(bob).notifies(), notifies, "{content}");
                assert_eq!(
                    found.for_user(bob).highlights(),
                    actions.iter().any(ruma::push::Action::is_highlight),
                    "{content}"
                );
            }
        }
    }
}
