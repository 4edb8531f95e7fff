//! Push rules and what an event means for each member's unread counts.
//!
//! An event's [`PushOutcome`] is worked out once, when the event is persisted: what the default rules make of it for
//! the common member, and the list of members for whom it is something else. Neither its size nor its cost grows with
//! the room: a member is looked at one by one only if they have changed their rules, or the event mentions or invites
//! them.
//!
//! - [`PushRules`]: every user's rules, to be read, changed and evaluated.
//! - [`Audience`]: the local members of a room in the form that evaluation needs; whoever writes the room keeps it.
//! - [`PushEvent`]: an event and what rules may ask about its room.
//! - [`Pushers`]: where users want notifications sent.
//!
//! What is not here: counting (crate `sync`) and sending notifications. Start with [`PushRules::evaluate`].

mod audience;
mod compile;
mod defaults;
mod evaluate;
mod event;
mod outcome;
mod pattern;
mod pushers;
mod replaced;
mod rules;
mod ruleset;
mod stream;

pub use audience::Audience;
pub use event::PushEvent;
pub use outcome::{PushBits, PushOutcome};
pub use pushers::Pushers;
pub use rules::{PushRuleError, PushRules};
pub use stream::{PushRulesRow, PushRulesStream};
