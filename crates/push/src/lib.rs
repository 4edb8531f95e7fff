//! Push rules and what an event means for each member's unread counts.
//!
//! An event's [`PushOutcome`] is worked out once, when the event is persisted: what the default rules make of it for
//! the common member, and the list of members for whom it is something else. Its size does not grow with the room.

mod outcome;

pub use outcome::{PushBits, PushOutcome};
