//! What the sync engine reads of rooms it does not have in memory: always many rooms in one query.
//!
//! - [`rooms`](self): a user's rooms, timelines and states;
//! - [`members`]: who is in them;
//! - [`unread`]: how much of them is unread.

pub mod members;
pub mod unread;

use std::collections::HashSet;

use myelin_types::{StreamId, WriterId};

use crate::{GenericClient, Result, Row, query, strings::StringId};

/// A user's membership of a room.
#[derive(Clone, Debug)]
pub struct UserRoomRow {
    /// The room's number.
    pub room_nid: i64,
    /// Its id.
    pub room_id: String,
    /// Its version.
    pub room_version: String,
    /// 0 leave, 1 join, 2 invite, 3 knock, 4 ban.
    pub membership: i16,
    /// The place of the event that says so.
    pub pos: StreamId,
    /// The place of the event by which the user came in, if there were others since (a new name, say).
    pub joined_at: Option<StreamId>,
    /// Who wrote it.
    pub writer: WriterId,
    /// Who sent it.
    pub sender: String,
}

/// The newest event of each room's timeline.
pub async fn newest_events(
    db: &impl GenericClient,
    room_nids: &[i64],
) -> Result<Vec<(i64, WriterId, StreamId)>> {
    const SQL: &str = "
        SELECT q.room_nid, newest.writer_id, newest.pos
          FROM unnest($1::bigint[]) AS q (room_nid)
         CROSS JOIN LATERAL (
               SELECT e.pos, e.writer_id FROM events e
                WHERE e.room_nid = q.room_nid AND e.pos IS NOT NULL ORDER BY e.pos DESC LIMIT 1) newest";
    let rows = query(db, SQL, &[&room_nids]).await?;
    Ok(rows.iter().map(|row| (row.get(0), WriterId(row.get(1)), StreamId(row.get(2)))).collect())
}

/// All rooms that a user has or had something to do with and did not forget.
pub async fn rooms_of_user(db: &impl GenericClient, user_sid: StringId) -> Result<Vec<UserRoomRow>> {
    // The JSON is canonical, so the pattern fits what it looks for and nothing else; it may hold what jsonb can't.
    const SQL: &str = r#"
        SELECT m.room_nid, r.room_id, r.room_version, m.membership, m.pos, m.writer_id, s.value,
               past.joined_at
          FROM memberships m
          JOIN rooms r USING (room_nid)
          JOIN strings s ON s.string_id = m.sender_sid
          LEFT JOIN LATERAL (
               SELECT coalesce(max(p.until) FILTER (WHERE e.json NOT LIKE '%"membership":"join"%'), min(p.since))
                      AS joined_at
                 FROM room_state_past p JOIN events e USING (room_nid, event_nid)
                WHERE p.room_nid = m.room_nid AND p.key_sid = m.user_sid
                  AND p.type_sid = (SELECT string_id FROM strings WHERE value = 'm.room.member')
               ) past ON m.membership = 1
         WHERE m.user_sid = $1 AND NOT m.forgotten"#;
    let rows = query(db, SQL, &[&user_sid]).await?;
    Ok(rows
        .iter()
        .map(|row| UserRoomRow {
            room_nid: row.get(0),
            room_id: row.get(1),
            room_version: row.get(2),
            membership: row.get(3),
            pos: StreamId(row.get(4)),
            writer: WriterId(row.get(5)),
            sender: row.get(6),
            joined_at: row.get::<_, Option<i64>>(7).map(StreamId),
        })
        .collect())
}

/// The numbers of the rooms that a user has forgotten.
pub async fn forgotten_rooms(db: &impl GenericClient, user_sid: StringId) -> Result<Vec<i64>> {
    const SQL: &str = "SELECT room_nid FROM memberships WHERE user_sid = $1 AND forgotten";
    Ok(query(db, SQL, &[&user_sid]).await?.iter().map(|row| row.get(0)).collect())
}

/// An event of a timeline.
#[derive(Clone, Debug)]
pub struct TimelineRow {
    /// The room's number.
    pub room_nid: i64,
    /// The event's place.
    pub pos: StreamId,
    /// Who wrote it.
    pub writer: WriterId,
    /// The event's id.
    pub event_id: String,
    /// The signed JSON.
    pub json: String,
    /// See [`events::flags`](crate::events::flags).
    pub flags: i16,
    /// What push rules make of it for most.
    pub push: i16,
    /// For whom they make something else of it, as JSON.
    pub push_exceptions: Option<String>,
    /// The thread that it is part of.
    pub thread_id: Option<String>,
    /// The device that sent it, and its transaction id.
    pub sent_by: Option<(String, String)>,
    /// The number of the event that redacted it.
    pub redacted_by: Option<i64>,
    /// For state: the numbers of type and key.
    pub state_sids: Option<(StringId, StringId)>,
    /// Other events point at it.
    pub has_relations: bool,
}

