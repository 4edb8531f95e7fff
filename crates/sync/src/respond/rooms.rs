//! The `rooms` of an answer.

use std::collections::HashSet;

use myelin_events::raw_json::{ObjectWriter, push_string};
use myelin_storage::Result;
use ruma::{OwnedUserId, events::room::member::MembershipState};

use super::{
    Context, device::AccountData, ephemeral::NewReceipts, plan::RoomPlan, state::Gaps, summary::Summary,
    write_events,
};
use crate::{
    room::{Pinned, Selection},
    unread::Unread,
};

/// Rooms whose parts are read and written together: what bounds the memory of an initial sync.
const ROOMS_AT_ONCE: usize = 64;

/// Rooms that are told without letting others have a turn. What is more is not begun on the thread that took the
/// request: it goes on as a task after the first time that it waits.
const ROOMS_IN_PASSING: usize = 8;

/// Whose membership of the user's rooms changed: the source of `device_lists`.
#[derive(Debug, Default)]
pub(super) struct MembershipNews {
    /// Who came into a room of the user.
    pub came: HashSet<OwnedUserId>,
    /// Who left a room of the user.
    pub left: HashSet<OwnedUserId>,
    /// Rooms that the user came into.
    pub joined_rooms: Vec<i64>,
    /// Rooms that the user left.
    pub left_rooms: Vec<i64>,
    /// Rooms of which some changes were not looked at one by one.
    pub gap_rooms: Vec<i64>,
}

/// Rooms with all that is to be said of them.
struct Prepared<'a> {
    _pinned: Vec<Pinned>,
    plans: &'a [RoomPlan],
    selections: Vec<Selection>,
    aggregations: Vec<(ruma::OwnedEventId, String)>,
    gaps: Gaps,
    summaries: Vec<Option<Summary>>,
    members: Vec<HashSet<OwnedUserId>>,
    receipts: NewReceipts,
    unread: Vec<Option<Unread>>,
}

impl Context<'_> {
    /// Writes the rooms. Gives whether any is worth telling, and whose membership changed.
    pub(super) async fn write_rooms(
        &self,
        object: &mut ObjectWriter<'_>,
        account_data: &AccountData,
    ) -> Result<(bool, MembershipNews)> {
        let plan = self.plan(|room_id| account_data.has_room(room_id)).await?;
        let mut news = MembershipNews::default();
        let (mut join, mut leave) = (String::new(), String::new());
        for plans in plan.timelines.chunks(ROOMS_AT_ONCE) {
            if plans.len() > ROOMS_IN_PASSING {
                tokio::task::yield_now().await;
            }
            let prepared = self.prepare(plans).await?;
            for (index, plan) in plans.iter().enumerate() {
                let out = if plan.left_at.is_some() { &mut leave } else { &mut join };
                self.write_room(out, &prepared, index, account_data);
                self.collect_news(&mut news, plan, &prepared.selections[index]);
            }
        }
        let (invite, knock) = self.write_invites(&plan.invites).await?;
        let mut has_news = false;
        let mut rooms = object.object("rooms");
        for (name, members) in [("join", join), ("invite", invite), ("knock", knock), ("leave", leave)] {
            has_news |= !members.is_empty();
            rooms.with(name, |out| {
                out.push('{');
                out.push_str(&members);
                out.push('}');
            });
        }
        rooms.end();
        Ok((has_news, news))
    }

    async fn prepare<'a>(&self, plans: &'a [RoomPlan]) -> Result<Prepared<'a>> {
        let pinned = plans.iter().map(|plan| plan.room.pin()).collect();
        for plan in plans {
            plan.room.used.store(self.now, std::sync::atomic::Ordering::Relaxed);
        }
        let selections = self.timelines(plans).await?;
        let aggregations = self.aggregations(&selections).await?;
        let gaps = self.load_states(plans, &selections).await?;
        let summaries = self.summaries(plans, &selections).await?;
        let members = self.load_members(plans, &selections, &summaries).await?;
        let receipts = self.load_receipts(plans).await?;
        let unread = self.unread(plans).await?;
        Ok(Prepared {
            _pinned: pinned,
            plans,
            selections,
            aggregations,
            gaps,
            summaries,
            members,
            receipts,
            unread,
        })
    }

    /// Appends `"!room:…":{…}`, unless there is nothing to tell.
    fn write_room(
        &self,
        out: &mut String,
        prepared: &Prepared<'_>,
        index: usize,
        account_data: &AccountData,
    ) {
        let plan = &prepared.plans[index];
        let selection = &prepared.selections[index];
        let start = out.len();
        if !out.is_empty() {
            out.push(',');
        }
        push_string(out, plan.room.room_id.as_str());
        out.push(':');
        let mut room = ObjectWriter::new(out);
        let state = self.state_of(plan, selection, &prepared.gaps, &prepared.members[index]);
        let mut is_news = plan.is_new || self.request.full_state || plan.left_at.is_some();
        is_news |= !selection.events.is_empty() || selection.limited || !state.is_empty();
        self.write_timeline(&mut room, selection, &prepared.aggregations);
        let name = if self.request.use_state_after { "state_after" } else { "state" };
        write_events(&mut room, name, &state, |out, event| {
            self.write_fields(out, &event.pdu, |out| event.write_state(out, self.now));
        });
        is_news |= self.write_room_account_data(&mut room, plan, account_data);
        if plan.left_at.is_none() {
            is_news |= self.write_ephemeral(&mut room, plan, &prepared.receipts);
            match &prepared.summaries[index] {
                Some(summary) => summary.write(&mut room),
                None => room.object("summary").end(),
            }
            let unread = prepared.unread[index].as_ref();
            self.write_unread(&mut room, unread.unwrap_or(&Unread::default()));
            is_news |= self.has_new_marks(plan);
        }
        room.end();
        if !is_news {
            out.truncate(start);
        }
    }

    /// Whether the user has read something elsewhere, by a receipt that only the counts show.
    fn has_new_marks(&self, plan: &RoomPlan) -> bool {
        let Some(since) = self.since() else { return false };
        let inner = plan.room.inner.read();
        inner
            .receipts
            .between(&since.receipts, &self.upto.receipts)
            .is_some_and(|mut rows| rows.any(|stamped| stamped.row.user_id == self.request.user_id))
    }

    fn collect_news(&self, news: &mut MembershipNews, plan: &RoomPlan, selection: &Selection) {
        let Some(since) = self.since() else { return };
        let room_nid = plan.room.nid.0;
        if plan.left_at.is_some() {
            news.left_rooms.push(room_nid);
            return;
        }
        if plan.is_new {
            news.joined_rooms.push(room_nid);
            return;
        }
        if selection.limited {
            news.gap_rooms.push(room_nid);
            return;
        }
        let inner = plan.room.inner.read();
        let later =
            inner.events.iter().rev().take_while(|event| !since.events.covers(event.writer, event.pos));
        for change in
            later.flat_map(|event| event.changes.iter()).filter(|change| change.is_coming_or_going())
        {
            let Ok(user_id) = OwnedUserId::try_from(&*change.state_key) else { continue };
            match crate::event::membership(change.event.as_ref()) {
                MembershipState::Join => _ = news.came.insert(user_id),
                MembershipState::Leave | MembershipState::Ban => _ = news.left.insert(user_id),
                _ => {}
            }
        }
    }
}
