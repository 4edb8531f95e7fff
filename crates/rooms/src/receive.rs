//! Events of other servers ([spec](https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu)).
//!
//! An event comes with its signatures and hash checked. What it names and is not here is asked of an [`EventSource`],
//! while nobody waits for the room; then, in a turn at the room, it is authorized by its auth events, by the state
//! before it and by the current state, and written with what it did to that.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    pin::Pin,
};

use myelin_events::ReceivedPdu;
use ruma::{OwnedEventId, RoomId};
use tracing::debug;

use crate::{RoomError, Rooms, resident::Pending};

mod authorize;
mod fetch;
mod heads;
mod outliers;
mod place;
mod redactions;

pub(crate) use self::{
    authorize::authorize_by_past,
    heads::{after as heads_after, apply as apply_heads, only as only_head},
    outliers::{Outliers, strings_of},
    place::{nothing, stored_before},
};
use self::{fetch::GivenState, place::Placing};

/// What became of an event that another server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is part of the room's timeline.
    Accepted,
    /// It is stored but shown to nobody: the current state does not allow it
    /// ([spec](https://spec.matrix.org/v1.19/server-server-api/#soft-failure)).
    SoftFailed,
    /// It is stored and authorizes nothing: its auth events or the state before it do not allow it, for this reason.
    Rejected(String),
    /// It was here already.
    Known,
}

/// Why an event could not be placed in its room. It is not stored, and may be sent again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPlaced {
    /// It is an event of another room, or of none.
    #[error("the event belongs to another room")]
    OtherRoom,
    /// Events that authorize it could not be had.
    #[error("events that authorize it are missing")]
    MissingAuthEvents,
    /// Neither the events before it nor the state before it could be had.
    #[error("the state before it is not known: {0}")]
    UnknownState(String),
}

/// Nobody could be asked, or nobody gave an answer that made sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// The answer of an [`EventSource`], which may take its time.
pub type Fetching<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

/// The ids of the state before an event and of that state's auth chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateIds {
    /// The state.
    pub state: Vec<OwnedEventId>,
    /// What authorizes it.
    pub auth_chain: Vec<OwnedEventId>,
}

/// Where events can be had that others name: in the end, another server. Whoever implements this checks the signatures
/// and hashes of what it gives, leaves out what fails, and gives up after some time.
pub trait EventSource: Send + Sync {
    /// Some of the events between `earliest`, which are here, and `latest`, both excluded, in any order
    /// ([spec](https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid)).
    fn missing_events<'a>(
        &'a self,
        room_id: &'a RoomId,
        earliest: &'a [OwnedEventId],
        latest: &'a [OwnedEventId],
        limit: usize,
    ) -> Fetching<'a, Vec<ReceivedPdu>>;

    /// The state before an event
    /// ([spec](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid)).
    fn state_ids<'a>(&'a self, room_id: &'a RoomId, event_id: &'a OwnedEventId) -> Fetching<'a, StateIds>;

    /// Those of these events that can be had, in any order
    /// ([spec](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid)).
    fn events<'a>(
        &'a self,
        room_id: &'a RoomId,
        event_ids: &'a [OwnedEventId],
    ) -> Fetching<'a, Vec<ReceivedPdu>>;

    /// The auth chain of an event
    /// ([spec](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid)).
    fn auth_chain<'a>(
        &'a self,
        room_id: &'a RoomId,
        event_id: &'a OwnedEventId,
    ) -> Fetching<'a, Vec<ReceivedPdu>>;
}

/// Turns that an event is given, each after fetching what the one before found missing.
const MAX_TURNS: usize = 4;

