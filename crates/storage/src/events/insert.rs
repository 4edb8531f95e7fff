//! Writing events, many at a time.

use myelin_types::{StreamId, WriterId};

use crate::{Result, Write, strings::StringId};

/// An event to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewEvent<'a> {
    /// Its room.
    pub room_nid: i64,
    /// Its number.
    pub event_nid: i64,
    /// Its place in the timeline, if it is part of that.
    pub pos: Option<StreamId>,
    /// Its depth.
    pub depth: i64,
    /// Its sender, interned.
    pub sender_sid: StringId,
    /// Its type, interned.
    pub type_sid: StringId,
    /// Its state key, interned.
    pub state_key_sid: Option<StringId>,
    /// When it was sent, in milliseconds since 1970.
    pub origin_server_ts: i64,
    /// Where its state is told from, if not from the mainline just before it.
    pub state_base: Option<StreamId>,
    /// The delta of its state.
    pub state_delta: Option<i64>,
    /// Who writes it.
    pub writer: WriterId,
    /// See [`flags`](super::flags).
    pub flags: i16,
    /// What push rules make of it for the common member.
    pub push: i16,
    /// Its id.
    pub event_id: &'a str,
    /// The members for whom push rules make something else of it, as JSON.
    pub push_exceptions: Option<&'a str>,
    /// The thread that it is in.
    pub thread_id: Option<&'a str>,
    /// The local device that sent it.
    pub device_id: Option<&'a str>,
    /// The transaction id that it was sent with.
    pub txn_id: Option<&'a str>,
    /// The forward extremities after it, where they are not just this event: a JSON list.
    pub heads: Option<&'a str>,
    /// The redaction that was here before it, and took its content.
    pub redacted_by: Option<i64>,
    /// The event as canonical JSON.
    pub json: &'a str,
}

/// Events to be written, as columns of `events`.
#[derive(Debug, Default)]
pub struct NewEvents<'a> {
    room_nids: Vec<i64>,
    event_nids: Vec<i64>,
    positions: Vec<Option<i64>>,
    depths: Vec<i64>,
    sender_sids: Vec<StringId>,
    type_sids: Vec<StringId>,
    state_key_sids: Vec<Option<StringId>>,
    timestamps: Vec<i64>,
    state_bases: Vec<Option<i64>>,
    state_deltas: Vec<Option<i64>>,
    writers: Vec<i16>,
    flags: Vec<i16>,
    push: Vec<i16>,
    event_ids: Vec<&'a str>,
    push_exceptions: Vec<Option<&'a str>>,
    thread_ids: Vec<Option<&'a str>>,
    device_ids: Vec<Option<&'a str>>,
    txn_ids: Vec<Option<&'a str>>,
    heads: Vec<Option<&'a str>>,
    redacted_by: Vec<Option<i64>>,
    json: Vec<&'a str>,
}

impl<'a> NewEvents<'a> {
    /// Adds an event.
    pub fn push(&mut self, new: &NewEvent<'a>) {
        self.room_nids.push(new.room_nid);
        self.event_nids.push(new.event_nid);
        self.positions.push(new.pos.map(StreamId::get));
        self.depths.push(new.depth);
        self.sender_sids.push(new.sender_sid);
        self.type_sids.push(new.type_sid);
        self.state_key_sids.push(new.state_key_sid);
        self.timestamps.push(new.origin_server_ts);
        self.state_bases.push(new.state_base.map(StreamId::get));
        self.state_deltas.push(new.state_delta);
        self.writers.push(new.writer.0);
        self.flags.push(new.flags);
        self.push.push(new.push);
        self.event_ids.push(new.event_id);
        self.push_exceptions.push(new.push_exceptions);
        self.thread_ids.push(new.thread_id);
        self.device_ids.push(new.device_id);
        self.txn_ids.push(new.txn_id);
        self.heads.push(new.heads);
        self.redacted_by.push(new.redacted_by);
        self.json.push(new.json);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.event_nids.is_empty()
    }
}

/// Adds events: one statement for all of them.
pub async fn insert_events(db: &impl Write, new: &NewEvents<'_>) -> Result<()> {
    const SQL: &str = "
        INSERT INTO events (room_nid, event_nid, pos, depth, sender_sid, type_sid, state_key_sid, origin_server_ts,
                            state_base, state_delta, writer_id, flags, push, event_id, push_exceptions, thread_id,
                            device_id, txn_id, heads, redacted_by, json)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                             $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::smallint[],
                             $12::smallint[], $13::smallint[], $14::text[], $15::text[], $16::text[], $17::text[],
                             $18::text[], $19::text[], $20::bigint[], $21::text[])";
    db.write(
        SQL,
        &[
            &new.room_nids,
            &new.event_nids,
            &new.positions,
            &new.depths,
            &new.sender_sids,
            &new.type_sids,
            &new.state_key_sids,
            &new.timestamps,
            &new.state_bases,
            &new.state_deltas,
            &new.writers,
            &new.flags,
            &new.push,
            &new.event_ids,
            &new.push_exceptions,
            &new.thread_ids,
            &new.device_ids,
            &new.txn_ids,
            &new.heads,
            &new.redacted_by,
            &new.json,
        ],
    )
    .await
}

/// Gives outliers their place: they are stored already, and their state is known now.
///
/// # Errors
/// A division by zero if one of them is not stored.
pub async fn promote_outliers(db: &impl Write, new: &NewEvents<'_>) -> Result<()> {
    const SQL: &str = "
        WITH promoted AS (
            UPDATE events e
               SET pos = n.pos, state_base = n.state_base, state_delta = n.state_delta, writer_id = n.writer_id,
                   flags = n.flags, push = n.push, push_exceptions = n.push_exceptions, thread_id = n.thread_id,
                   heads = n.heads, redacted_by = n.redacted_by, json = n.json
              FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::smallint[],
                          $7::smallint[], $8::smallint[], $9::text[], $10::text[], $11::text[], $12::bigint[],
                          $13::text[])
                AS n (room_nid, event_nid, pos, state_base, state_delta, writer_id, flags, push, push_exceptions,
                      thread_id, heads, redacted_by, json)
             WHERE e.room_nid = n.room_nid AND e.event_nid = n.event_nid
            RETURNING 1)
        SELECT 1 / (count(*) = cardinality($1))::int FROM promoted";
    db.write(
        SQL,
        &[
            &new.room_nids,
            &new.event_nids,
            &new.positions,
            &new.state_bases,
            &new.state_deltas,
            &new.writers,
            &new.flags,
            &new.push,
            &new.push_exceptions,
            &new.thread_ids,
            &new.heads,
            &new.redacted_by,
            &new.json,
        ],
    )
    .await
}
