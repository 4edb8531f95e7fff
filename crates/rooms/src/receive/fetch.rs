//! Fetching what an event names and is not here. No turn at the room is held meanwhile.

use std::collections::{HashMap, HashSet};

use myelin_events::{Pdu, ReceivedPdu};
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId};
use tracing::debug;

use super::{EventSource, Outliers, SourceError, in_topological_order, outliers::authorizing};
use crate::{RoomError, Rooms, history::History};

/// Events asked for at once, when some before an event are missing.
const MISSING_AT_ONCE: usize = 20;
/// How often is asked for more; what is then still missing is a gap.
const MAX_ROUNDS: usize = 5;
/// Events of a state that are asked for at once.
const EVENTS_AT_ONCE: usize = 500;

/// The state before an event as another server tells it; all of its events are stored.
#[derive(Debug)]
pub(super) struct GivenState(pub Vec<OwnedEventId>);

/// Sorts events of one room, older ones first, if their senders are honest.
fn by_age(pdu: &Pdu) -> (u64, MilliSecondsSinceUnixEpoch, &EventId) {
    (pdu.depth(), pdu.origin_server_ts(), pdu.event_id())
}

impl Rooms {
    /// The events before an event that are not here, as far as they can be had, in an order to take them in.
    pub(super) async fn missing_before(
        &self,
        received: &ReceivedPdu,
        source: &dyn EventSource,
    ) -> Result<Vec<ReceivedPdu>, RoomError> {
        let room_id = received.pdu.room_id();
        let mut fetched: HashMap<OwnedEventId, ReceivedPdu> = HashMap::new();
        let mut latest = vec![received.pdu.event_id().clone()];
        let mut wanted = received.pdu.prev_events().to_vec();
        let is_known = |id: &OwnedEventId| id == received.pdu.event_id();
        for _ in 0..MAX_ROUNDS {
            let room = self.enter(room_id).await?;
            wanted.retain(|id| !fetched.contains_key(id) && !room.is_here(id));
            if !wanted.is_empty() {
                room.quiet().await?;
                let history = History { engine: room.engine(), room: &room };
                wanted.extend(latest.iter().filter(|id| is_known(id)).cloned());
                let here = history.list_entries(&wanted).await?;
                if here.get(received.pdu.event_id()).is_some_and(|entry| entry.has_state()) {
                    return Ok(Vec::new());
                }
                wanted.retain(|id| !is_known(id));
                wanted.retain(|id| !here.get(id).is_some_and(|entry| entry.has_state()));
            }
            if wanted.is_empty() {
                break;
            }
            let earliest: Vec<OwnedEventId> =
                room.heads.iter().map(|head| head.event_id().clone()).take(MISSING_AT_ONCE).collect();
            drop(room);
            let answer = source.missing_events(room_id, &earliest, &latest, MISSING_AT_ONCE).await;
            let answer = answer.unwrap_or_else(|error| {
                debug!(%room_id, %error, "missing events can't be had");
                Vec::new()
            });
            let mut is_new = false;
            for event in answer.into_iter().take(MISSING_AT_ONCE) {
                if event.pdu.room_id() != room_id || event.pdu.event_id() == received.pdu.event_id() {
                    continue;
                }
                let event_id = event.pdu.event_id().clone();
                wanted.extend(event.pdu.prev_events().iter().cloned());
                is_new |= fetched.insert(event_id, event).is_none();
            }
            wanted.retain(|id| !fetched.contains_key(id));
            if !is_new || wanted.is_empty() {
                break;
            }
            // What was found first is asked about next.
            let before = |event: &&ReceivedPdu| event.pdu.prev_events().iter().any(|id| wanted.contains(id));
            latest = fetched.values().filter(before).map(|event| event.pdu.event_id().clone()).collect();
            latest.truncate(MISSING_AT_ONCE);
        }
        // Whether an event fails softly may depend on what came before it, so the order must not be one of chance.
        let mut fetched: Vec<ReceivedPdu> = fetched.into_values().collect();
        fetched.sort_by(|one, other| by_age(&one.pdu).cmp(&by_age(&other.pdu)));
        Ok(in_topological_order(fetched))
    }

