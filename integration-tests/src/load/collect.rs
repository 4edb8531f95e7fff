//! What a device does that only looks.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde_json::Value;
use tokio::time::sleep;

use super::{PAUSE_BEFORE_RETRY, progress::Progress};
use crate::{Sync, Timelines, User};

/// Of so many answers one is lost on its way, where answers are lost.
const ANSWERS_FOR_ONE_LOST: usize = 5;

/// A device that syncs.
pub(super) struct Device {
    pub(super) user: User,
    /// The rooms that the user is in, and who is in each.
    pub(super) rooms: HashMap<String, Vec<String>>,
    /// Whether some answers never reach it, so that it asks once more.
    pub(super) loses_answers: bool,
}

/// Syncs until all is there that is expected, and once more for what should not be there.
pub(super) async fn collect(device: Device, progress: Arc<Progress>) -> Timelines {
    let Device { user, rooms, loses_answers } = device;
    let mut timelines = Timelines::new(user.clone());
    let mut answers = 0_usize;
    nobody_types(&user, &rooms, &progress);
    while !progress.is_over() {
        if loses_answers && answers % ANSWERS_FOR_ONE_LOST == 2 {
            // What was in it must be in the next one, too. Whether it failed is nobody's concern.
            drop(user.try_sync(timelines.since(), 0).await);
        }
        match timelines.step(1_000).await {
            Ok(sync) => {
                if answers == 0 {
                    progress.device_is_in_sync();
                }
                answers += 1;
                take_in(&user, &rooms, &sync, &progress);
            }
            Err(problem) => {
                progress.failed(format!("{problem:#}"));
                sleep(PAUSE_BEFORE_RETRY).await;
            }
        }
        let seen = rooms.keys().map(|room_id| (room_id.as_str(), messages(&timelines, room_id))).collect();
        if progress.has_all(&user.id, &user.device_id, &seen) {
            break;
        }
    }
    // What fails now shows as missing, if anything is missing.
    drop(timelines.step(0).await);

    timelines
}

/// How many different messages are in the timeline.
fn messages(timelines: &Timelines, room_id: &str) -> usize {
    let messages =
        timelines.room(room_id).iter().filter_map(|seen| seen.body.as_ref().map(|_| &seen.event_id));

    messages.collect::<HashSet<_>>().len()
}

/// What a receipt is called, of which the last one counts.
pub(super) fn receipt_of(user: &str, room_id: &str) -> String {
    format!("the receipt of {user} in {room_id}")
}

/// What account data of a room is called, of which the last counts.
pub(super) fn account_data_of(user: &str, room_id: &str) -> String {
    format!("the account data of {user} in {room_id}")
}

/// What typing in a room is called, of which the last word counts: [`TYPING`] or [`NOT_TYPING`].
pub(super) fn typing_of(user: &str, room_id: &str) -> String {
    format!("the typing of {user} in {room_id}")
}

/// Somebody types.
pub(super) const TYPING: &str = "typing";
/// Somebody does not type.
pub(super) const NOT_TYPING: &str = "not typing";

/// What a user's name in a room is called, of which the last one counts.
pub(super) fn name_of(user: &str, room_id: &str) -> String {
    format!("the name of {user} in {room_id}")
}

/// What a user says of how they are is called, of which the last word counts.
pub(super) fn presence_of(user: &str) -> String {
    format!("the presence of {user}")
}

/// Notes that nobody types at first, which is not told.
fn nobody_types(user: &User, rooms: &HashMap<String, Vec<String>>, progress: &Progress) {
    for (room_id, members) in rooms {
        for member in members {
            progress.told_latest(&user.id, typing_of(member, room_id), NOT_TYPING);
        }
    }
}

