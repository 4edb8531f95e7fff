//! The timelines of the rooms of an answer.

use std::sync::Arc;

use myelin_events::{Pdu, Unsigned, raw_json::ObjectWriter};
use myelin_rooms::read::{PaginationToken, Viewer};
use myelin_storage::Result;
use ruma::{OwnedEventId, RoomId};
use serde_json::Value;

use super::{Context, plan::RoomPlan};
use crate::room::{Missing, Room, Selected, Selection, View};

/// How often older events are read in search of those that a filter wants. Each round reads more.
const ROUNDS: usize = 4;
/// Events that a cold room reads at least, so that the next sync finds them in memory; not where many rooms are cold,
/// as when somebody begins.
const READ_AT_LEAST: usize = 20;
/// What is not many.
const FEW_ROOMS: usize = 8;

impl Context<'_> {
    /// How many events of a room the client wants at most.
    fn timeline_limit(&self, room_id: &RoomId) -> usize {
        let options = &self.engine.parts.options;
        if self.filter().timeline.passes_nothing(room_id) {
            return 0;
        }
        self.filter().timeline.limit.unwrap_or(options.default_timeline_limit).min(options.max_timeline_limit)
    }

    fn select(&self, plan: &RoomPlan) -> std::result::Result<Selection, Missing> {
        let room_id = &plan.room.room_id;
        let view = View {
            user_id: self.user_id(),
            membership: plan.membership.clone(),
            since: self.since().filter(|_| !plan.is_new).map(|since| &since.events),
            upto: &self.upto.events,
            end: plan.left_at,
            limit: self.timeline_limit(room_id),
            filter: &self.filter().timeline,
            is_unfiltered: self.filter().timeline.passes_all(room_id),
            ignored: &self.ignored,
        };
        plan.room.inner.read().select(&view)
    }

    /// Selects the timelines of some rooms, reading what is missing for all of them at once.
    pub(super) async fn timelines(&self, plans: &[RoomPlan]) -> Result<Vec<Selection>> {
        let mut selections: Vec<Option<Selection>> = vec![None; plans.len()];
        for round in 0..=ROUNDS {
            let mut older = Vec::new();
            let mut states = Vec::new();
            for (plan, selection) in plans.iter().zip(&mut selections) {
                if selection.is_some() {
                    continue;
                }
                match self.select(plan) {
                    Ok(selected) => *selection = Some(selected),
                    Err(Missing::Older) => {
                        let at_least = if plans.len() > FEW_ROOMS { 1 } else { READ_AT_LEAST };
                        older.push((plan.room.clone(), self.read_at_once(&plan.room, at_least, round)));
                    }
                    Err(Missing::State) => states.push(plan.room.clone()),
                }
            }
            if older.is_empty() && states.is_empty() {
                break;
            }
            if round == ROUNDS {
                break;
            }
            self.engine.load_older(&older).await?;
            if !states.is_empty() {
                self.engine.load_states(&states, false).await?;
            }
        }
        // What could not be found in so many rounds is for /messages to find.
        let nothing = |plan: &RoomPlan| {
            let end = plan.room.inner.read().place_of(&self.upto.events);
            Selection { events: Vec::new(), limited: true, start: end, end }
        };
        let selections = selections.into_iter().zip(plans);
        let mut selections: Vec<_> =
            selections.map(|(selection, plan)| selection.unwrap_or_else(|| nothing(plan))).collect();
        for (plan, selection) in plans.iter().zip(&mut selections) {
            // What is told of a room that one came into does not follow what the client may know of it from before.
            selection.limited |= plan.is_new && self.since().is_some();
        }
        Ok(selections)
    }

    fn read_at_once(&self, room: &Room, at_least: usize, round: usize) -> usize {
        let limit = self.timeline_limit(&room.room_id).max(at_least);
        // Filters may let little pass: the farther back, the more at once.
        limit << (2 * round)
    }

    /// The children of those of the events that have any.
    pub(super) async fn aggregations(&self, selections: &[Selection]) -> Result<Vec<(OwnedEventId, String)>> {
        let parents: Vec<Arc<Pdu>> = selections
            .iter()
            .flat_map(|selection| &selection.events)
            .filter(|selected| selected.event.has_relations.load(std::sync::atomic::Ordering::Relaxed))
            .map(|selected| selected.event.event.pdu.clone())
            .collect();
        if parents.is_empty() {
            return Ok(Vec::new());
        }
        let viewer = Viewer {
            user_id: self.request.user_id.clone(),
            device_id: self.request.device_id.clone(),
            ignored: self.ignored.clone(),
        };
        self.engine.parts.aggregations.bundle(&viewer, &parents).await
    }

    pub(super) fn write_timeline(
        &self,
        object: &mut ObjectWriter<'_>,
        selection: &Selection,
        aggregations: &[(OwnedEventId, String)],
    ) {
        let mut timeline = object.object("timeline");
        timeline.with("events", |out| {
            out.push('[');
            for (index, selected) in selection.events.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                self.write_event(out, selected, aggregations);
            }
            out.push(']');
        });
        timeline.boolean("limited", selection.limited);
        timeline.display("prev_batch", PaginationToken(selection.start.0));
        timeline.end();
    }

    fn write_event(&self, out: &mut String, selected: &Selected, aggregations: &[(OwnedEventId, String)]) {
        let event = &selected.event;
        let pdu = &event.event.pdu;
        let replaced = event.replaced();
        let is_own =
            |device_id| pdu.sender() == self.user_id() && Some(device_id) == self.request.device_id.as_ref();
        let unsigned = Unsigned {
            age: Some(Unsigned::age_of(pdu, self.now)),
            transaction_id: event
                .sent_by
                .as_ref()
                .filter(|(device_id, _)| is_own(device_id))
                .map(|(_, txn_id)| txn_id.as_str()),
            membership: Some(selected.membership.as_str()),
            prev_content: replaced.map(|replaced| replaced.pdu.content()),
            prev_sender: replaced.map(|replaced| replaced.pdu.sender().as_str()),
            replaces_state: replaced.map(|replaced| &**replaced.pdu.event_id()),
            redacted_because: event.redacted_because.as_deref(),
            relations: aggregations
                .iter()
                .find(|(event_id, _)| event_id == pdu.event_id())
                .map(|(_, json)| json.as_str()),
            ..Unsigned::default()
        };
        self.write_fields(out, pdu, |out| event.event.json().write(out, None, &unsigned));
    }

    /// Writes an event in the format and with the fields that the filter asks for.
    pub(super) fn write_fields(&self, out: &mut String, pdu: &Pdu, write: impl FnOnce(&mut String)) {
        let filter = self.filter();
        if filter.is_federation_format {
            out.push_str(pdu.json());
            return;
        }
        let Some(fields) = &filter.event_fields else { return write(out) };
        let mut whole = String::new();
        write(&mut whole);
        let whole: Value = serde_json::from_str(&whole).unwrap_or_default();
        out.push_str(&only_fields(&whole, fields).to_string());
    }
}