    /// Stores the events that authorize an event, as outliers, as far as they can be had.
    pub(super) async fn fetch_auth_events(
        &self,
        pdu: &Pdu,
        source: &dyn EventSource,
    ) -> Result<(), RoomError> {
        let chain = source.auth_chain(pdu.room_id(), pdu.event_id()).await;
        let chain = chain.unwrap_or_else(|error| {
            debug!(room_id = %pdu.room_id(), %error, "an auth chain can't be had");
            Vec::new()
        });
        self.store_outliers(pdu.room_id(), chain).await?;
        self.fetch_outliers(pdu, &authorizing(pdu), source).await
    }

    /// Asks for the state before an event, and stores what of it is not here.
    pub(super) async fn fetch_state(
        &self,
        pdu: &Pdu,
        source: &dyn EventSource,
    ) -> Result<Result<GivenState, SourceError>, RoomError> {
        let ids = match source.state_ids(pdu.room_id(), pdu.event_id()).await {
            Ok(ids) => ids,
            Err(error) => return Ok(Err(error)),
        };
        let wanted: Vec<OwnedEventId> = ids.auth_chain.iter().chain(&ids.state).cloned().collect();
        self.fetch_outliers(pdu, &wanted, source).await?;
        let still_missing = self.not_here(pdu, &ids.state).await?;
        if !still_missing.is_empty() {
            let missing = still_missing.len();
            return Ok(Err(SourceError(format!("{missing} events of the state can't be had"))));
        }
        Ok(Ok(GivenState(ids.state)))
    }

    /// Stores those of some events that are not here, and what authorizes them, as outliers, as far as they can be had.
    async fn fetch_outliers(
        &self,
        pdu: &Pdu,
        wanted: &[OwnedEventId],
        source: &dyn EventSource,
    ) -> Result<(), RoomError> {
        let mut missing = self.not_here(pdu, wanted).await?;
        let mut fetched: HashMap<OwnedEventId, ReceivedPdu> = HashMap::new();
        let mut asked: HashSet<OwnedEventId> = HashSet::new();
        for _ in 0..MAX_ROUNDS {
            if missing.is_empty() {
                break;
            }
            for some in missing.chunks(EVENTS_AT_ONCE) {
                let answer = source.events(pdu.room_id(), some).await.unwrap_or_else(|error| {
                    debug!(room_id = %pdu.room_id(), %error, "events can't be had");
                    Vec::new()
                });
                asked.extend(some.iter().cloned());
                let of_room = answer.into_iter().filter(|event| event.pdu.room_id() == pdu.room_id());
                fetched.extend(of_room.map(|event| (event.pdu.event_id().clone(), event)));
            }
            let referenced: HashSet<OwnedEventId> =
                fetched.values().flat_map(|event| authorizing(&event.pdu)).collect();
            let unknown: Vec<OwnedEventId> = referenced
                .into_iter()
                .filter(|id| !fetched.contains_key(id) && !asked.contains(id))
                .collect();
            missing = self.not_here(pdu, &unknown).await?;
        }
        self.store_outliers(pdu.room_id(), fetched.into_values().collect()).await
    }

    async fn not_here(&self, pdu: &Pdu, wanted: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, RoomError> {
        let room = self.enter(pdu.room_id()).await?;
        room.quiet().await?;
        let history = History { engine: room.engine(), room: &room };
        let here = history.list_entries(wanted).await?;
        let mut missing: Vec<OwnedEventId> =
            wanted.iter().filter(|id| !here.contains_key(*id) && *id != pdu.event_id()).cloned().collect();
        missing.sort();
        missing.dedup();
        Ok(missing)
    }

    async fn store_outliers(
        &self,
        room_id: &ruma::RoomId,
        events: Vec<ReceivedPdu>,
    ) -> Result<(), RoomError> {
        let events: Vec<ReceivedPdu> =
            events.into_iter().filter(|event| event.pdu.room_id() == room_id).collect();
        if events.is_empty() {
            return Ok(());
        }
        let room = self.enter(room_id).await?;
        room.quiet().await?;
        let outliers = {
            let history = History { engine: room.engine(), room: &room };
            Outliers::check(history, events).await?
        };
        match outliers.rows.is_empty() {
            true => Ok(()),
            false => room.hand_over_all(outliers.rows)?.committed().await,
        }
    }
}
