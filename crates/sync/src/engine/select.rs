//! Which rows of the events stream are wanted here: those of rooms that somebody here follows.

use std::{collections::HashSet, sync::Weak};

use myelin_replication::{Selector, Topic};
use myelin_rooms::RoomNid;

use super::Engine;

/// Asks the engine, for as long as it is there.
pub(super) struct FollowedRooms(pub Weak<Engine>);

impl Selector for FollowedRooms {
    fn select(&self, topics: &[Option<Topic>], take_in: &mut dyn FnMut(&[bool])) {
        let Some(engine) = self.0.upgrade() else { return take_in(&vec![true; topics.len()]) };
        // No room begins to be followed until the rows are taken in, but for a member who joins in one of them.
        let _selecting = engine.selecting.lock();
        take_in(&engine.wanted(topics));
    }
}

impl Engine {
    /// Which rows of a notice are wanted: those that are for all, and those of rooms that are followed or may be from now on.
    pub(crate) fn wanted(&self, topics: &[Option<Topic>]) -> Vec<bool> {
        let changing: HashSet<i64> =
            topics.iter().flatten().filter(|topic| topic.for_all).map(|topic| topic.of).collect();
        let rooms = self.rooms.read();
        let is_wanted =
            |topic: &Topic| changing.contains(&topic.of) || rooms.contains_key(&RoomNid(topic.of));
        topics.iter().map(|topic| topic.as_ref().is_none_or(is_wanted)).collect()
    }
}
