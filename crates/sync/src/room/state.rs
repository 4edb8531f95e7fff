//! The current state of a room, as far as it was needed, and what it was at an earlier place.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use myelin_storage::sync::members::MemberCount;
use myelin_types::{Position, StreamId};
use ruma::{OwnedUserId, events::room::member::MembershipState};

use super::Inner;
use crate::event::{Change, Rendered, RoomEvent};

const MEMBER: &str = "m.room.member";

/// What holds for the keys of a type.
type Keys = BTreeMap<Box<str>, Entry>;

/// The state that holds now.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// All of the state but the members, by type and key; `None`: not read yet.
    others: Option<BTreeMap<Box<str>, Keys>>,
    /// Members that were needed.
    members: HashMap<Box<str>, Entry>,
    /// `members` is complete.
    has_all_members: bool,
    counts: Option<(Counts, Position)>,
    /// The members who came first; `None`: not read since a member changed.
    first_members: Option<Arc<FirstMembers>>,
    /// How often a member changed while this is here.
    member_changes: u64,
    size_bytes: usize,
}

/// Those who give a room without a name its name: a few, by their age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FirstMembers {
    /// Who has joined or is invited.
    pub present: Vec<OwnedUserId>,
    /// Who has left, where there is at most one who is present.
    pub gone: Vec<OwnedUserId>,
}

/// An event of the state.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub event: Arc<Rendered>,
    /// The place from which on it holds.
    pub since: StreamId,
}

/// How many members a room has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub joined: u64,
    pub invited: u64,
}

impl Counts {
    fn slot(&mut self, membership: &MembershipState) -> Option<&mut u64> {
        match membership {
            MembershipState::Join => Some(&mut self.joined),
            MembershipState::Invite => Some(&mut self.invited),
            _ => None,
        }
    }
}

impl State {
    /// Whether everything but the members is here.
    pub fn has_others(&self) -> bool {
        self.others.is_some()
    }

    /// Whether all members are here.
    pub fn has_all_members(&self) -> bool {
        self.has_all_members
    }

    /// Whether a member is known, or known not to be there.
    pub fn knows_member(&self, user_id: &str) -> bool {
        self.has_all_members || self.members.contains_key(user_id)
    }

    /// How many members there are, if that is known.
    pub fn counts(&self) -> Option<Counts> {
        if self.has_all_members {
            let mut counts = Counts::default();
            for entry in self.members.values() {
                if let Some(slot) = counts.slot(entry.event.membership()) {
                    *slot += 1;
                }
            }
            return Some(counts);
        }
        self.counts.as_ref().map(|(counts, _)| *counts)
    }

    /// The members who came first, if that is known, and how often a member has changed.
    pub fn first_members(&self) -> (Option<Arc<FirstMembers>>, u64) {
        (self.first_members.clone(), self.member_changes)
    }

    /// Takes over what was read when so many members had changed.
    pub fn learn_first_members(&mut self, members: Arc<FirstMembers>, member_changes: u64) {
        if self.member_changes == member_changes {
            self.first_members = Some(members);
        }
    }

    /// About how much memory this takes.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// What holds for a key.
    pub fn get(&self, event_type: &str, state_key: &str) -> Option<&Entry> {
        if event_type == MEMBER {
            return self.members.get(state_key);
        }
        self.others.as_ref()?.get(event_type)?.get(state_key)
    }

    /// Everything but the members.
    pub fn others(&self) -> impl Iterator<Item = &Entry> {
        self.others.iter().flat_map(BTreeMap::values).flat_map(Keys::values)
    }