impl Rooms {
    /// Takes in events of other servers, and gives what became of each once all are committed. Events of one call that
    /// build on one another may come in any order; what else they build on is fetched from `source`.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`] if no user of this server was ever in the room, [`RoomError::Blocked`], or what keeps
    /// the engine from writing. Some of the events may have been written then; sending them again does no harm.
    pub async fn receive(
        &self,
        room_id: &RoomId,
        pdus: Vec<ReceivedPdu>,
        source: &dyn EventSource,
    ) -> Result<Vec<(OwnedEventId, Result<Received, NotPlaced>)>, RoomError> {
        let order: Vec<OwnedEventId> = pdus.iter().map(|received| received.pdu.event_id().clone()).collect();
        let mut outcomes = HashMap::new();
        let mut pending = Vec::new();
        for received in in_topological_order(pdus) {
            let event_id = received.pdu.event_id().clone();
            if received.pdu.room_id() != room_id {
                outcomes.insert(event_id, Err(NotPlaced::OtherRoom));
                continue;
            }
            for missing in self.missing_before(&received, source).await? {
                self.receive_one(&missing, source, &mut pending).await?.ok();
            }
            let outcome = self.receive_one(&received, source, &mut pending).await?;
            debug!(%room_id, %event_id, ?outcome, "received an event");
            outcomes.insert(event_id, outcome);
        }
        for commit in pending {
            commit.committed().await?;
        }
        self.merge_forward_extremities(room_id).await?;
        let outcome = |event_id: OwnedEventId| {
            let outcome = outcomes.get(&event_id).cloned().unwrap_or(Ok(Received::Known));
            (event_id, outcome)
        };
        Ok(order.into_iter().map(outcome).collect())
    }

    async fn receive_one(
        &self,
        received: &ReceivedPdu,
        source: &dyn EventSource,
        pending: &mut Vec<Pending>,
    ) -> Result<Result<Received, NotPlaced>, RoomError> {
        let pdu = &received.pdu;
        let mut given: Option<GivenState> = None;
        let mut has_auth = false;
        for _ in 0..MAX_TURNS {
            let mut room = self.enter(pdu.room_id()).await?;
            if room.is_blocked {
                return Err(RoomError::Blocked);
            }
            match room.place(pdu, given.as_ref()).await? {
                Placing::Done(outcome, commit) => {
                    pending.extend(commit);
                    return Ok(Ok(outcome));
                }
                Placing::NeedsAuthEvents if has_auth => return Ok(Err(NotPlaced::MissingAuthEvents)),
                Placing::NeedsAuthEvents => {
                    drop(room);
                    self.fetch_auth_events(pdu, source).await?;
                    has_auth = true;
                }
                Placing::NeedsState => {
                    drop(room);
                    given = match self.fetch_state(pdu, source).await? {
                        Ok(state) => Some(state),
                        Err(error) => return Ok(Err(NotPlaced::UnknownState(error.0))),
                    };
                }
            }
        }
        Ok(Err(NotPlaced::UnknownState("the room changes too fast".to_owned())))
    }
}

/// The events, those before others first, and each once.
pub(crate) fn in_topological_order(pdus: Vec<ReceivedPdu>) -> Vec<ReceivedPdu> {
    ordered_by(pdus, |received| received.pdu.prev_events().to_vec())
}

/// The events in an order in which each comes behind those of them that it references.
fn ordered_by(
    pdus: Vec<ReceivedPdu>,
    references: impl Fn(&ReceivedPdu) -> Vec<OwnedEventId>,
) -> Vec<ReceivedPdu> {
    let mut by_id: HashMap<OwnedEventId, usize> = HashMap::new();
    for (index, received) in pdus.iter().enumerate() {
        by_id.entry(received.pdu.event_id().clone()).or_insert(index);
    }
    let mut order: Vec<usize> = Vec::with_capacity(pdus.len());
    let mut visited: HashSet<usize> = HashSet::new();
    for start in 0..pdus.len() {
        // Depth first without recursion; each event is left behind what it references.
        let mut stack = vec![(start, false)];
        while let Some((index, is_left)) = stack.pop() {
            if is_left {
                order.push(index);
                continue;
            }
            if by_id.get(pdus[index].pdu.event_id()) != Some(&index) || !visited.insert(index) {
                continue;
            }
            stack.push((index, true));
            let before = references(&pdus[index]);
            stack.extend(before.iter().filter_map(|id| Some((*by_id.get(id)?, false))));
        }
    }
    let mut pdus: Vec<Option<ReceivedPdu>> = pdus.into_iter().map(Some).collect();
    order.into_iter().filter_map(|index| pdus[index].take()).collect()
}
