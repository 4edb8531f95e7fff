//! `events`: every event once, in the JSON that was signed.

use myelin_types::{StreamId, WriterId};

use crate::{GenericClient, Result, Row, Write, query, query_opt, strings::StringId};

mod insert;

pub use insert::{NewEvent, NewEvents, insert_events, promote_outliers};

/// The bits of `events.flags`.
pub mod flags {
    /// It failed authorization.
    pub const REJECTED: i16 = 1;
    /// It failed authorization by the current state only.
    pub const SOFT_FAILED: i16 = 2;
    /// The state before it is not known.
    pub const OUTLIER: i16 = 4;
    /// It became the current state of its key at its position.
    pub const CURRENT_STATE: i16 = 8;
    /// Its content has a `url`.
    pub const CONTAINS_URL: i16 = 16;
    /// A user of this server sent it.
    pub const LOCAL: i16 = 32;
    /// Other keys of the current state changed at its position too.
    pub const OTHER_STATE: i16 = 64;
}

/// An event as it is stored; its room is known to who asked.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Its number.
    pub event_nid: i64,
    /// Its id.
    pub event_id: String,
    /// Its place in the timeline.
    pub pos: Option<i64>,
    /// See [`flags`].
    pub flags: i16,
    /// The position whose mainline its state is told from, if not the one just before it.
    pub state_base: Option<i64>,
    /// The delta of its state.
    pub state_delta: Option<i64>,
    /// The redaction that took its content.
    pub redacted_by: Option<i64>,
    /// The forward extremities after it, where they are not just this event: a JSON list.
    pub heads: Option<String>,
    /// The event as canonical JSON.
    pub json: String,
}

/// The columns of a [`StoredEvent`], for statements that select it from `events e`.
macro_rules! stored_event {
    () => {
        "e.event_nid, e.event_id, e.pos, e.flags, e.state_base, e.state_delta, e.redacted_by, e.heads, e.json"
    };
}
pub(crate) use stored_event;

/// Whether other events point at an event `e`. As a scalar: an `EXISTS` the planner may answer by reading all relations there are.
macro_rules! has_relations {
    () => {
        "(SELECT true FROM relations p WHERE p.room_nid = e.room_nid AND p.parent_id = e.event_id LIMIT 1) IS NOT NULL"
    };
}
pub(crate) use has_relations;

impl From<&Row> for StoredEvent {
    fn from(row: &Row) -> Self {
        Self {
            event_nid: row.get(0),
            event_id: row.get(1),
            pos: row.get(2),
            flags: row.get(3),
            state_base: row.get(4),
            state_delta: row.get(5),
            redacted_by: row.get(6),
            heads: row.get(7),
            json: row.get(8),
        }
    }
}

/// Those of the events with these ids that are stored, in no order.
pub async fn list_events_by_id(
    db: &impl GenericClient,
    room_nid: i64,
    event_ids: &[&str],
) -> Result<Vec<StoredEvent>> {
    const SQL: &str =
        concat!("SELECT ", stored_event!(), " FROM events e WHERE e.event_id = ANY ($2) AND e.room_nid = $1");
    Ok(query(db, SQL, &[&room_nid, &event_ids]).await?.iter().map(StoredEvent::from).collect())
}

/// Those of the events with these numbers that are stored, in no order.
pub async fn list_events_by_nid(
    db: &impl GenericClient,
    room_nid: i64,
    event_nids: &[i64],
) -> Result<Vec<StoredEvent>> {
    const SQL: &str = concat!(
        "SELECT ",
        stored_event!(),
        " FROM events e WHERE e.room_nid = $1 AND e.event_nid = ANY ($2)"
    );
    Ok(query(db, SQL, &[&room_nid, &event_nids]).await?.iter().map(StoredEvent::from).collect())
}

/// The events of a room's current state.
pub async fn list_current_state_events(db: &impl GenericClient, room_nid: i64) -> Result<Vec<StoredEvent>> {
    const SQL: &str = concat!(
        "SELECT ",
        stored_event!(),
        " FROM room_state s JOIN events e USING (room_nid, event_nid) WHERE s.room_nid = $1"
    );
    Ok(query(db, SQL, &[&room_nid]).await?.iter().map(StoredEvent::from).collect())
}

/// The last event of a room's timeline.
pub async fn get_last_event(db: &impl GenericClient, room_nid: i64) -> Result<Option<StoredEvent>> {
    const SQL: &str = concat!(
        "SELECT ",
        stored_event!(),
        " FROM events e WHERE e.room_nid = $1 AND e.pos IS NOT NULL ORDER BY e.pos DESC LIMIT 1"
    );
    Ok(query_opt(db, SQL, &[&room_nid]).await?.as_ref().map(StoredEvent::from))
}