/// Of each room the newest `limit` events up to `upto`, which are given for each room; newest first.
pub async fn timelines(
    db: &impl GenericClient,
    room_nids: &[i64],
    upto: &[i64],
    limits: &[i64],
) -> Result<Vec<TimelineRow>> {
    const SQL: &str = concat!(
        "
        SELECT e.room_nid, e.pos, e.writer_id, e.event_id, e.json, e.flags, e.push, e.push_exceptions, e.thread_id,
               e.device_id, e.txn_id, e.redacted_by, e.type_sid, e.state_key_sid, ",
        crate::events::has_relations!(),
        "
          FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS q (room_nid, upto, n)
         CROSS JOIN LATERAL (
               SELECT * FROM events e
                WHERE e.room_nid = q.room_nid AND e.pos IS NOT NULL AND e.pos <= q.upto
                ORDER BY e.pos DESC LIMIT q.n) e"
    );
    let rows = query(db, SQL, &[&room_nids, &upto, &limits]).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let type_sid: StringId = row.get(12);
            TimelineRow {
                room_nid: row.get(0),
                pos: StreamId(row.get(1)),
                writer: WriterId(row.get(2)),
                event_id: row.get(3),
                json: row.get(4),
                flags: row.get(5),
                push: row.get(6),
                push_exceptions: row.get(7),
                thread_id: row.get(8),
                sent_by: row.get::<_, Option<String>>(9).zip(row.get(10)),
                redacted_by: row.get(11),
                state_sids: row.get::<_, Option<StringId>>(13).map(|key_sid| (type_sid, key_sid)),
                has_relations: row.get(14),
            }
        })
        .collect())
}

/// An event of a room's state.
#[derive(Clone, Debug)]
pub struct StateRow {
    /// The room's number.
    pub room_nid: i64,
    /// Since when it holds.
    pub since: StreamId,
    /// The event's id.
    pub event_id: String,
    /// The signed JSON.
    pub json: String,
}

fn state_row(row: &Row) -> StateRow {
    StateRow { room_nid: row.get(0), since: StreamId(row.get(1)), event_id: row.get(2), json: row.get(3) }
}

/// The current state of some rooms: all of it.
///
/// Like all reads of many rooms here it says by lateral joins that each row is looked up by its key: the planner, which takes
/// a room's number and an event's for unrelated, may else read all events there are.
pub async fn current_states(db: &impl GenericClient, room_nids: &[i64]) -> Result<Vec<StateRow>> {
    const SQL: &str = "
        SELECT s.room_nid, s.since, e.event_id, e.json
          FROM unnest($1::bigint[]) AS q (room_nid)
         CROSS JOIN LATERAL (SELECT * FROM room_state s WHERE s.room_nid = q.room_nid OFFSET 0) s
         CROSS JOIN LATERAL (SELECT event_id, json FROM events e
                              WHERE e.room_nid = s.room_nid AND e.event_nid = s.event_nid OFFSET 0) e";
    Ok(query(db, SQL, &[&room_nids]).await?.iter().map(state_row).collect())
}

/// The current state of some rooms: all of it where at most so many users have or had anything to do with the room, all but the
/// members elsewhere. Also gives the rooms of the first kind.
pub async fn current_states_of_few(
    db: &impl GenericClient,
    room_nids: &[i64],
    max_members: i64,
) -> Result<(Vec<StateRow>, HashSet<i64>)> {
    const SQL: &str = "
        SELECT s.room_nid, s.since, e.event_id, e.json, q.is_small
          FROM (SELECT room_nid,
                       (SELECT count(*) FROM (SELECT FROM memberships m WHERE m.room_nid = q.room_nid LIMIT $2::bigint + 1) m)
                       <= $2 AS is_small
                  FROM unnest($1::bigint[]) AS q (room_nid) OFFSET 0) AS q
         CROSS JOIN LATERAL (
               SELECT * FROM room_state s
                WHERE s.room_nid = q.room_nid
                  AND (q.is_small
                       OR s.type_sid IS DISTINCT FROM (SELECT string_id FROM strings WHERE value = 'm.room.member'))
               OFFSET 0) s
         CROSS JOIN LATERAL (SELECT event_id, json FROM events e
                              WHERE e.room_nid = s.room_nid AND e.event_nid = s.event_nid OFFSET 0) e";
    let rows = query(db, SQL, &[&room_nids, &max_members]).await?;
    let small = rows.iter().filter(|row| row.get(4)).map(|row| row.get(0)).collect();
    Ok((rows.iter().map(state_row).collect(), small))
}

