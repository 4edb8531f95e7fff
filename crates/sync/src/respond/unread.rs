//! The unread counts of the rooms of an answer.

use std::collections::HashMap;

use myelin_ephemeral::ReceiptThread;
use myelin_events::raw_json::{ObjectWriter, push_string};
use myelin_rooms::RoomNid;
use myelin_storage::{
    Result, receipts,
    sync::unread::{ReadUpTo, UnreadRow, count_unread},
};
use myelin_types::StreamId;

use super::{Context, plan::RoomPlan};
use crate::{
    room::Room,
    unread::{Marks, Tally, Unread},
    user::UserRoom,
};

/// Events of a room that are counted at most.
const MAX_COUNTED: i64 = 10_000;

impl Context<'_> {
    /// What is unread of each of these rooms; `None` for those that the user is not in.
    pub(super) async fn unread(&self, plans: &[RoomPlan]) -> Result<Vec<Option<Unread>>> {
        self.load_marks(plans).await?;
        let uncounted: Vec<&RoomPlan> = {
            let mut user = self.user.inner.lock();
            let is_uncounted = |plan: &&RoomPlan| {
                plan.left_at.is_none()
                    && user.rooms.get_mut(&plan.room.nid).is_some_and(|room| !self.count(room, &plan.room))
            };
            plans.iter().filter(is_uncounted).collect()
        };
        self.load_counts(&uncounted).await?;
        let mut user = self.user.inner.lock();
        for plan in uncounted {
            // What is in memory comes on top.
            let Some(room) = user.rooms.get_mut(&plan.room.nid) else { continue };
            let before = room.unread.clone();
            if !self.count(room, &plan.room) {
                room.unread = before;
            }
        }
        let unread = |plan: &RoomPlan| user.rooms.get(&plan.room.nid).and_then(|room| room.unread.clone());
        Ok(plans.iter().map(|plan| unread(plan).filter(|_| plan.left_at.is_none())).collect())
    }

    /// Counts what can be counted from memory; `false` if that is not enough.
    fn count(&self, room: &mut UserRoom, handle: &Room) -> bool {
        let Some(marks) = &room.marks else { return true };
        let base = base(room, marks);
        let inner = handle.inner.read();
        let known = room.unread.take();
        for mut unread in known.into_iter().chain([Unread::default()]) {
            if unread.advance(&inner, &self.upto.events, self.user_id(), marks, base) {
                room.unread = Some(unread);
                return true;
            }
        }
        false
    }

    async fn load_marks(&self, plans: &[RoomPlan]) -> Result<()> {
        let unknown: Vec<i64> = {
            let user = self.user.inner.lock();
            let is_unknown = |nid: &RoomNid| user.rooms.get(nid).is_some_and(|room| room.marks.is_none());
            let joined = plans.iter().filter(|plan| plan.left_at.is_none());
            joined.map(|plan| plan.room.nid).filter(is_unknown).map(|nid| nid.0).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let client = self.engine.parts.database.get().await?;
        let rows = receipts::receipts_of_user(&client, &unknown, self.user_id().as_str()).await?;
        drop(client);
        let mut found: HashMap<i64, Marks> = unknown.iter().map(|nid| (*nid, Marks::default())).collect();
        for row in rows {
            let thread = ReceiptThread::from_thread_id(Some(&row.thread_id))?;
            if let (Some(marks), Some(pos)) = (found.get_mut(&row.room_nid), row.event_pos) {
                marks.advance(&thread, pos);
            }
        }
        let mut user = self.user.inner.lock();
        for (nid, mut marks) in found {
            let Some(room) = user.rooms.get_mut(&RoomNid(nid)) else { continue };
            if let Some(handle) = &room.room {
                // What was read while this was being read from the database.
                for (.., stamped) in handle.inner.read().receipts.iter() {
                    if let (true, Some(pos)) =
                        (stamped.row.user_id == self.user.user_id, stamped.row.event_pos)
                    {
                        marks.advance(&stamped.row.thread, pos);
                    }
                }
            }
            room.marks.get_or_insert(marks);
        }
        Ok(())
    }

    /// Counts in the database what comes before the events that are in memory.
    async fn load_counts(&self, plans: &[&RoomPlan]) -> Result<()> {
        if plans.is_empty() {
            return Ok(());
        }
        let mut read = ReadUpTo::default();
        let mut counted: HashMap<i64, (Marks, StreamId)> = HashMap::new();
        let sid = {
            let user = self.user.inner.lock();
            for plan in plans {
                let Some(room) = user.rooms.get(&plan.room.nid) else { continue };
                let Some(marks) = &room.marks else { continue };
                let upto = plan.room.inner.read().place_before();
                read.room_nids.push(plan.room.nid.0);
                read.positions.push(base(room, marks).0);
                read.upto.push(upto.0);
                let threads = marks.threads.iter().map(|(root, pos)| (root.as_str(), *pos));
                for (thread_id, pos) in threads.chain([("", marks.main)]) {
                    read.thread_rooms.push(plan.room.nid.0);
                    read.thread_ids.push(thread_id.to_owned());
                    read.thread_positions.push(pos);
                }
                counted.insert(plan.room.nid.0, (marks.clone(), upto));
            }
            user.sid.unwrap_or_default()
        };
        let client = self.engine.parts.database.get().await?;
        let rows = count_unread(&client, self.user_id().as_str(), sid, &read, MAX_COUNTED).await?;
        drop(client);
        let mut by_room: HashMap<i64, Vec<UnreadRow>> = HashMap::new();
        for row in rows {
            by_room.entry(row.room_nid).or_default().push(row);
        }
        let mut user = self.user.inner.lock();
        for (nid, (marks, upto)) in counted {
            let Some(room) = user.rooms.get_mut(&RoomNid(nid)) else { continue };
            // A receipt that came meanwhile makes this count void; the next answer counts again.
            if room.marks.as_ref() == Some(&marks) {
                room.unread = Some(Unread::from_rows(by_room.get(&nid).into_iter().flatten(), upto));
            }
        }
        Ok(())
    }

    pub(super) fn write_unread(&self, object: &mut ObjectWriter<'_>, unread: &Unread) {
        let apart = self.filter().unread_thread_notifications;
        let tally = if apart { unread.main } else { unread.total() };
        write_tally(object.object("unread_notifications"), tally);
        if apart && !unread.threads.is_empty() {
            object.with("unread_thread_notifications", |out| {
                out.push('{');
                for (index, (root, tally)) in unread.threads.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    push_string(out, root.as_str());
                    out.push(':');
                    write_tally(ObjectWriter::new(out), *tally);
                }
                out.push('}');
            });
        }
    }
}

/// Nothing up to here counts: it was read, or the user was not there.
fn base(room: &UserRoom, marks: &Marks) -> StreamId {
    StreamId(marks.unthreaded).max(room.changed)
}

fn write_tally(mut object: ObjectWriter<'_>, tally: Tally) {
    object.integer("highlight_count", i64::try_from(tally.highlights).unwrap_or(i64::MAX));
    object.integer("notification_count", i64::try_from(tally.notifications).unwrap_or(i64::MAX));
    object.end();
}
