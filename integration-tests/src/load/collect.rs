//! What a device does that only looks.

use std::{collections::HashSet, sync::Arc};

use tokio::time::sleep;

use super::{PAUSE_BEFORE_RETRY, progress::Progress};
use crate::{Sync, Timelines, User};

/// Of so many answers one is lost on its way, where answers are lost.
const ANSWERS_FOR_ONE_LOST: usize = 5;

/// A device that syncs.
pub(super) struct Device {
    pub(super) user: User,
    /// The rooms that the user is in.
    pub(super) rooms: Vec<String>,
    /// Whether some answers never reach it, so that it asks once more.
    pub(super) loses_answers: bool,
}

/// Syncs until all is there that is expected, and once more for what should not be there.
pub(super) async fn collect(device: Device, progress: Arc<Progress>) -> Timelines {
    let Device { user, rooms, loses_answers } = device;
    let mut timelines = Timelines::new(user.clone());
    let mut answers = 0_usize;
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
                take_in(&user, &sync, &progress);
            }
            Err(problem) => {
                progress.failed(format!("{problem:#}"));
                sleep(PAUSE_BEFORE_RETRY).await;
            }
        }
        let seen = rooms.iter().map(|room_id| (room_id.as_str(), messages(&timelines, room_id))).collect();
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

/// Notes what is not in a timeline.
fn take_in(user: &User, sync: &Sync, progress: &Progress) {
    for message in sync.0["to_device"]["events"].as_array().into_iter().flatten() {
        if let Some(body) = message["content"]["body"].as_str() {
            progress.arrived(&user.device_id, body);
        }
    }
    for (room_id, room) in sync.0["rooms"]["join"].as_object().into_iter().flatten() {
        for event in room["ephemeral"]["events"].as_array().into_iter().flatten() {
            for (event_id, receipts) in event["content"].as_object().into_iter().flatten() {
                for reader in receipts["m.read"].as_object().into_iter().flat_map(|readers| readers.keys()) {
                    progress.told_latest(&user.id, receipt_of(reader, room_id), event_id);
                }
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
