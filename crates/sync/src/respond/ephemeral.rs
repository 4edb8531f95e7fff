//! Receipts and typing notifications of the rooms of an answer.

use std::collections::{BTreeMap, HashMap};

use myelin_ephemeral::{ReceiptKind, ReceiptRow, ReceiptThread};
use myelin_events::raw_json::{ObjectWriter, push_string};
use myelin_storage::{Result, StorageError, receipts};
use myelin_types::Position;
use ruma::OwnedUserId;

use super::{Context, plan::RoomPlan};

/// What is told of receipts: by event, type and user.
type Content = BTreeMap<String, BTreeMap<&'static str, BTreeMap<OwnedUserId, Mark>>>;

/// A receipt without its place.
struct Mark {
    ts: u64,
    thread: ReceiptThread,
}

/// The new receipts of some rooms.
pub(super) struct NewReceipts(HashMap<i64, Vec<ReceiptRow>>);

impl Context<'_> {
    /// The receipts that the client does not know, of rooms where memory does not reach back far enough.
    pub(super) async fn load_receipts(&self, plans: &[RoomPlan]) -> Result<NewReceipts> {
        let beginning = Position::default();
        let mut wanted: [(Vec<i64>, &Position); 2] = [
            (Vec::new(), &beginning),
            (Vec::new(), self.since().map_or(&beginning, |since| &since.receipts)),
        ];
        for plan in plans.iter().filter(|plan| plan.left_at.is_none()) {
            let inner = plan.room.inner.read();
            match self.since() {
                Some(since) if !plan.is_new => {
                    if !inner.receipts.reaches_back_to(&since.receipts) {
                        wanted[1].0.push(plan.room.nid.0);
                    }
                }
                _ => wanted[0].0.push(plan.room.nid.0),
            }
        }
        let mut found: HashMap<i64, Vec<ReceiptRow>> = HashMap::new();
        let rooms: HashMap<i64, &RoomPlan> = plans.iter().map(|plan| (plan.room.nid.0, plan)).collect();
        for (nids, after) in wanted {
            if nids.is_empty() {
                continue;
            }
            let client = self.engine.parts.database.get().await?;
            let rows = receipts::receipts_of_rooms(&client, &nids, self.user_id().as_str(), after).await?;
            drop(client);
            found.extend(nids.into_iter().map(|nid| (nid, Vec::new())));
            for row in rows.into_iter().filter(|row| self.upto.receipts.covers(row.writer, row.stream_id)) {
                let Some(plan) = rooms.get(&row.room_nid) else { continue };
                let inconsistent = |_| StorageError::Inconsistent("a receipt has an invalid id".to_owned());
                found.entry(row.room_nid).or_default().push(ReceiptRow {
                    room_nid: row.room_nid,
                    room_id: plan.room.room_id.clone(),
                    user_id: row.user_id.try_into().map_err(inconsistent)?,
                    kind: ReceiptKind::from_column(row.receipt_type)?,
                    thread: ReceiptThread::from_thread_id(Some(&row.thread_id))?,
                    event_id: row.event_id.try_into().map_err(inconsistent)?,
                    event_pos: row.event_pos,
                    ts: u64::try_from(row.ts).unwrap_or_default(),
                });
            }
        }
        Ok(NewReceipts(found))
    }

    /// Writes the ephemeral events of a room, and gives whether there are any.
    pub(super) fn write_ephemeral(
        &self,
        object: &mut ObjectWriter<'_>,
        plan: &RoomPlan,
        read: &NewReceipts,
    ) -> bool {
        let filter = &self.filter().ephemeral;
        let mut events: Vec<String> = Vec::new();
        if !filter.passes_nothing(&plan.room.room_id) {
            if filter.matches_type("m.receipt") {
                events.extend(self.receipt_events(plan, read));
            }
            if filter.matches_type("m.typing") {
                events.extend(self.typing_event(plan));
            }
        }
        super::write_events(object, "ephemeral", events, |out, event| out.push_str(&event)) > 0
    }

    fn receipt_events(&self, plan: &RoomPlan, read: &NewReceipts) -> Vec<String> {
        let mut contents: Vec<Content> = Vec::new();
        let mut add = |row: &ReceiptRow| {
            let is_own = row.user_id == self.request.user_id;
            if (row.kind == ReceiptKind::ReadPrivate && !is_own) || self.ignored.contains(&row.user_id) {
                return;
            }
            place(&mut contents, row);
        };
        match read.0.get(&plan.room.nid.0) {
            Some(rows) => rows.iter().for_each(&mut add),
            None => {
                let inner = plan.room.inner.read();
                let Some(since) = self.since() else { return Vec::new() };
                if let Some(rows) = inner.receipts.between(&since.receipts, &self.upto.receipts) {
                    rows.for_each(|stamped| add(&stamped.row));
                }
            }
        }
        contents.iter().map(write_receipts).collect()
    }

    fn typing_event(&self, plan: &RoomPlan) -> Option<String> {
        let beginning = Position::default();
        let since = self.since().filter(|_| !plan.is_new).map(|since| &since.typing);
        if since.is_some_and(|since| !plan.room.has_typing_since(since)) {
            return None;
        }
        let users = self.engine.parts.typing.changed_since(plan.room.nid.0, since.unwrap_or(&beginning))?;
        // Nobody is no news to somebody who knows of nobody.
        if users.is_empty() && since.is_none() {
            return None;
        }
        let mut json = String::new();
        let mut event = ObjectWriter::new(&mut json);
        event.string("type", "m.typing");
        let mut content = event.object("content");
        content.with("user_ids", |out| {
            out.push('[');
            let users = users.iter().filter(|user_id| !self.ignored.contains(*user_id));
            for (index, user_id) in users.enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_string(out, user_id.as_str());
            }
            out.push(']');
        });
        content.end();
        event.end();
        Some(json)
    }
}

/// Puts a receipt into the first event that has room for it: a user who marks the same event in two threads needs two.
fn place(contents: &mut Vec<Content>, row: &ReceiptRow) {
    let is_taken = |content: &Content| {
        let users = content.get(row.event_id.as_str()).and_then(|types| types.get(row.kind.as_str()));
        users.and_then(|users| users.get(&row.user_id)).is_some_and(|mark| mark.thread != row.thread)
    };
    let index = contents.iter().position(|content| !is_taken(content)).unwrap_or_else(|| {
        contents.push(Content::new());
        contents.len() - 1
    });
    let types = contents[index].entry(row.event_id.to_string()).or_default();
    let mark = Mark { ts: row.ts, thread: row.thread.clone() };
    types.entry(row.kind.as_str()).or_default().insert(row.user_id.clone(), mark);
}

fn write_receipts(content: &Content) -> String {
    let mut json = String::new();
    let mut event = ObjectWriter::new(&mut json);
    event.string("type", "m.receipt");
    event.with("content", |out| {
        write_map(out, content, |out, types| {
            write_map(out, types, |out, users| {
                write_map(out, users, |out, mark| {
                    let mut receipt = ObjectWriter::new(out);
                    receipt.integer("ts", i64::try_from(mark.ts).unwrap_or(i64::MAX));
                    if let Some(thread_id) = mark.thread.thread_id() {
                        receipt.string("thread_id", thread_id);
                    }
                    receipt.end();
                });
            });
        });
    });
    event.end();
    json
}

fn write_map<K: AsRef<str>, V>(
    out: &mut String,
    map: &BTreeMap<K, V>,
    mut write: impl FnMut(&mut String, &V),
) {
    out.push('{');
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_string(out, key.as_ref());
        out.push(':');
        write(out, value);
    }
    out.push('}');
}