/// The parts of an object that some paths lead to.
fn only_fields(whole: &Value, paths: &[Vec<String>]) -> Value {
    let mut part = Value::Object(serde_json::Map::new());
    for path in paths {
        let Some(value) = path.iter().try_fold(whole, |value, name| value.get(name)) else { continue };
        let mut place = &mut part;
        for name in path {
            if !place.is_object() {
                // A shorter path brought all of it already.
                break;
            }
            place = &mut place[name.as_str()];
            if place.is_null() {
                *place = Value::Object(serde_json::Map::new());
            }
        }
        *place = value.clone();
    }
    part
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_fields_asked_for_are_kept() {
        let event = json!({"type": "m.room.message", "content": {"body": "hi", "msgtype": "m.text"}, "sender": "@a:b"});
        let check = |paths: &[&[&str]], expected: Value| {
            let paths: Vec<Vec<String>> =
                paths.iter().map(|path| path.iter().map(|&name| name.to_owned()).collect()).collect();
            assert_eq!(only_fields(&event, &paths), expected, "{paths:?}");
        };
        check(&[], json!({}));
        check(&[&["type"]], json!({"type": "m.room.message"}));
        check(&[&["content", "body"], &["sender"]], json!({"content": {"body": "hi"}, "sender": "@a:b"}));
        check(&[&["content", "absent"]], json!({}));
        check(&[&["content"]], json!({"content": {"body": "hi", "msgtype": "m.text"}}));
    }
}
