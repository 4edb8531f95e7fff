//! What an event costs. Ignored, since it says something only in release:
//!
//! ```text
//! cargo test --release -p myelin-push speed -- --ignored --nocapture
//! ```

#![expect(clippy::print_stdout, reason = "what was measured is what this is for")]

use std::{hint::black_box, sync::Arc, time::Instant};

use ruma::{
    OwnedUserId, event_id,
    push::{NewPatternedPushRule, NewPushRule},
    room_id, user_id,
};
use serde_json::{Value, json};

use super::evaluate;
use crate::{Audience, PushEvent, compile::CompiledRules, defaults, event::EventView};

const TIMES: u32 = 20_000;

/// Members with a display name, of whom some have keywords of their own.
fn audience(members: usize, with_keywords: usize) -> Audience {
    let mut audience = Audience::new();
    for number in 0..members {
        let user_id: OwnedUserId = format!("@member{number}:example.org").try_into().unwrap();
        audience.set_member(&user_id, Some(&format!("Member Number{number}")));
        if number < with_keywords {
            let mut rules = defaults::ruleset(&user_id);
            for word in ["cake", "release", "on*call"] {
                let rule = NewPatternedPushRule::new(word.to_owned(), word.to_owned(), vec![]);
                rules.insert(NewPushRule::Content(rule), None, None).unwrap();
            }
            audience.custom.insert(user_id, Arc::new(CompiledRules::new(&rules)));
        }
    }
    audience.unknown.clear();
    audience
}

fn measure(what: &str, audience: &Audience, event_type: &str, content: &Value) {
    let content = content.to_string();
    let event = PushEvent {
        room_id: room_id!("!r:example.org"),
        event_id: event_id!("$e"),
        sender: user_id!("@member0:example.org"),
        event_type,
        state_key: None,
        content: &content,
        joined_members: audience.len() as u64,
        sender_may_notify_room: false,
    };
    let start = Instant::now();
    for _ in 0..TIMES {
        black_box(evaluate(&EventView::new(black_box(&event)), audience, None));
    }
    println!("{what}: {:?} each", start.elapsed() / TIMES);
}

#[test]
#[ignore = "a measurement"]
fn speed_of_events() {
    let text =
        "Good morning everybody, did anyone have a look at why the build takes so long since yesterday?";
    let plain = json!({ "msgtype": "m.text", "body": text });
    let new = json!({ "msgtype": "m.text", "body": text, "m.mentions": {} });
    let mention = json!({
        "msgtype": "m.text", "body": format!("Member Number7: {text}"),
        "m.mentions": { "user_ids": ["@member7:example.org"] },
    });
    let encrypted = json!({
        "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x".repeat(600), "session_id": "y".repeat(43),
    });
    for (members, with_keywords) in [(20, 0), (20, 5), (20, 20), (2000, 0)] {
        let audience = audience(members, with_keywords);
        let room = format!("{members} members, {with_keywords} with keywords");
        measure(&format!("{room}: an old client's message"), &audience, "m.room.message", &plain);
        measure(&format!("{room}: a new client's message"), &audience, "m.room.message", &new);
        measure(&format!("{room}: a mention"), &audience, "m.room.message", &mention);
        measure(&format!("{room}: an encrypted message"), &audience, "m.room.encrypted", &encrypted);
    }
}
