//! Where push rules come in.

use std::{collections::BTreeMap, future::Future, pin::Pin};

use myelin_events::{Pdu, PowerLevels};
use ruma::OwnedUserId;

use crate::PushOutcome;

/// The joined members of this server, with their names in the room.
pub type LocalMembers = BTreeMap<OwnedUserId, Option<Box<str>>>;

/// A new event and what push rules ask about its room, as of just before the event.
#[derive(Clone, Copy, Debug)]
pub struct PushContext<'a> {
    /// The event.
    pub pdu: &'a Pdu,
    /// How many members the room has, of all servers.
    pub joined_members: usize,
    /// Who may notify the whole room.
    pub power_levels: &'a PowerLevels,
    /// The name of the sender in the room.
    pub sender_display_name: Option<&'a str>,
    /// The members that rules are evaluated for. A local user who is invited by the event is not among them.
    pub local_members: &'a LocalMembers,
}

/// Decides what an event means for its room's members, once, when it is written.
pub trait PushEvaluator: Send + Sync {
    /// The outcome. The room waits for it: it should come from memory but for users whose rules were not read yet.
    fn evaluate<'a>(
        &'a self,
        context: PushContext<'a>,
    ) -> Pin<Box<dyn Future<Output = PushOutcome> + Send + 'a>>;
}

/// Nothing notifies anybody.
impl PushEvaluator for () {
    fn evaluate<'a>(&'a self, _: PushContext<'a>) -> Pin<Box<dyn Future<Output = PushOutcome> + Send + 'a>> {
        Box::pin(std::future::ready(PushOutcome::default()))
    }
}
