//! Outliers: events that are stored for what they authorize, without the state before them being known.

use std::{collections::HashMap, sync::Arc};

use myelin_events::{Pdu, ReceivedPdu, auth};
use myelin_storage::events::flags;
use ruma::{EventId, OwnedEventId};

use super::ordered_by;
use crate::{
    EventRow, RoomError,
    history::{History, Known},
    resident::flags_of,
    stream::{StateBefore, Writing},
};

/// Events that were checked by their auth events.
#[derive(Debug, Default)]
pub(crate) struct Outliers {
    /// Those that are new, to be written.
    pub rows: Vec<EventRow>,
    /// All that were given or looked up, rejected ones too.
    pub known: HashMap<OwnedEventId, Known>,
}

impl Outliers {
    /// Checks events by their auth events, which must be among them or here; others are left out. Events that fail are
    /// rejected, which is to be remembered, or they would be asked for again and again.
    pub async fn check(history: History<'_>, events: Vec<ReceivedPdu>) -> Result<Self, RoomError> {
        let ordered = ordered_by(events, |received| authorizing(&received.pdu));
        let mut ids: Vec<OwnedEventId> = Vec::with_capacity(ordered.len());
        for received in &ordered {
            ids.push(received.pdu.event_id().clone());
            ids.extend(authorizing(&received.pdu));
        }
        ids.sort();
        ids.dedup();
        let here = history.list_entries(&ids).await?;
        let here: HashMap<OwnedEventId, Known> =
            here.into_iter().map(|(event_id, entry)| (event_id, entry.event)).collect();
        let (new, mut checked) = history.engine.heavy.run(move || check_all(ordered, here)).await?;
        let mut rows = Vec::with_capacity(new.len());
        let strings: Vec<String> = new.iter().flat_map(|pdu| strings_of(pdu)).collect();
        let strings: Vec<&str> = strings.iter().map(String::as_str).collect();
        let sids = history.engine.numbers.all_strings(&strings).await?;
        for (pdu, sids) in new.iter().zip(sids.chunks_exact(3)) {
            let nid = history.engine.numbers.event_nid().await?;
            let rejected = if pdu.is_rejected() { flags::REJECTED } else { 0 };
            let mut row = EventRow::new(history.room.nid, nid, pdu.clone());
            row.timeline = false;
            row.writing = Writing {
                sender_sid: sids[0],
                type_sid: sids[1],
                key_sid: pdu.state_key().map(|_| sids[2]),
                flags: flags_of(pdu, history.engine) | flags::OUTLIER | rejected,
                before: StateBefore::Unknown,
                ..Writing::default()
            };
            checked.insert(pdu.event_id().clone(), Known { pdu: pdu.clone(), nid });
            rows.push(row);
        }
        Ok(Self { rows, known: checked })
    }
}

/// The events that authorize an event, with the `m.room.create` event of room version 12, which is not named there.
pub(crate) fn authorizing(pdu: &Pdu) -> Vec<OwnedEventId> {
    let create = auth::create_event_id(pdu).filter(|create| create != pdu.event_id());
    pdu.auth_events().iter().cloned().chain(create).collect()
}

/// The strings of an event that are interned: sender, type, state key.
pub(crate) fn strings_of(pdu: &Pdu) -> [String; 3] {
    let state_key = pdu.state_key().unwrap_or_default();
    [pdu.sender().to_string(), pdu.event_type().to_string(), state_key.to_owned()]
}

type Checked = (Vec<Arc<Pdu>>, HashMap<OwnedEventId, Known>);

/// The events that are new, each behind those that authorize it, and those that were here.
fn check_all(ordered: Vec<ReceivedPdu>, here: HashMap<OwnedEventId, Known>) -> Checked {
    let mut new: Vec<Arc<Pdu>> = Vec::new();
    let mut by_id: HashMap<OwnedEventId, Arc<Pdu>> =
        here.iter().map(|(event_id, known)| (event_id.clone(), known.pdu.clone())).collect();
    for received in ordered {
        let pdu = received.pdu;
        let has_auth = authorizing(&pdu).iter().all(|id| by_id.contains_key(id));
        if by_id.contains_key(pdu.event_id()) || !has_auth {
            continue;
        }
        let fetch = |event_id: &EventId| by_id.get(event_id).cloned();
        let is_rejected = auth::check_auth_events(&pdu, fetch).is_err();
        let pdu = Arc::new(pdu.with_rejected(is_rejected));
        by_id.insert(pdu.event_id().clone(), pdu.clone());
        new.push(pdu);
    }
    (new, here)
}
