//! What concerns the user and the device that asks: account data, messages, keys.

use std::{collections::HashSet, sync::Arc};

use myelin_events::raw_json::{ObjectWriter, push_string};
use myelin_storage::Result;
use myelin_types::Position;
use ruma::{OwnedRoomId, RoomId};

use super::{Context, plan::RoomPlan, write_events};
use crate::sources::AccountDatum;

/// Messages for a device in one answer.
const MAX_TO_DEVICE: usize = 100;

/// The account data that changed.
#[derive(Debug, Default)]
pub(super) struct AccountData {
    data: Vec<Arc<AccountDatum>>,
    rooms: HashSet<OwnedRoomId>,
}

impl AccountData {
    fn new(data: Vec<Arc<AccountDatum>>) -> Self {
        let rooms = data.iter().filter_map(|datum| datum.room_id.clone()).collect();
        Self { data, rooms }
    }

    /// Whether there is some about a room.
    pub(super) fn has_room(&self, room_id: &OwnedRoomId) -> bool {
        self.rooms.contains(room_id)
    }

    fn of<'a>(&'a self, room_id: Option<&RoomId>) -> impl Iterator<Item = &'a Arc<AccountDatum>> {
        self.data.iter().filter(move |datum| datum.room_id.as_deref() == room_id)
    }
}

/// How far the messages for a device go.
#[derive(Debug, Default)]
pub(super) struct Reached {
    pub has_events: bool,
    /// Where this answer ends, if not where everything else does.
    pub next_batch: Option<Position>,
}

impl Context<'_> {
    /// The user's account data that the client does not know.
    pub(super) async fn account_data(&self) -> Result<AccountData> {
        let beginning = Position::default();
        let since = self.since().map_or(&beginning, |since| &since.account_data);
        if *since == self.upto.account_data && self.since().is_some() {
            return Ok(AccountData::default());
        }
        if self.since().is_some() {
            let user = self.user.inner.lock();
            if let Some(rows) = user.account_data.between(since, &self.upto.account_data) {
                return Ok(AccountData::new(latest_of_each(rows)));
            }
        }
        Ok(AccountData::new(self.engine.parts.user_data.account_data(self.user_id(), since).await?))
    }

    /// Writes the global account data, push rules among them, and gives whether there is any.
    pub(super) async fn write_account_data(
        &self,
        object: &mut ObjectWriter<'_>,
        account_data: &AccountData,
    ) -> Result<bool> {
        let filter = &self.filter().account_data;
        let push_rules = match filter.matches_type("m.push_rules") && self.has_new_push_rules() {
            true => Some(AccountDatum {
                room_id: None,
                event_type: "m.push_rules".into(),
                content: self.engine.parts.user_data.push_rules(self.user_id()).await?,
            }),
            false => None,
        };
        let data = account_data.of(None).map(|datum| &**datum).chain(push_rules.as_ref());
        let wanted = data.filter(|datum| filter.matches_type(&datum.event_type));
        Ok(write_events(object, "account_data", wanted, write_datum) > 0)
    }

    fn has_new_push_rules(&self) -> bool {
        let Some(since) = self.since() else { return true };
        if since.push_rules == self.upto.push_rules {
            return false;
        }
        let user = self.user.inner.lock();
        // A client that comes from before our time is told once more.
        user.push_rules
            .between(&since.push_rules, &self.upto.push_rules)
            .is_none_or(|mut changes| changes.next().is_some())
    }

    /// Writes a room's account data, and gives whether there is any.
    pub(super) fn write_room_account_data(
        &self,
        object: &mut ObjectWriter<'_>,
        plan: &RoomPlan,
        account_data: &AccountData,
    ) -> bool {
        let filter = &self.filter().room_account_data;
        let wanted = filter.matches_room(&plan.room.room_id) && account_data.has_room(&plan.room.room_id);
        let data = account_data.of(Some(&plan.room.room_id)).filter(|_| wanted);
        let data = data.filter(|datum| filter.matches_type(&datum.event_type));
        write_events(object, "account_data", data, |out, datum| write_datum(out, datum)) > 0
    }

    /// Writes the messages for the device.
    pub(super) async fn write_to_device(&self, object: &mut ObjectWriter<'_>) -> Result<Reached> {
        let Some(device_id) = &self.request.device_id else {
            write_events(object, "to_device", [(); 0], |_, ()| {});
            return Ok(Reached::default());
        };
        let upto = &self.upto.to_device;
        let beginning = Position::default();
        let since = self.since().map_or(&beginning, |since| &since.to_device);
        if let Some(recent) = self.recent_messages(device_id, since) {
            let count = write_events(object, "to_device", &recent, |out, message| out.push_str(message));
            return Ok(Reached { has_events: count > 0, next_batch: None });
        }
        let devices = &self.engine.parts.devices;
        let batch = devices.to_device(self.user_id(), device_id, since, upto, MAX_TO_DEVICE).await?;
        let count = write_events(object, "to_device", &batch.events, |out, message| out.push_str(message));
        Ok(Reached { has_events: count > 0, next_batch: batch.reached })
    }

    /// The messages since a position, if memory reaches back so far and they fit into an answer.
    fn recent_messages(&self, device_id: &ruma::DeviceId, since: &Position) -> Option<Vec<Box<str>>> {
        if self.since().is_some() && *since == self.upto.to_device {
            return Some(Vec::new());
        }
        let user = self.user.inner.lock();
        let recent: Vec<Box<str>> = user
            .to_device
            .between(since, &self.upto.to_device)?
            .filter(|message| message.device_id == device_id)
            .map(|message| message.json.clone())
            .collect();
        (recent.len() <= MAX_TO_DEVICE).then_some(recent)
    }

    /// Writes how many keys the device has left.
    pub(super) async fn write_key_counts(&self, object: &mut ObjectWriter<'_>) -> Result<()> {
        let Some(device_id) = &self.request.device_id else {
            object.object("device_one_time_keys_count").end();
            return Ok(());
        };
        let counts = self.engine.parts.devices.key_counts(self.user_id(), device_id).await?;
        object.with("device_one_time_keys_count", |out| {
            out.push('{');
            for (index, (algorithm, count)) in counts.one_time.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_string(out, algorithm);
                out.push(':');
                out.push_str(&count.to_string());
            }
            out.push('}');
        });
        object.with("device_unused_fallback_key_types", |out| {
            out.push('[');
            for (index, algorithm) in counts.unused_fallback.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_string(out, algorithm);
            }
            out.push(']');
        });
        Ok(())
    }
}

/// Of several changes of the same piece only the last one.
fn latest_of_each<'a>(
    rows: impl DoubleEndedIterator<Item = &'a Arc<AccountDatum>>,
) -> Vec<Arc<AccountDatum>> {
    let mut seen = HashSet::new();
    let mut latest: Vec<Arc<AccountDatum>> =
        rows.rev().filter(|datum| seen.insert((&datum.room_id, &datum.event_type))).cloned().collect();
    latest.reverse();
    latest
}

fn write_datum(out: &mut String, datum: &AccountDatum) {
    let mut event = ObjectWriter::new(out);
    event.string("type", &datum.event_type);
    event.raw("content", datum.content.get());
    event.end();
}
