//! States of rooms with the events that they are made of.

use super::{TIMELINE_EVENT_COLUMNS, TimelineEvent, timeline_event};
use crate::{
    GenericClient, Result, Row,
    events::{StoredEvent, stored_event},
    query, query_opt,
    strings::StringId,
};

/// An event of a state.
#[derive(Clone, Debug)]
pub struct StateEvent {
    /// The event.
    pub event: StoredEvent,
    /// The place from which on it holds.
    pub since: i64,
}

impl From<&Row> for StateEvent {
    fn from(row: &Row) -> Self {
        Self { event: StoredEvent::from(row), since: row.get(9) }
    }
}

/// A key of a room's mainline as it was for a while.
#[derive(Clone, Debug)]
pub struct HistoryRow {
    /// The room.
    pub room_nid: i64,
    /// The event type, interned.
    pub type_sid: StringId,
    /// The place from which on the event held.
    pub since: i64,
    /// The place at which another took its place; `None`: it holds still.
    pub until: Option<i64>,
    /// The event.
    pub event: StoredEvent,
}

/// How keys of mainlines changed over time, in no order: of each room and key the latest `limit` intervals. The lists
/// belong together.
pub async fn list_key_history(
    db: &impl GenericClient,
    room_nids: &[i64],
    types: &[StringId],
    keys: &[StringId],
    limit: i64,
) -> Result<Vec<HistoryRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        stored_event!(),
        ", k.room_nid, k.type_sid, held.since, held.until
          FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS k (room_nid, type_sid, key_sid)
         CROSS JOIN LATERAL (
               SELECT event_nid, since, NULL::bigint AS until FROM room_state s
                WHERE s.room_nid = k.room_nid AND s.type_sid = k.type_sid AND s.key_sid = k.key_sid
                UNION ALL
               (SELECT event_nid, since, until FROM room_state_past p
                 WHERE p.room_nid = k.room_nid AND p.type_sid = k.type_sid AND p.key_sid = k.key_sid
                 ORDER BY since DESC LIMIT $4)) AS held
          JOIN events e ON e.room_nid = k.room_nid AND e.event_nid = held.event_nid"
    );
    let rows = query(db, SQL, &[&room_nids, &types, &keys, &limit]).await?;
    let interval = |row: &Row| HistoryRow {
        room_nid: row.get(9),
        type_sid: row.get(10),
        since: row.get(11),
        until: row.get(12),
        event: StoredEvent::from(row),
    };
    Ok(rows.iter().map(interval).collect())
}

/// A room's current state, whole.
pub async fn list_current_state(db: &impl GenericClient, room_nid: i64) -> Result<Vec<StateEvent>> {
    const SQL: &str = concat!(
        "SELECT ",
        stored_event!(),
        ", s.since FROM room_state s JOIN events e USING (room_nid, event_nid) WHERE s.room_nid = $1"
    );
    Ok(query(db, SQL, &[&room_nid]).await?.iter().map(StateEvent::from).collect())
}

/// The start of a statement on the events `e` that a room's mainline had after the place `$2`, as `s`.
macro_rules! state_at {
    () => {
        concat!(
            "SELECT ",
            stored_event!(),
            ", s.since FROM (
                SELECT type_sid, key_sid, event_nid, since FROM room_state WHERE room_nid = $1 AND since <= $2
                 UNION ALL
                SELECT type_sid, key_sid, event_nid, since FROM room_state_past
                 WHERE room_nid = $1 AND since <= $2 AND until > $2) AS s
              JOIN events e ON e.room_nid = $1 AND e.event_nid = s.event_nid"
        )
    };
}

/// A room's mainline after the place `at`, whole.
pub async fn list_state_at(db: &impl GenericClient, room_nid: i64, at: i64) -> Result<Vec<StateEvent>> {
    Ok(query(db, state_at!(), &[&room_nid, &at]).await?.iter().map(StateEvent::from).collect())
}

