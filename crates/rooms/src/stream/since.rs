//! Reading rows of the stream back, for feeds that missed a notice.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use myelin_events::{Pdu, Rules, rules};
use myelin_push::PushBits;
use myelin_replication::{Stamped, is_full, read_pages};
use myelin_storage::{
    Client, Result, StorageError,
    events::{self, StoredEvent, StreamedEvent, flags},
    state::{self, PastChange},
    strings::Strings,
};
use myelin_types::Position;
use ruma::{EventId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, events::TimelineEventType};

use super::{EventNid, EventRow, PushOutcome, Redacted, Relation, RoomNid, StateChange, StateNumbers};

/// Strings that one catch-up keeps at hand; it reads a thousand rows at most.
const STRINGS: usize = 10_000;

pub(super) async fn read(
    client: &Client,
    after: &Position,
    upto: &Position,
    limit: i64,
) -> Result<Vec<Stamped<EventRow>>> {
    read_pages(after, upto, limit, async |from, to| {
        let streamed = events::events_since(client, from, to, limit).await?;
        let complete = streamed.last().map(|event| event.id).filter(|_| is_full(streamed.len(), limit));
        let wanted = |event: &StreamedEvent| {
            upto.covers(event.writer, event.id) && !after.covers(event.writer, event.id)
        };
        let streamed: Vec<StreamedEvent> = streamed.into_iter().filter(wanted).collect();
        Ok((rows_of(client, &streamed).await?, complete))
    })
    .await
}

/// The rows of some events.
async fn rows_of(client: &Client, streamed: &[StreamedEvent]) -> Result<Vec<Stamped<EventRow>>> {
    let changes = changes_of(client, streamed).await?;
    let pdus = events_of(client, streamed, &changes).await?;
    let mut rows = Vec::with_capacity(streamed.len());
    for event in streamed {
        let row = row(event, &pdus, changes.get(&event.id.0).map_or(&[][..], Vec::as_slice))?;
        rows.push(Stamped { id: event.id, writer: event.writer, row });
    }
    let redacted = redacted_by(client, streamed, &rows).await?;
    for Stamped { row, .. } in &mut rows {
        row.redacts = redacted.get(&row.nid.0).cloned();
    }
    Ok(rows)
}

/// A change of the state with its key in words.
struct Change {
    event_type: Arc<str>,
    state_key: Arc<str>,
    what: PastChange,
}

/// What changed in the current states, by position.
async fn changes_of(client: &Client, streamed: &[StreamedEvent]) -> Result<HashMap<i64, Vec<Change>>> {
    let (mut own, mut forks) = (Vec::new(), Vec::new());
    for event in streamed {
        match event.event.flags {
            bits if bits & flags::OTHER_STATE != 0 => forks.push(event),
            bits if bits & flags::CURRENT_STATE != 0 => own.push(event),
            _ => {}
        }
    }
    let mut changes: Vec<PastChange> = Vec::new();
    if !own.is_empty() {
        let rooms: Vec<i64> = own.iter().map(|event| event.room_nid).collect();
        let types: Vec<i64> = own.iter().map(|event| event.type_sid).collect();
        let keys: Vec<i64> = own.iter().map(|event| event.key_sid.unwrap_or_default()).collect();
        let at: Vec<i64> = own.iter().map(|event| event.id.0).collect();
        let replaced = state::list_replaced(client, &rooms, &types, &keys, &at).await?;
        changes.extend(own.iter().zip(keys).map(|(event, key_sid)| PastChange {
            room_nid: event.room_nid,
            at: event.id,
            type_sid: event.type_sid,
            key_sid,
            event_nid: Some(event.event.event_nid),
            replaced_nid: replaced.get(&(event.room_nid, event.id.0)).copied(),
        }));
    }
    if !forks.is_empty() {
        let rooms: Vec<i64> = forks.iter().map(|event| event.room_nid).collect();
        let at: Vec<i64> = forks.iter().map(|event| event.id.0).collect();
        changes.extend(state::list_changes_at(client, &rooms, &at).await?);
    }
    let ids: Vec<i64> = changes.iter().flat_map(|change| [change.type_sid, change.key_sid]).collect();
    let words = Strings::new(STRINGS).resolve_all(client, &ids).await?;
    let mut by_position: HashMap<i64, Vec<Change>> = HashMap::new();
    for (what, words) in changes.into_iter().zip(words.chunks_exact(2)) {
        let (event_type, state_key) = (words[0].clone(), words[1].clone());
        by_position.entry(what.at.0).or_default().push(Change { event_type, state_key, what });
    }
    Ok(by_position)
}

type Events = HashMap<(i64, i64), Arc<Pdu>>;

