//! Reading a room from the database.

use myelin_events::{Rules, rules};
use myelin_storage::{
    Client, StorageError, event_graph,
    events::{self, StoredEvent},
    rooms::{self, RoomRow},
};
use ruma::{OwnedEventId, RoomId, RoomVersionId};

use super::{
    Head, Resident,
    transactions::{REMEMBERED, REMEMBERED_MS, TransactionKey},
};
use crate::{
    EventNid, RoomError, RoomNid, StateChange,
    numbers::Numbers,
    stream::{StateNumbers, stored},
};

/// The room as it was committed last.
pub(crate) async fn load(
    client: &Client,
    numbers: &Numbers,
    server_name: &ruma::ServerName,
    room_id: &RoomId,
    now_ms: u64,
) -> Result<Resident, RoomError> {
    let room = rooms::get_room(client, room_id.as_str()).await?.ok_or(RoomError::UnknownRoom)?;
    let rules = rules_of(&room)?;
    let room_nid = room.room_nid;
    let since_ms = i64::try_from(now_ms.saturating_sub(REMEMBERED_MS)).unwrap_or(i64::MAX);
    let limit = i64::try_from(REMEMBERED).unwrap_or(i64::MAX);
    // On one connection these are sent together.
    let (state, last, transactions, gaps) = tokio::try_join!(
        events::list_current_state_events(client, room_nid),
        events::get_last_event(client, room_nid),
        events::list_transactions(client, room_nid, since_ms, limit),
        event_graph::list_backward_extremities(client, room_nid),
    )?;
    let mut resident = Resident::new(RoomNid(room_nid), room_id.to_owned(), rules);
    resident.is_blocked = room.is_blocked;
    set_state(client, &mut resident, numbers, server_name, state).await?;
    if let Some(last) = last {
        resident.heads = heads(client, &resident, &last).await?;
    }
    resident.gaps = gaps.into_iter().filter_map(|id| OwnedEventId::try_from(id).ok()).collect();
    for transaction in transactions {
        let Ok(event_id) = OwnedEventId::try_from(transaction.event_id.as_str()) else { continue };
        let key = TransactionKey::new(transaction.sender_sid, &transaction.device_id, &transaction.txn_id);
        let sent_at = u64::try_from(transaction.origin_server_ts).unwrap_or_default();
        resident.transactions.add(key, event_id, sent_at);
    }
    Ok(resident)
}

fn rules_of(room: &RoomRow) -> Result<Rules, StorageError> {
    let version = RoomVersionId::try_from(room.room_version.as_str()).ok();
    version
        .and_then(|version| rules(&version))
        .ok_or_else(|| StorageError::Inconsistent(format!("room version {}", room.room_version)))
}

/// Takes the state in as if it had changed to this.
async fn set_state(
    client: &Client,
    resident: &mut Resident,
    numbers: &Numbers,
    server_name: &ruma::ServerName,
    state: Vec<StoredEvent>,
) -> Result<(), RoomError> {
    let mut held = Vec::with_capacity(state.len());
    for event in &state {
        held.push((stored(&resident.room_id, resident.rules, event)?, EventNid(event.event_nid)));
    }
    let types: Vec<String> = held.iter().map(|(pdu, _)| pdu.event_type().to_string()).collect();
    let mut strings = Vec::with_capacity(held.len() * 3);
    for ((pdu, _), event_type) in held.iter().zip(&types) {
        strings.extend([event_type, pdu.state_key().unwrap_or_default(), pdu.sender().as_str()]);
    }
    let ids = numbers.all_strings_on(client, &strings).await?;
    for ((pdu, nid), ids) in held.into_iter().zip(ids.chunks_exact(3)) {
        let event_type = pdu.event_type().to_string().into();
        let state_key: Box<str> = pdu.state_key().unwrap_or_default().into();
        let mut change = StateChange::new(event_type, &state_key, Some(pdu), None);
        change.numbers = StateNumbers { nid, type_sid: ids[0], key_sid: ids[1], sender_sid: ids[2] };
        resident.change_state(&change, server_name);
    }
    Ok(())
}

/// The forward extremities after the last event of the timeline.
async fn heads(client: &Client, resident: &Resident, last: &StoredEvent) -> Result<Vec<Head>, RoomError> {
    let head = |event: &StoredEvent| -> Result<Head, StorageError> {
        let pdu = stored(&resident.room_id, resident.rules, event)?;
        Ok(Head { pdu, nid: EventNid(event.event_nid) })
    };
    let Some(ids) = &last.heads else { return Ok(vec![head(last)?]) };
    let ids: Vec<OwnedEventId> = serde_json::from_str(ids)
        .map_err(|error| StorageError::Inconsistent(format!("forward extremities: {error}")))?;
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    let events = events::list_events_by_id(client, resident.nid.0, &ids).await?;
    Ok(events.iter().map(head).collect::<Result<_, _>>()?)
}