    /// The members that are here.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.members.iter().map(|(user_id, entry)| (&**user_id, entry))
    }

    fn learn(&mut self, entries: impl IntoIterator<Item = Entry>, with_others: bool, all_members: bool) {
        if with_others && self.others.is_none() {
            self.others = Some(BTreeMap::new());
        }
        for entry in entries {
            let Some(state_key) = entry.event.pdu.state_key() else { continue };
            let event_type = entry.event.pdu.event_type().to_string();
            let state_key = state_key.to_owned();
            self.put(&event_type, &state_key, Some(entry));
        }
        self.has_all_members |= all_members;
    }

    fn learn_counts(&mut self, count: &MemberCount) {
        let counts = Counts { joined: count.joined.unsigned_abs(), invited: count.invited.unsigned_abs() };
        self.counts = Some((counts, count.at.clone()));
    }

    /// Takes in what an event changed.
    pub fn apply(&mut self, event: &RoomEvent) {
        for change in &event.changes {
            if change.is_member() {
                self.count(event, change);
                self.first_members = None;
                self.member_changes += 1;
            }
        }
        self.put_changes(event);
    }

    fn put_changes(&mut self, event: &RoomEvent) {
        for change in &event.changes {
            let is_kept = match change.is_member() {
                true => self.has_all_members || self.members.contains_key(&change.state_key),
                false => self.others.is_some(),
            };
            if is_kept {
                let entry =
                    change.event.as_ref().map(|changed| Entry { event: changed.clone(), since: event.pos });
                self.put(&change.event_type, &change.state_key, entry);
            }
        }
    }

    /// Puts a redacted event in the place of the one that it was.
    pub fn redact(&mut self, redacted: &Arc<Rendered>) {
        let Some(state_key) = redacted.pdu.state_key() else { return };
        let event_type = redacted.pdu.event_type().to_string();
        let Some(entry) = self.get(&event_type, state_key) else { return };
        if entry.event.pdu.event_id() == redacted.pdu.event_id() {
            let entry = Entry { event: redacted.clone(), ..entry.clone() };
            self.put(&event_type, state_key, Some(entry));
        }
    }

    /// An older entry never takes the place of a newer one: what was read may be behind what was heard since.
    fn put(&mut self, event_type: &str, state_key: &str, entry: Option<Entry>) {
        let known = self.get(event_type, state_key);
        if let (Some(known), Some(entry)) = (known, &entry)
            && known.since > entry.since
        {
            return;
        }
        self.size_bytes = self.size_bytes.saturating_sub(known.map_or(0, Entry::size_bytes));
        self.size_bytes += entry.as_ref().map_or(0, Entry::size_bytes);
        let keys = match (event_type, &mut self.others) {
            (MEMBER, _) => {
                match entry {
                    Some(entry) => _ = self.members.insert(state_key.into(), entry),
                    None => _ = self.members.remove(state_key),
                }
                return;
            }
            (_, None) => return,
            (_, Some(others)) => match others.get_mut(event_type) {
                Some(keys) => keys,
                None => others.entry(event_type.into()).or_default(),
            },
        };
        match entry {
            Some(entry) => _ = keys.insert(state_key.into(), entry),
            None => _ = keys.remove(state_key),
        }
    }

    fn count(&mut self, event: &RoomEvent, change: &Change) {
        let Some((counts, at)) = &mut self.counts else { return };
        // The database had counted it already.
        if at.covers(event.writer, event.pos) {
            return;
        }
        let before = crate::event::membership(change.replaced.as_ref());
        let after = crate::event::membership(change.event.as_ref());
        if let Some(slot) = counts.slot(&before) {
            *slot = slot.saturating_sub(1);
        }
        if let Some(slot) = counts.slot(&after) {
            *slot += 1;
        }
    }
}

impl Entry {
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + 64 + self.event.size_bytes()
    }
}

/// What held for keys that changed later: `None` for a key that was not there.
pub(crate) type Earlier<'a> = HashMap<(&'a str, &'a str), Option<&'a Arc<Rendered>>>;

impl Inner {
    /// Takes over what was read from the database: all of the state, or all but the members, or some members.
    pub fn learn_state(
        &mut self,
        entries: impl IntoIterator<Item = Entry>,
        with_others: bool,
        all_members: bool,
    ) {
        self.state.learn(entries, with_others, all_members);
        // What happened while it was being read is among the events that are here.
        for event in &self.events {
            self.state.put_changes(event);
        }
    }

    /// Takes over the counts of members as the database had them at a position.
    pub fn learn_counts(&mut self, count: &MemberCount) {
        self.state.learn_counts(count);
        for event in &self.events {
            for change in event.changes.iter().filter(|change| change.is_member()) {
                self.state.count(event, change);
            }
        }
    }

    /// What held just after the place `at` for every key that changed since.
    pub fn earlier(&self, at: StreamId) -> Earlier<'_> {
        let mut earlier = Earlier::new();
        // The changes are few and at the end.
        let later = self.events.iter().rev().take_while(|event| event.pos > at);
        for event in later {
            for change in &event.changes {
                earlier.insert((&change.event_type, &change.state_key), change.replaced.as_ref());
            }
        }
        earlier
    }

    /// What held for a key just after the place `at`.
    pub fn value_at<'a>(
        &'a self,
        event_type: &str,
        state_key: &str,
        at: StreamId,
    ) -> Option<&'a Arc<Rendered>> {
        let later = self.events.iter().rev().take_while(|event| event.pos > at);
        let replaced = later
            .flat_map(|event| event.changes.iter())
            .filter(|change| &*change.event_type == event_type && &*change.state_key == state_key)
            .last();
        match replaced {
            Some(change) => change.replaced.as_ref(),
            None => self.state.get(event_type, state_key).map(|entry| &entry.event),
        }
    }
}