/// The events of the page and those that its changes name, by room and number.
async fn events_of(
    client: &Client,
    streamed: &[StreamedEvent],
    changes: &HashMap<i64, Vec<Change>>,
) -> Result<Events> {
    let mut pdus = Events::new();
    let mut rooms: HashMap<i64, (OwnedRoomId, Rules)> = HashMap::new();
    for event in streamed {
        let room = room_of(event)?;
        pdus.insert((event.room_nid, event.event.event_nid), stored(&room.0, room.1, &event.event)?);
        rooms.insert(event.room_nid, room);
    }
    let mut missing: HashMap<i64, HashSet<i64>> = HashMap::new();
    for change in changes.values().flatten().map(|change| &change.what) {
        for nid in [change.event_nid, change.replaced_nid].into_iter().flatten() {
            if !pdus.contains_key(&(change.room_nid, nid)) {
                missing.entry(change.room_nid).or_default().insert(nid);
            }
        }
    }
    for (room_nid, nids) in missing {
        let Some((room_id, rules)) = rooms.get(&room_nid) else { continue };
        let nids: Vec<i64> = nids.into_iter().collect();
        for event in events::list_events_by_nid(client, room_nid, &nids).await? {
            pdus.insert((room_nid, event.event_nid), stored(room_id, rules, &event)?);
        }
    }
    Ok(pdus)
}

fn room_of(event: &StreamedEvent) -> Result<(OwnedRoomId, Rules)> {
    let inconsistent = |what: &str| StorageError::Inconsistent(format!("room {}: {what}", event.room_nid));
    let room_id = RoomId::parse(event.room_id.as_str()).map_err(|_| inconsistent("no room id"))?;
    let version = RoomVersionId::try_from(event.room_version.as_str());
    let rules = version.ok().as_ref().and_then(rules).ok_or_else(|| inconsistent("no room version"))?;
    Ok((room_id, rules))
}

/// The event in a row of the database.
pub(crate) fn stored(room_id: &OwnedRoomId, rules: Rules, event: &StoredEvent) -> Result<Arc<Pdu>> {
    let inconsistent = |error: &dyn std::fmt::Display| {
        StorageError::Inconsistent(format!("event {}: {error}", event.event_nid))
    };
    let event_id = EventId::parse(event.event_id.as_str()).map_err(|error| inconsistent(&error))?;
    let pdu = Pdu::from_stored(room_id.clone(), event_id, event.json.as_str(), rules)
        .map_err(|error| inconsistent(&error))?;
    Ok(Arc::new(pdu.with_rejected(event.flags & flags::REJECTED != 0)))
}

fn row(event: &StreamedEvent, pdus: &Events, changes: &[Change]) -> Result<EventRow> {
    let find = |nid: i64| {
        let missing =
            || StorageError::Inconsistent(format!("event {nid} of room {} is gone", event.room_nid));
        pdus.get(&(event.room_nid, nid)).cloned().ok_or_else(missing)
    };
    let pdu = find(event.event.event_nid)?;
    let mut state_changes = Vec::with_capacity(changes.len());
    for change in changes.iter().filter(|change| change.what.room_nid == event.room_nid) {
        state_changes.push(StateChange {
            event_type: (*change.event_type).into(),
            state_key: (*change.state_key).into(),
            event: change.what.event_nid.map(find).transpose()?,
            replaced: change.what.replaced_nid.map(find).transpose()?,
            numbers: StateNumbers::default(),
        });
    }
    let sent_by = event.device_id.as_ref().zip(event.txn_id.as_ref());
    let row = EventRow::new(RoomNid(event.room_nid), EventNid(event.event.event_nid), pdu.clone());
    Ok(EventRow {
        state_changes,
        push: push_outcome(event)?,
        thread_id: event.thread_id.as_deref().and_then(|id| EventId::parse(id).ok()),
        relation: Relation::of(&pdu),
        sent_by: sent_by.map(|(device_id, txn_id)| (device_id.as_str().into(), txn_id.as_str().into())),
        ..row
    })
}

fn push_outcome(event: &StreamedEvent) -> Result<PushOutcome> {
    let exceptions: BTreeMap<OwnedUserId, PushBits> = match &event.push_exceptions {
        Some(json) => serde_json::from_str(json)
            .map_err(|error| StorageError::Inconsistent(format!("push exceptions: {error}")))?,
        None => BTreeMap::new(),
    };
    Ok(PushOutcome { default: PushBits(event.push), exceptions: exceptions.into_iter().collect() })
}

/// What the redactions of the page took the content of, by the redaction's number.
async fn redacted_by(
    client: &Client,
    streamed: &[StreamedEvent],
    rows: &[Stamped<EventRow>],
) -> Result<HashMap<i64, Redacted>> {
    let redactions: Vec<_> = rows
        .iter()
        .filter(|row| *row.row.pdu.event_type() == TimelineEventType::RoomRedaction)
        .filter_map(|row| Some((&row.row, row.row.pdu.redacts()?)))
        .collect();
    if redactions.is_empty() {
        return Ok(HashMap::new());
    }
    let rooms: Vec<i64> = redactions.iter().map(|(row, _)| row.room_nid.0).collect();
    let targets: Vec<&str> = redactions.iter().map(|(_, target)| target.as_str()).collect();
    let nids: Vec<i64> = redactions.iter().map(|(row, _)| row.nid.0).collect();
    let mut redacted = HashMap::new();
    for (redaction, event) in events::list_redacted(client, &rooms, &targets, &nids).await? {
        let Some(streamed) = streamed.iter().find(|streamed| streamed.event.event_nid == redaction) else {
            continue;
        };
        let (room_id, rules) = room_of(streamed)?;
        let pdu = stored(&room_id, rules, &event)?;
        redacted.insert(redaction, Redacted { pdu, nid: EventNid(event.event_nid), parent_id: None });
    }
    Ok(redacted)
}