/// Notes what is not in a timeline.
fn take_in(user: &User, rooms: &HashMap<String, Vec<String>>, sync: &Sync, progress: &Progress) {
    for event in sync.0["presence"]["events"].as_array().into_iter().flatten() {
        if let Some(sender) = event["sender"].as_str() {
            let status_msg = event["content"]["status_msg"].as_str().unwrap_or("no status message");
            progress.told_latest(&user.id, presence_of(sender), status_msg);
        }
    }
    for message in sync.0["to_device"]["events"].as_array().into_iter().flatten() {
        if let Some(body) = message["content"]["body"].as_str() {
            progress.arrived(&user.device_id, body);
        }
    }
    for (room_id, room) in sync.0["rooms"]["join"].as_object().into_iter().flatten() {
        for event in room["ephemeral"]["events"].as_array().into_iter().flatten() {
            if event["type"] == "m.typing" {
                let typing: HashSet<_> = event["content"]["user_ids"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                for member in rooms.get(room_id).into_iter().flatten() {
                    let value = if typing.contains(member.as_str()) { TYPING } else { NOT_TYPING };
                    progress.told_latest(&user.id, typing_of(member, room_id), value);
                }
                continue;
            }
            for (event_id, receipts) in event["content"].as_object().into_iter().flatten() {
                for reader in receipts["m.read"].as_object().into_iter().flat_map(|readers| readers.keys()) {
                    progress.told_latest(&user.id, receipt_of(reader, room_id), event_id);
                }
            }
        }
        for event in ["state", "timeline"].iter().flat_map(|part| room[part]["events"].as_array()).flatten() {
            let (state_key, name) = (&event["state_key"], &event["content"]["displayname"]);
            if let ("m.room.member", Some(member), Some(name)) =
                (event["type"].as_str().unwrap_or_default(), state_key.as_str(), name.as_str())
            {
                progress.told_latest(&user.id, name_of(member, room_id), name);
            }
        }
        for event in room["account_data"]["events"].as_array().into_iter().flatten() {
            if event["type"] == "org.myelin.test" {
                let value = event["content"]["n"].to_string();
                progress.told_latest(&user.id, account_data_of(&user.id, room_id), &value);
            }
        }
    }
    for changed in sync.0["device_lists"]["changed"].as_array().into_iter().flatten() {
        if let Some(changed) = changed.as_str() {
            progress.told_of(&user.id, changed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::{Api, invariants::History};

    /// Has `b` be given some answers, and finds what is wrong with what it ends up with.
    fn verdict(written: &[(String, &str)], answers: &[Value]) -> Vec<String> {
        let user = User::made_up(&Api::new("http://127.0.0.1:1".to_owned()), "@b:x");
        let rooms = HashMap::from([("!r:x".to_owned(), vec!["@a:x".to_owned(), "@b:x".to_owned()])]);
        let progress = Progress::new(Instant::now() + Duration::from_secs(1), 0);
        nobody_types(&user, &rooms, &progress);
        for (key, value) in written {
            progress.wrote(key.clone(), value, std::slice::from_ref(&user.id));
        }
        answers.iter().for_each(|answer| take_in(&user, &rooms, &Sync(answer.clone()), &progress));
        let mut history = History::default();
        progress.write_down(&mut history);
        history.violations().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn who_ends_with_another_idea_of_who_types_is_found() {
        let answer = |users: &[&str]| {
            let event = json!({ "type": "m.typing", "content": { "user_ids": users } });
            json!({ "rooms": { "join": { "!r:x": { "ephemeral": { "events": [event] } } } } })
        };
        let key = || typing_of("@a:x", "!r:x");
        let check = |written: &str, answers: &[Value], violations: &[&str]| {
            assert_eq!(verdict(&[(key(), written)], answers), violations);
        };
        check(TYPING, &[answer(&["@a:x"])], &[]);
        check(NOT_TYPING, &[], &[]);
        check(NOT_TYPING, &[answer(&["@a:x"]), answer(&[])], &[]);
        let missed = "@b:x ends with not typing for the typing of @a:x in !r:x, which is typing";
        check(TYPING, &[], &[missed]);
        check(TYPING, &[answer(&["@a:x"]), answer(&["@b:x"])], &[missed]);
        let stuck = "@b:x ends with typing for the typing of @a:x in !r:x, which is not typing";
        check(NOT_TYPING, &[answer(&["@b:x", "@a:x"])], &[stuck]);
    }

    #[test]
    fn who_ends_with_an_old_name_is_found() {
        let member = |name: &str| json!({ "type": "m.room.member", "state_key": "@a:x", "content": { "displayname": name } });
        let answer = |state: &[Value], timeline: &[Value]| {
            let room = json!({ "state": { "events": state }, "timeline": { "events": timeline } });
            json!({ "rooms": { "join": { "!r:x": room } } })
        };
        let check = |answers: &[Value], violations: &[&str]| {
            assert_eq!(verdict(&[(name_of("@a:x", "!r:x"), "new")], answers), violations);
        };
        check(&[answer(&[], &[member("new")])], &[]);
        check(&[answer(&[member("old")], &[member("new")])], &[]);
        check(&[answer(&[], &[member("old")]), answer(&[member("new")], &[])], &[]);
        let old = "@b:x ends with old for the name of @a:x in !r:x, which is new";
        check(&[answer(&[], &[member("new"), member("old")])], &[old]);
        check(&[answer(&[member("new")], &[member("old")])], &[old]);
        check(&[], &["@b:x ends with nothing for the name of @a:x in !r:x, which is new"]);
    }

    #[test]
    fn who_ends_with_an_old_status_message_is_found() {
        let answer =
            |content: Value| json!({ "presence": { "events": [{ "sender": "@a:x", "content": content }] } });
        let check = |answers: &[Value], violations: &[&str]| {
            assert_eq!(verdict(&[(presence_of("@a:x"), "7")], answers), violations);
        };
        check(&[answer(json!({ "presence": "offline", "status_msg": "7" }))], &[]);
        let old = "@b:x ends with 6 for the presence of @a:x, which is 7";
        check(&[answer(json!({ "status_msg": "7" })), answer(json!({ "status_msg": "6" }))], &[old]);
        let none = "@b:x ends with no status message for the presence of @a:x, which is 7";
        check(&[answer(json!({ "status_msg": "7" })), answer(json!({ "presence": "online" }))], &[none]);
        check(&[], &["@b:x ends with nothing for the presence of @a:x, which is 7"]);
    }
}