/// A transaction id that a local device sent an event with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionRow {
    /// The sender, interned.
    pub sender_sid: StringId,
    /// The device.
    pub device_id: String,
    /// The transaction id.
    pub txn_id: String,
    /// The event.
    pub event_id: String,
    /// When it was sent, in milliseconds since 1970.
    pub origin_server_ts: i64,
}

/// The transaction ids among the last `limit` events of a room that were sent since `since_ms`, oldest first.
pub async fn list_transactions(
    db: &impl GenericClient,
    room_nid: i64,
    since_ms: i64,
    limit: i64,
) -> Result<Vec<TransactionRow>> {
    const SQL: &str = "
        SELECT sender_sid, device_id, txn_id, event_id, origin_server_ts
          FROM (SELECT * FROM events WHERE room_nid = $1 AND pos IS NOT NULL ORDER BY pos DESC LIMIT $3) AS recent
         WHERE txn_id IS NOT NULL AND device_id IS NOT NULL AND origin_server_ts >= $2
         ORDER BY pos";
    let rows = query(db, SQL, &[&room_nid, &since_ms, &limit]).await?;
    let transaction = |row: &Row| TransactionRow {
        sender_sid: row.get(0),
        device_id: row.get(1),
        txn_id: row.get(2),
        event_id: row.get(3),
        origin_server_ts: row.get(4),
    };
    Ok(rows.iter().map(transaction).collect())
}

/// Takes the content of events away; the lists belong together: room, event, its redacted JSON, the redaction.
pub async fn redact_events(
    db: &impl Write,
    room_nids: &[i64],
    event_nids: &[i64],
    json: &[&str],
    redacted_by: &[i64],
) -> Result<()> {
    const SQL: &str = "
        UPDATE events e SET json = r.json, redacted_by = r.redaction, flags = e.flags & ~16
          FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[]) AS r (room, event, json, redaction)
         WHERE e.room_nid = r.room AND e.event_nid = r.event";
    db.write(SQL, &[&room_nids, &event_nids, &json, &redacted_by]).await
}

/// An event of the timeline, as the events stream hands it out.
#[derive(Clone, Debug)]
pub struct StreamedEvent {
    /// The place in the stream.
    pub id: StreamId,
    /// Who wrote it.
    pub writer: WriterId,
    /// The room's number.
    pub room_nid: i64,
    /// The room's id.
    pub room_id: String,
    /// The room's version.
    pub room_version: String,
    /// The type, interned.
    pub type_sid: StringId,
    /// The state key, interned.
    pub key_sid: Option<StringId>,
    /// What push rules make of it for the common member.
    pub push: i16,
    /// The members for whom it is something else, as JSON.
    pub push_exceptions: Option<String>,
    /// The thread that it is in.
    pub thread_id: Option<String>,
    /// The device that sent it.
    pub device_id: Option<String>,
    /// The transaction id that it was sent with.
    pub txn_id: Option<String>,
    /// The event itself.
    pub event: StoredEvent,
}

/// The events of all timelines after a position, by position.
pub async fn events_since(
    db: &impl GenericClient,
    after: StreamId,
    upto: StreamId,
    limit: i64,
) -> Result<Vec<StreamedEvent>> {
    const SQL: &str = concat!(
        "SELECT ",
        stored_event!(),
        ", e.writer_id, e.room_nid, room_id, room_version, e.type_sid, e.state_key_sid, e.push, e.push_exceptions,
           e.thread_id, e.device_id, e.txn_id
          FROM events e JOIN rooms USING (room_nid)
         WHERE e.pos > $1 AND e.pos <= $2 ORDER BY e.pos LIMIT $3"
    );
    let rows = query(db, SQL, &[&after.0, &upto.0, &limit]).await?;
    let event = |row: &Row| StreamedEvent {
        id: StreamId(row.get(2)),
        writer: WriterId(row.get(9)),
        room_nid: row.get(10),
        room_id: row.get(11),
        room_version: row.get(12),
        type_sid: row.get(13),
        key_sid: row.get(14),
        push: row.get(15),
        push_exceptions: row.get(16),
        thread_id: row.get(17),
        device_id: row.get(18),
        txn_id: row.get(19),
        event: StoredEvent::from(row),
    };
    Ok(rows.iter().map(event).collect())
}

/// The events that these redactions took the content of, each with the number of its redaction.
pub async fn list_redacted(
    db: &impl GenericClient,
    room_nids: &[i64],
    targets: &[&str],
    redactions: &[i64],
) -> Result<Vec<(i64, StoredEvent)>> {
    const SQL: &str = concat!(
        "SELECT ",
        stored_event!(),
        ", r.redaction
          FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS r (room, target, redaction)
          JOIN events e ON e.event_id = r.target AND e.room_nid = r.room AND e.redacted_by = r.redaction"
    );
    let rows = query(db, SQL, &[&room_nids, &targets, &redactions]).await?;
    Ok(rows.iter().map(|row| (row.get(9), StoredEvent::from(row))).collect())
}
