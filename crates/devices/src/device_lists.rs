//! Whose device lists ([spec](https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user))
//! changed lately, in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use myelin_replication::{Batch, Stamped};
use myelin_types::{Position, StreamId, WriterId};
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};

use crate::DeviceListRow;

/// Changes that are remembered.
const CAPACITY: usize = 20_000;

/// A change: whose keys, and who alone learns of it, if not everyone.
type Change = (OwnedUserId, Option<OwnedUserId>);

/// The latest changes, each user's last one.
pub(crate) struct RecentChanges {
    state: Mutex<State>,
    capacity: usize,
}

struct State {
    /// Complete for whoever has seen at least this.
    floor: Position,
    changes: BTreeMap<WriterId, BTreeMap<StreamId, Change>>,
    latest: HashMap<(WriterId, Change), StreamId>,
}

impl RecentChanges {
    /// Knows nothing of what happened up to `floor`.
    pub fn new(floor: Position) -> Self {
        Self::with_capacity(floor, CAPACITY)
    }

    fn with_capacity(floor: Position, capacity: usize) -> Self {
        let state = State { floor, changes: BTreeMap::new(), latest: HashMap::new() };
        Self { state: Mutex::new(state), capacity }
    }

    /// Takes in what a batch of the stream says.
    pub fn apply(&self, batch: &Batch<'_, DeviceListRow>) {
        let mut state = self.state.lock();
        for Stamped { id, writer, row } in batch.rows {
            let change = match row {
                DeviceListRow::Changed { user_id } => (user_id.clone(), None),
                DeviceListRow::Signed { user_id, by } => (user_id.clone(), Some(by.clone())),
                DeviceListRow::KeyCounts { .. } => continue,
            };
            state.insert(*writer, *id, change);
        }
        while state.latest.len() > self.capacity {
            state.evict();
        }
    }

    /// The users whose changes `asker` learns of, from `since` (exclusive) to `upto`; `None` if what happened since
    /// then is not known any more.
    pub fn since(
        &self,
        since: &Position,
        upto: &Position,
        asker: &UserId,
        shares_room: impl Fn(&UserId) -> bool,
    ) -> Option<BTreeSet<OwnedUserId>> {
        let state = self.state.lock();
        if !since.covers_all(&state.floor) {
            return None;
        }
        let mut changed = BTreeSet::new();
        for (writer, changes) in &state.changes {
            let (from, to) = (since.of(*writer), upto.of(*writer));
            if from >= to {
                continue;
            }
            let range = changes.range((std::ops::Bound::Excluded(from), std::ops::Bound::Included(to)));
            changed.extend(
                range
                    .filter(|(_, change)| concerns(change, asker, &shares_room))
                    .map(|(_, change)| change.0.clone()),
            );
        }
        Some(changed)
    }
}

impl State {
    fn insert(&mut self, writer: WriterId, id: StreamId, change: Change) {
        let changes = self.changes.entry(writer).or_default();
        if let Some(earlier) = self.latest.insert((writer, change.clone()), id) {
            changes.remove(&earlier);
        }
        changes.insert(id, change);
    }

    /// Drops the oldest change.
    fn evict(&mut self) {
        let firsts =
            self.changes.iter().filter_map(|(writer, changes)| Some((*changes.keys().next()?, *writer)));
        let Some((id, writer)) = firsts.min() else { return };
        if let Some(change) = self.changes.get_mut(&writer).and_then(|changes| changes.remove(&id)) {
            self.latest.remove(&(writer, change));
        }
        self.floor.advance(writer, id);
    }
}

/// Whether `asker` learns of a change.
pub(crate) fn concerns(change: &Change, asker: &UserId, shares_room: impl Fn(&UserId) -> bool) -> bool {
    let (user_id, seen_by) = change;
    match seen_by {
        Some(seen_by) => seen_by == asker,
        None => user_id == asker || shares_room(user_id),
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    fn batch(changes: &RecentChanges, rows: &[(i64, i16, &str)]) {
        let rows: Vec<_> = rows
            .iter()
            .map(|(id, writer, user_id)| Stamped {
                id: StreamId(*id),
                writer: WriterId(*writer),
                row: DeviceListRow::Changed { user_id: UserId::parse(*user_id).unwrap() },
            })
            .collect();
        changes.apply(&Batch { rows: &rows, position: &Position::default() });
    }

    fn since(changes: &RecentChanges, since: &str, upto: &str) -> Option<Vec<String>> {
        let found =
            changes.since(&since.parse().unwrap(), &upto.parse().unwrap(), user_id!("@me:x"), |user_id| {
                user_id != "@stranger:x"
            })?;
        Some(found.into_iter().map(|user_id| user_id.to_string()).collect())
    }

    #[test]
    fn changes_between_two_positions_are_told_to_those_who_share_a_room() {
        let changes = RecentChanges::new("3".parse().unwrap());
        batch(&changes, &[(4, 1, "@a:x"), (5, 2, "@b:x"), (6, 1, "@stranger:x"), (7, 1, "@me:x")]);
        assert_eq!(since(&changes, "2", "7"), None, "what was before the start is not known");
        assert_eq!(since(&changes, "3", "7").unwrap(), ["@a:x", "@b:x", "@me:x"]);
        assert_eq!(since(&changes, "3~1.4", "7").unwrap(), ["@b:x", "@me:x"]);
        assert_eq!(since(&changes, "3", "3~2.5").unwrap(), ["@b:x"]);
        assert!(since(&changes, "7", "7").unwrap().is_empty());
    }

    #[test]
    fn only_the_signer_learns_of_a_signature() {
        let change = |by: &UserId| (user_id!("@a:x").to_owned(), Some(by.to_owned()));
        assert!(concerns(&change(user_id!("@me:x")), user_id!("@me:x"), |_| false));
        assert!(!concerns(&change(user_id!("@b:x")), user_id!("@me:x"), |_| true));
    }

    #[test]
    fn what_was_evicted_raises_the_floor_and_a_users_later_change_replaces_the_earlier() {
        let changes = RecentChanges::with_capacity(Position::default(), 2);
        batch(&changes, &[(1, 1, "@a:x"), (2, 1, "@b:x"), (3, 1, "@a:x")]);
        assert_eq!(since(&changes, "0", "9").unwrap(), ["@a:x", "@b:x"]);
        batch(&changes, &[(4, 1, "@c:x")]);
        assert_eq!(since(&changes, "1~1.2", "9").unwrap(), ["@a:x", "@c:x"]);
        assert_eq!(since(&changes, "1", "9"), None, "the change of b was dropped");
    }
}
