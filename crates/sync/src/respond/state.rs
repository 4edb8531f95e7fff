//! The state that goes along with a timeline.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use myelin_events::relations::contains_url;
use myelin_rooms::RoomNid;
use myelin_storage::Result;
use myelin_types::StreamId;
use ruma::{
    OwnedUserId,
    events::{StateEventType, room::member::MembershipState},
};

use super::{Context, plan::RoomPlan, summary::Summary};
use crate::{
    event::{Rendered, RoomEvent},
    lazy,
    room::{Entry, Inner, Room, Selection},
};

const MEMBER: &str = "m.room.member";

/// What of the state a room of an answer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// Nothing at all: the user never was in the room.
    Nothing,
    /// What changed.
    Changes,
    /// All of it.
    Full,
}

impl Context<'_> {
    fn extent(&self, plan: &RoomPlan, inner: &Inner) -> Extent {
        let was_in = |left_at: StreamId| {
            let leaving = inner.events.iter().rev().find(|event| event.pos == left_at);
            leaving
                .and_then(|event| event.membership_change(self.user_id().as_str()))
                .is_some_and(|(before, _)| before == MembershipState::Join)
        };
        // Whoever declines an invite must not learn of the room in that way.
        if plan.left_at.is_some_and(|left_at| !was_in(left_at)) {
            return Extent::Nothing;
        }
        if plan.is_new || self.request.full_state { Extent::Full } else { Extent::Changes }
    }

    /// Reads what the states of these rooms need, for all of them at once.
    pub(super) async fn load_states(&self, plans: &[RoomPlan], selections: &[Selection]) -> Result<Gaps> {
        let lazy = self.filter().lazy_load_members;
        let mut rooms = Vec::new();
        let mut gaps = Vec::new();
        for (plan, selection) in plans.iter().zip(selections) {
            let inner = plan.room.inner.read();
            let has_all = inner.state.has_others() && (lazy || inner.state.has_all_members());
            match self.extent(plan, &inner) {
                Extent::Full if !has_all => rooms.push(plan.room.clone()),
                Extent::Changes if selection.limited => match plan.left_at {
                    Some(_) if !has_all => rooms.push(plan.room.clone()),
                    None if !(inner.state.has_others() && inner.state.has_all_members()) => {
                        gaps.push(plan.room.clone());
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        if !rooms.is_empty() {
            self.engine.load_states(&rooms, !lazy).await?;
        }
        match self.since() {
            Some(since) => Ok(Gaps(self.engine.load_state_changes(&gaps, &since.events).await?)),
            None => Ok(Gaps::default()),
        }
    }

    /// With lazy loading, the members whom each room needs.
    pub(super) async fn load_members(
        &self,
        plans: &[RoomPlan],
        selections: &[Selection],
        summaries: &[Option<Summary>],
    ) -> Result<Vec<HashSet<OwnedUserId>>> {
        if !self.filter().lazy_load_members {
            return Ok(vec![HashSet::new(); plans.len()]);
        }
        let mut needed = Vec::with_capacity(plans.len());
        let mut missing: Vec<(Arc<Room>, OwnedUserId)> = Vec::new();
        for ((plan, selection), summary) in plans.iter().zip(selections).zip(summaries) {
            let mut users: HashSet<OwnedUserId> =
                selection.events.iter().map(|selected| selected.event.event.pdu.sender().clone()).collect();
            users.extend(summary.iter().flat_map(|summary| summary.heroes.iter().flatten()).cloned());
            let inner = plan.room.inner.read();
            if self.extent(plan, &inner) == Extent::Full {
                users.insert(self.request.user_id.clone());
            }
            let unknown = users.iter().filter(|user_id| !inner.state.knows_member(user_id.as_str()));
            missing.extend(unknown.map(|user_id| (plan.room.clone(), user_id.clone())));
            drop(inner);
            needed.push(users);
        }
        self.engine.load_members(&missing).await?;
        Ok(needed)
    }

    /// The state events of a room of the answer.
    pub(super) fn state_of(
        &self,
        plan: &RoomPlan,
        selection: &Selection,
        gaps: &Gaps,
        members: &HashSet<OwnedUserId>,
    ) -> Vec<Arc<Rendered>> {
        let inner = plan.room.inner.read();
        let extent = self.extent(plan, &inner);
        if extent == Extent::Nothing || self.filter().state.passes_nothing(&plan.room.room_id) {
            return Vec::new();
        }
        let chooser = Chooser { context: self, plan, selection, inner: &inner };
        let mut state = match extent {
            Extent::Full => chooser.full(members),
            _ if selection.limited => chooser.gap(gaps.0.get(&plan.room.nid), members),
            _ => chooser.members(members, true),
        };
        chooser.add_later(&mut state, extent);
        let is_unfiltered = self.filter().state.passes_all(&plan.room.room_id);
        state.retain(|event| is_unfiltered || self.wants_state(event));
        self.note_members(plan.room.nid, &state, selection);
        state
    }

    fn wants_state(&self, event: &Rendered) -> bool {
        let pdu = &event.pdu;
        self.filter().state.matches(&pdu.event_type().to_string(), pdu.sender(), || contains_url(pdu))
    }

    /// Remembers whom the device is told of.
    fn note_members(&self, room_nid: RoomNid, state: &[Arc<Rendered>], selection: &Selection) {
        if self.lazy.is_none() {
            return;
        }
        let in_timeline = selection.events.iter().map(|selected| &selected.event.event);
        let members = state.iter().chain(in_timeline).filter(|event| is_member(event));
        let hashes = members.map(|event| lazy::hash(room_nid, event.pdu.event_id()));
        self.told.lock().extend(hashes);
    }

    fn is_told(&self, room_nid: RoomNid, event: &Rendered) -> bool {
        if self.filter().include_redundant_members {
            return false;
        }
        self.lazy.as_ref().is_some_and(|device| device.lock().knows(room_nid, event.pdu.event_id()))
    }
}

/// What changed in the state of rooms that are not in memory.
#[derive(Debug, Default)]
pub(super) struct Gaps(HashMap<RoomNid, Vec<Entry>>);

/// Chooses the state events of one room.
struct Chooser<'a> {
    context: &'a Context<'a>,
    plan: &'a RoomPlan,
    selection: &'a Selection,
    inner: &'a Inner,
}

impl Chooser<'_> {
    /// The place as of which the state is told, but for what came later and the timeline does not tell.
    fn at(&self) -> myelin_types::StreamId {
        if self.context.request.use_state_after { self.selection.end } else { self.selection.start }
    }

    /// All of the state; of the members, with lazy loading, only those that are needed.
    fn full(&self, members: &HashSet<OwnedUserId>) -> Vec<Arc<Rendered>> {
        let lazy = self.context.filter().lazy_load_members;
        let earlier = self.inner.earlier(self.at());
        let mut state = Vec::new();
        let all_members = self.inner.state.members().map(|(_, entry)| entry).filter(|_| !lazy);
        for entry in self.inner.state.others().chain(all_members) {
            match earlier_value(&earlier, entry) {
                Some(replaced) => state.extend(replaced.cloned()),
                None => state.push(entry.event.clone()),
            }
        }
        // What state resolution took away later was still there then.
        for ((event_type, state_key), value) in &earlier {
            let is_gone = self.inner.state.get(event_type, state_key).is_none();
            if is_gone && (!lazy || *event_type != MEMBER) {
                state.extend(value.iter().map(|value| Arc::clone(value)));
            }
        }
        if lazy {
            state.extend(self.members(members, false));
        }
        state
    }

    /// What changed between what the client has seen and the start of the timeline.
    fn gap(&self, read: Option<&Vec<Entry>>, members: &HashSet<OwnedUserId>) -> Vec<Arc<Rendered>> {
        let since = self.context.since();
        // By the minimum, since another writer may have made an old event the current state: to be told of something
        // once more does no harm.
        let is_new = |entry: &&Entry| since.is_none_or(|since| since.events.minimum() < entry.since);
        let all_members = self.inner.state.members().map(|(_, entry)| entry);
        let changed: Vec<&Entry> = match read {
            Some(read) => read.iter().filter(is_new).collect(),
            None => self.inner.state.others().chain(all_members).filter(is_new).collect(),
        };
        let earlier = self.inner.earlier(self.at());
        let mut state = Vec::with_capacity(changed.len());
        for entry in changed {
            match earlier_value(&earlier, entry) {
                Some(replaced) => state.extend(replaced.cloned()),
                None => state.push(entry.event.clone()),
            }
        }
        // Members who changed in the gap are told whether they were before or not.
        let told: HashSet<String> = state
            .iter()
            .filter(|event| is_member(event))
            .map(|event| event.pdu.event_id().to_string())
            .collect();
        let others = self.members(members, true).into_iter();
        state.extend(others.filter(|event| !told.contains(event.pdu.event_id().as_str())));
        state
    }

    /// The member events of the given users.
    fn members(&self, users: &HashSet<OwnedUserId>, unless_told: bool) -> Vec<Arc<Rendered>> {
        let at = self.at();
        let mut members: Vec<Arc<Rendered>> = users
            .iter()
            .filter_map(|user_id| self.inner.value_at(MEMBER, user_id.as_str(), at))
            .filter(|event| !unless_told || !self.context.is_told(self.plan.room.nid, event))
            .cloned()
            .collect();
        members.sort_unstable_by(|a, b| a.pdu.state_key().cmp(&b.pdu.state_key()));
        members
    }

    /// Adds what changed later without the timeline telling it: because a filter hides it, because the user may not
    /// see it as part of the history, or because state resolution did it. With `use_state_after`: all that changed.
    fn add_later(&self, state: &mut Vec<Arc<Rendered>>, extent: Extent) {
        let use_state_after = self.context.request.use_state_after;
        if use_state_after && (extent == Extent::Full || self.selection.limited) {
            return;
        }
        let mut later: HashMap<(&str, &str), Option<&Arc<Rendered>>> = HashMap::new();
        for event in self.later_events(extent) {
            let is_selected = self.selection.events.binary_search_by_key(&event.pos, |s| s.event.pos).is_ok();
            for change in &event.changes {
                let own = change.event.as_ref().is_some_and(|changed| Arc::ptr_eq(changed, &event.event));
                let key = (&*change.event_type, &*change.state_key);
                if is_selected && own && !use_state_after {
                    later.remove(&key);
                } else {
                    later.insert(key, change.event.as_ref());
                }
            }
        }
        if later.is_empty() {
            return;
        }
        state.retain(|event| {
            let event_type = event.pdu.event_type().to_string();
            !later.contains_key(&(event_type.as_str(), event.pdu.state_key().unwrap_or_default()))
        });
        state.extend(later.into_values().flatten().cloned());
    }

    /// The events after the start of the timeline, or after what the client has seen; oldest first.
    fn later_events(&self, extent: Extent) -> Vec<&Arc<RoomEvent>> {
        let from_start = extent == Extent::Full || self.selection.limited;
        let since = self.context.since().filter(|_| !from_start);
        let mut later: Vec<&Arc<RoomEvent>> = self
            .inner
            .events
            .iter()
            .rev()
            .filter(|event| {
                self.context.upto.events.covers(event.writer, event.pos)
                    && self.plan.left_at.is_none_or(|end| event.pos <= end)
            })
            .take_while(|event| match since {
                Some(since) => !since.events.covers(event.writer, event.pos),
                None => event.pos > self.selection.start,
            })
            .filter(|event| !event.changes.is_empty())
            .collect();
        later.reverse();
        later
    }
}

/// What held earlier for the key of an entry, if it changed: `Some(None)` for nothing.
#[expect(clippy::option_option, reason = "whether it changed, and whether there was anything")]
fn earlier_value<'a>(earlier: &crate::room::Earlier<'a>, entry: &Entry) -> Option<Option<&'a Arc<Rendered>>> {
    if earlier.is_empty() {
        return None;
    }
    let event_type = entry.event.pdu.event_type().to_string();
    earlier.get(&(event_type.as_str(), entry.event.pdu.state_key().unwrap_or_default())).copied()
}

fn is_member(event: &Rendered) -> bool {
    event.pdu.is_state() && event.pdu.event_type().to_string() == StateEventType::RoomMember.to_string()
}