/// A room's mainline after the place `at`; of the type `member_sid` only the keys of `members`.
pub async fn list_state_at_lazily(
    db: &impl GenericClient,
    room_nid: i64,
    at: i64,
    member_sid: StringId,
    members: &[&str],
) -> Result<Vec<StateEvent>> {
    const SQL: &str = concat!(
        state_at!(),
        " WHERE s.type_sid <> $3 OR s.key_sid IN (SELECT string_id FROM strings WHERE value = ANY ($4))"
    );
    let rows = query(db, SQL, &[&room_nid, &at, &member_sid, &members]).await?;
    Ok(rows.iter().map(StateEvent::from).collect())
}

/// Of a room's mainline after the place `at`, some keys of the type `member_sid`.
pub async fn list_members_at(
    db: &impl GenericClient,
    room_nid: i64,
    at: i64,
    member_sid: StringId,
    members: &[&str],
) -> Result<Vec<StateEvent>> {
    const SQL: &str = concat!(
        "SELECT ",
        stored_event!(),
        ", held.since
          FROM strings k
         CROSS JOIN LATERAL (
               SELECT event_nid, since FROM room_state s
                WHERE s.room_nid = $1 AND s.type_sid = $3 AND s.key_sid = k.string_id AND since <= $2
                UNION ALL
               SELECT event_nid, since FROM room_state_past p
                WHERE p.room_nid = $1 AND p.type_sid = $3 AND p.key_sid = k.string_id
                  AND since <= $2 AND until > $2) AS held
          JOIN events e ON e.room_nid = $1 AND e.event_nid = held.event_nid
         WHERE k.value = ANY ($4)"
    );
    let rows = query(db, SQL, &[&room_nid, &at, &member_sid, &members]).await?;
    Ok(rows.iter().map(StateEvent::from).collect())
}

/// One key of a room's mainline after the place `at`.
pub async fn get_state_event_at(
    db: &impl GenericClient,
    room_nid: i64,
    at: i64,
    event_type: &str,
    state_key: &str,
) -> Result<Option<StateEvent>> {
    const SQL: &str = concat!(
        "SELECT ",
        stored_event!(),
        ", held.since
          FROM strings t CROSS JOIN strings k
         CROSS JOIN LATERAL (
               SELECT event_nid, since FROM room_state s
                WHERE s.room_nid = $1 AND s.type_sid = t.string_id AND s.key_sid = k.string_id AND since <= $2
                UNION ALL
               SELECT event_nid, since FROM room_state_past p
                WHERE p.room_nid = $1 AND p.type_sid = t.string_id AND p.key_sid = k.string_id
                  AND since <= $2 AND until > $2) AS held
          JOIN events e ON e.room_nid = $1 AND e.event_nid = held.event_nid
         WHERE t.value = $3 AND k.value = $4"
    );
    let row = query_opt(db, SQL, &[&room_nid, &at, &event_type, &state_key]).await?;
    Ok(row.as_ref().map(StateEvent::from))
}

/// Whether a room's current state changed after a place.
pub async fn is_state_changed_after(db: &impl GenericClient, room_nid: i64, at: i64) -> Result<bool> {
    const SQL: &str = "
        SELECT FROM events WHERE room_nid = $1 AND pos > $2 AND flags & 72 <> 0 ORDER BY pos LIMIT 1";
    Ok(query_opt(db, SQL, &[&room_nid, &at]).await?.is_some())
}

/// What state events took the place of, each with the place where they did; the lists belong together. Keys that held
/// nothing are left out.
pub async fn list_replaced_events(
    db: &impl GenericClient,
    room_nids: &[i64],
    types: &[StringId],
    keys: &[StringId],
    at: &[i64],
) -> Result<Vec<(i64, TimelineEvent)>> {
    const SQL: &str = concat!(
        "SELECT ",
        timeline_event!(),
        ", p.until
          FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS k (room_nid, type_sid, key_sid, at)
          JOIN room_state_past p USING (room_nid, type_sid, key_sid)
          JOIN events e ON e.room_nid = p.room_nid AND e.event_nid = p.event_nid
         WHERE p.until = k.at"
    );
    let rows = query(db, SQL, &[&room_nids, &types, &keys, &at]).await?;
    Ok(rows.iter().map(|row| (row.get(TIMELINE_EVENT_COLUMNS), TimelineEvent::from(row))).collect())
}
