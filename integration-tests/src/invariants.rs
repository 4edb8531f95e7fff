//! What must hold whatever happens to the servers, checked over all that the clients of a test did and saw.
//!
//! - Every event whose sending was answered 200 is in the timeline of every joined member, exactly once; all members of a room
//!   see its events in one order, and a sender's own in the order in which they were answered; a transaction ID makes one event,
//!   however often the request is repeated (`messages`).
//! - A message to a device arrives at least once (`to_device`).
//! - Who shares a room with somebody is told when their devices change (`device_lists`).
//! - Who should know of a receipt, of account data, of who types and of what somebody says of how they are ends up with the last that
//!   was acknowledged (`latest`).
//! - Unread counts end equal to a recount of the timeline after the last receipt (`unread`).
//! - The current state of a room equals a replay of its state events (`state`).
//! - In the end every process is ready, has caught up with every stream and has not grown (`processes`).
//!
//! The driver of a test writes down a [`History`]; [`History::violations`] is the verdict.

mod device_lists;
mod latest;
mod messages;
mod processes;
mod state;
mod to_device;
mod unread;

use std::{fmt, time::Duration};

pub use self::{
    messages::{Acknowledged, Seen},
    processes::ProcessEnd,
    state::{State, StateEvent},
};

/// All that the clients of a test did and saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    messages: messages::Messages,
    to_device: to_device::ToDevice,
    device_lists: device_lists::DeviceLists,
    latest: latest::Latest,
    unread: unread::Unread,
    state: state::States,
    processes: Vec<ProcessEnd>,
    pub(crate) failures: Vec<String>,
    pub(crate) figures: Figures,
}

/// How long clients had to wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// The longest time that anybody waited until a message was acknowledged, however often it had to be repeated.
    pub longest_wait: Duration,
    /// From the last acknowledgment until everybody had seen everything.
    pub seen_after: Duration,
}

/// A way in which a history is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl History {
    /// Notes an answer of 200. The answers of one sender in one room are noted in the order in which they came, each
    /// before the next was sent.
    pub fn acknowledge(&mut self, acknowledged: Acknowledged) {
        self.messages.acknowledged.push(acknowledged);
    }

    /// Notes the whole timeline of a member who was joined before the first acknowledged event was sent.
    pub fn saw(&mut self, room_id: &str, member: &str, timeline: &[Seen]) {
        self.messages
            .timelines
            .entry(room_id.to_owned())
            .or_default()
            .insert(member.to_owned(), timeline.to_vec());
    }

    /// Notes that a message to a device was answered 200, or that it arrived there.
    pub fn message_to_device(&mut self, device: &str, message: &str, arrived: bool) {
        self.to_device.note(device, message, arrived);
    }

    /// Notes that a user's devices changed while others, who share a room with them, were syncing, and which of these were told
    /// so afterwards.
    pub fn devices_changed(&mut self, user: &str, observers: &[&str], told: &[&str]) {
        self.device_lists.note(user, observers, told);
    }

    /// Notes what was acknowledged last of something that is written again and again, and what somebody who should know of it was
    /// told of it last.
    pub fn latest(&mut self, key: &str, written: &str, observer: &str, told: Option<&str>) {
        self.latest.note(key, written, observer, told);
    }

    /// Notes the last receipt of a member that was answered 200. The member posts none that lies before an earlier one.
    pub fn read_up_to(&mut self, room_id: &str, member: &str, event_id: &str) {
        self.unread.read_up_to(room_id, member, event_id);
    }

    /// Notes how many notifications a process says that a member has not read in the end.
    pub fn unread(&mut self, room_id: &str, member: &str, process: &str, notifications: u64) {
        self.unread.told(room_id, member, process, notifications);
    }

    /// Notes the state events of a room in the order of its timeline, from the first.
    pub fn state_events(&mut self, room_id: &str, events: Vec<StateEvent>) {
        self.state.happened(room_id, events);
    }

    /// Notes what a process says that the state of a room is in the end.
    pub fn state(&mut self, room_id: &str, process: &str, state: State) {
        self.state.told(room_id, process, state);
    }

    /// Notes how a process ended up.
    pub fn process(&mut self, process: ProcessEnd) {
        self.processes.push(process);
    }

    /// How many sendings were answered 200.
    pub fn acknowledged(&self) -> usize {
        self.messages.acknowledged.len()
    }

    /// How many requests failed, though they were repeated with success.
    pub fn requests_failed(&self) -> usize {
        self.failures.len()
    }

    /// How long clients had to wait.
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// Everything that is wrong, nothing being best.
    pub fn violations(&self) -> Vec<Violation> {
        let mut violations = self.messages.violations();
        violations.extend(self.to_device.violations());
        violations.extend(self.device_lists.violations());
        violations.extend(self.latest.violations());
        violations.extend(self.unread.violations(&self.messages));
        violations.extend(self.state.violations());
        violations.extend(self.processes.iter().flat_map(ProcessEnd::violations));

        violations
    }

    /// Fails the test if a request of any client failed, though it was repeated with success.
    ///
    /// # Panics
    ///
    /// With the first failures, if there are any.
    pub fn assert_no_request_failed(&self) {
        let first = &self.failures[..self.failures.len().min(10)];
        assert!(first.is_empty(), "{} requests failed, for instance: {first:#?}", self.failures.len());
    }

    /// Fails the test if anything is wrong.
    ///
    /// # Panics
    ///
    /// With the first violations, if there are any.
    pub fn assert_holds(&self) {
        let violations = self.violations();
        let first: Vec<_> = violations.iter().take(20).map(|violation| format!("- {violation}\n")).collect();
        assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), first.concat());
    }
}

/// What a history is found guilty of, for the tests of each invariant.
#[cfg(test)]
#[track_caller]
fn check(history: &History, violations: &[&str]) {
    let found: Vec<_> = history.violations().iter().map(ToString::to_string).collect();
    assert_eq!(found, violations);
}