/// The current state of some rooms, of the given types with an empty state key.
pub async fn current_states_of_types(
    db: &impl GenericClient,
    room_nids: &[i64],
    types: &[&str],
) -> Result<Vec<StateRow>> {
    const SQL: &str = "
        SELECT s.room_nid, s.since, e.event_id, e.json
          FROM unnest($1::bigint[]) AS q (room_nid)
         CROSS JOIN (SELECT string_id FROM strings WHERE value = ANY ($2)) AS t (type_sid)
          JOIN room_state s ON s.room_nid = q.room_nid AND s.type_sid = t.type_sid
                           AND s.key_sid = (SELECT string_id FROM strings WHERE value = '')
          JOIN events e ON e.room_nid = s.room_nid AND e.event_nid = s.event_nid";
    Ok(query(db, SQL, &[&room_nids, &types]).await?.iter().map(state_row).collect())
}

/// What changed in the current state of some rooms after an id of the events stream, in its present form.
pub async fn state_changes(
    db: &impl GenericClient,
    room_nids: &[i64],
    after: StreamId,
) -> Result<Vec<StateRow>> {
    const SQL: &str = "
        SELECT s.room_nid, s.since, e.event_id, e.json
          FROM unnest($1::bigint[]) AS q (room_nid)
         CROSS JOIN LATERAL (SELECT * FROM room_state s WHERE s.room_nid = q.room_nid AND s.since > $2 OFFSET 0) s
         CROSS JOIN LATERAL (SELECT event_id, json FROM events e
                              WHERE e.room_nid = s.room_nid AND e.event_nid = s.event_nid OFFSET 0) e";
    Ok(query(db, SQL, &[&room_nids, &after.0]).await?.iter().map(state_row).collect())
}

/// What state events took the place of: for each `(room, type, key, pos)` the event that held until `pos`. `since` of
/// the rows is that `pos`.
pub async fn replaced_states(
    db: &impl GenericClient,
    room_nids: &[i64],
    type_sids: &[StringId],
    key_sids: &[StringId],
    positions: &[i64],
) -> Result<Vec<StateRow>> {
    const SQL: &str = "
        SELECT q.room_nid, q.pos, e.event_id, e.json
          FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS q (room_nid, type_sid, key_sid, pos)
          JOIN room_state_past p ON p.room_nid = q.room_nid AND p.type_sid = q.type_sid AND p.key_sid = q.key_sid
                                AND p.until = q.pos
          JOIN events e ON e.room_nid = p.room_nid AND e.event_nid = p.event_nid";
    let rows = query(db, SQL, &[&room_nids, &type_sids, &key_sids, &positions]).await?;
    Ok(rows.iter().map(state_row).collect())
}

/// Events by their numbers, as `(room, number, event id, JSON)`.
pub async fn events_by_nid(
    db: &impl GenericClient,
    room_nids: &[i64],
    event_nids: &[i64],
) -> Result<Vec<(i64, i64, String, String)>> {
    const SQL: &str = "
        SELECT e.room_nid, e.event_nid, e.event_id, e.json
          FROM unnest($1::bigint[], $2::bigint[]) AS q (room_nid, event_nid) JOIN events e USING (room_nid, event_nid)";
    let rows = query(db, SQL, &[&room_nids, &event_nids]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect())
}

/// The state of some rooms just after a place, which is given for each room.
pub async fn states_at(db: &impl GenericClient, room_nids: &[i64], at: &[i64]) -> Result<Vec<StateRow>> {
    const SQL: &str = "
        SELECT q.room_nid, s.since, e.event_id, e.json
          FROM unnest($1::bigint[], $2::bigint[]) AS q (room_nid, at)
         CROSS JOIN LATERAL (
               SELECT since, event_nid FROM room_state WHERE room_nid = q.room_nid AND since <= q.at
                UNION ALL
               SELECT since, event_nid FROM room_state_past
                WHERE room_nid = q.room_nid AND since <= q.at AND until > q.at) s
          JOIN events e ON e.room_nid = q.room_nid AND e.event_nid = s.event_nid";
    Ok(query(db, SQL, &[&room_nids, &at]).await?.iter().map(state_row).collect())
}
