//! Members of many rooms at once.

use myelin_types::{Position, StreamId, WriterId};

use super::{StateRow, state_row};
use crate::{GenericClient, Result, query, strings::StringId};

/// The current member events of given users in given rooms.
pub async fn member_events(
    db: &impl GenericClient,
    room_nids: &[i64],
    user_sids: &[StringId],
) -> Result<Vec<StateRow>> {
    const SQL: &str = "
        SELECT s.room_nid, s.since, e.event_id, e.json
          FROM unnest($1::bigint[], $2::bigint[]) AS q (room_nid, user_sid)
         CROSS JOIN LATERAL (
               SELECT * FROM room_state s
                WHERE s.room_nid = q.room_nid AND s.key_sid = q.user_sid
                  AND s.type_sid = (SELECT string_id FROM strings WHERE value = 'm.room.member')
               OFFSET 0) s
         CROSS JOIN LATERAL (SELECT event_id, json FROM events e
                              WHERE e.room_nid = s.room_nid AND e.event_nid = s.event_nid OFFSET 0) e";
    Ok(query(db, SQL, &[&room_nids, &user_sids]).await?.iter().map(state_row).collect())
}

/// How many members a room has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberCount {
    /// The room's number.
    pub room_nid: i64,
    /// How many have joined.
    pub joined: i64,
    /// How many are invited.
    pub invited: i64,
    /// Up to where the events stream was committed when they were counted.
    pub at: Position,
}

/// How many have joined and are invited to each room. Rooms without any are left out.
pub async fn count_members(db: &impl GenericClient, room_nids: &[i64]) -> Result<Vec<MemberCount>> {
    const SQL: &str = "
        SELECT m.room_nid, count(*) FILTER (WHERE m.membership = 1), count(*) FILTER (WHERE m.membership = 2),
               p.writers, p.positions
          FROM memberships m
         CROSS JOIN (SELECT array_agg(writer_id) AS writers, array_agg(position) AS positions
                       FROM stream_positions WHERE stream = 'events') p
         WHERE m.room_nid = ANY ($1) AND m.membership IN (1, 2) GROUP BY m.room_nid, p.writers, p.positions";
    let rows = query(db, SQL, &[&room_nids]).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let writers: Vec<i16> = row.get::<_, Option<_>>(3).unwrap_or_default();
            let positions: Vec<i64> = row.get::<_, Option<_>>(4).unwrap_or_default();
            let committed = writers.into_iter().zip(positions);
            MemberCount {
                room_nid: row.get(0),
                joined: row.get(1),
                invited: row.get(2),
                at: Position::from_writers(committed.map(|(writer, id)| (WriterId(writer), StreamId(id)))),
            }
        })
        .collect())
}

/// The first `limit` members of each room who have joined or are invited, and where there is at most one of them as many of the
/// others. As `(room, user, whether they are present)`, each room's by their age.
pub async fn first_members(
    db: &impl GenericClient,
    room_nids: &[i64],
    limit: i64,
) -> Result<Vec<(i64, String, bool)>> {
    const SQL: &str = "
        SELECT q.room_nid, s.value, h.present
          FROM unnest($1::bigint[]) AS q (room_nid)
         CROSS JOIN LATERAL (
               (SELECT m.user_sid, m.pos, true AS present FROM memberships m
                 WHERE m.room_nid = q.room_nid AND m.membership IN (1, 2) ORDER BY m.pos LIMIT $2)
                UNION ALL
               (SELECT m.user_sid, m.pos, false FROM memberships m
                 WHERE m.room_nid = q.room_nid AND m.membership NOT IN (1, 2)
                   AND (SELECT count(*) FROM (SELECT FROM memberships o
                                               WHERE o.room_nid = q.room_nid AND o.membership IN (1, 2) LIMIT 2) two) < 2
                 ORDER BY m.pos LIMIT $2)) h
          JOIN strings s ON s.string_id = h.user_sid
         ORDER BY q.room_nid, h.pos";
    let rows = query(db, SQL, &[&room_nids, &limit]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// A user's member events that held in some rooms at a position of the events stream, where it is another now.
pub async fn memberships_at(
    db: &impl GenericClient,
    user_sid: StringId,
    room_nids: &[i64],
    at: &Position,
) -> Result<Vec<StateRow>> {
    // What a room's writers wrote is covered from its beginning up to some place, so the last that is covered is what held; unless
    // it ended at a place that is covered, too.
    const SQL: &str = "
        WITH ahead AS (SELECT * FROM unnest($4::smallint[], $5::bigint[]) AS a (writer, id))
        SELECT DISTINCT ON (p.room_nid) p.room_nid, p.since, e.event_id, e.json
          FROM unnest($1::bigint[]) AS q (room_nid)
          JOIN room_state_past p ON p.room_nid = q.room_nid AND p.key_sid = $2
                                AND p.type_sid = (SELECT string_id FROM strings WHERE value = 'm.room.member')
          JOIN events e ON e.room_nid = p.room_nid AND e.event_nid = p.event_nid
          LEFT JOIN events began ON began.pos = p.since
          LEFT JOIN events ended ON ended.pos = p.until
         WHERE (p.since <= $3 OR EXISTS (SELECT 1 FROM ahead WHERE writer = began.writer_id AND p.since <= id))
           AND p.until > $3
           AND NOT EXISTS (SELECT 1 FROM ahead WHERE writer = ended.writer_id AND p.until <= id)
         ORDER BY p.room_nid, p.since DESC";
    let (writers, ids): (Vec<i16>, Vec<i64>) = at.ahead().map(|(writer, id)| (writer.0, id.0)).unzip();
    let rows = query(db, SQL, &[&room_nids, &user_sid, &at.minimum().0, &writers, &ids]).await?;
    Ok(rows.iter().map(state_row).collect())
}

/// Those of `candidates` who have joined a room that `user_sid` has joined too.
pub async fn sharing_a_room(
    db: &impl GenericClient,
    user_sid: StringId,
    candidates: &[&str],
) -> Result<Vec<String>> {
    const SQL: &str = "
        SELECT s.value FROM strings s
         WHERE s.value = ANY ($2)
           AND EXISTS (SELECT 1 FROM memberships o JOIN memberships m USING (room_nid)
                        WHERE o.user_sid = s.string_id AND o.membership = 1 AND m.user_sid = $1 AND m.membership = 1)";
    let rows = query(db, SQL, &[&user_sid, &candidates]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Who has joined any of some rooms, or has left one of them after an id of the events stream; each user once.
pub async fn members_of_any(db: &impl GenericClient, room_nids: &[i64]) -> Result<Vec<String>> {
    const SQL: &str = "
        SELECT value FROM strings
         WHERE string_id IN (SELECT user_sid FROM memberships WHERE room_nid = ANY ($1) AND membership = 1)";
    Ok(query(db, SQL, &[&room_nids]).await?.iter().map(|row| row.get(0)).collect())
}

/// Whose membership of some rooms changed after an id of the events stream, each user once.
pub async fn members_changed(
    db: &impl GenericClient,
    room_nids: &[i64],
    after: StreamId,
) -> Result<Vec<(String, i16)>> {
    const SQL: &str = "
        SELECT s.value, m.membership FROM memberships m JOIN strings s ON s.string_id = m.user_sid
         WHERE m.room_nid = ANY ($1) AND m.pos > $2";
    let rows = query(db, SQL, &[&room_nids, &after.0]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Who came into a user's company or left it after an id of the events stream, by rooms that either of them has come
/// into or left since then; with whether both have joined such a room now. Each user once. Those whose profile changed
/// are among them.
pub async fn company_changed(
    db: &impl GenericClient,
    user_sid: StringId,
    after: StreamId,
) -> Result<Vec<(String, bool)>> {
    const SQL: &str = "
        SELECT s.value, bool_or(me.membership = 1 AND m.membership = 1)
          FROM memberships me
          JOIN memberships m ON m.room_nid = me.room_nid AND m.user_sid <> me.user_sid AND m.membership IN (0, 1, 4)
          JOIN strings s ON s.string_id = m.user_sid
         WHERE me.user_sid = $1
           AND ((me.membership = 1 AND m.pos > $2) OR (me.membership IN (0, 1, 4) AND me.pos > $2 AND m.membership = 1))
         GROUP BY s.value";
    Ok(query(db, SQL, &[&user_sid, &after.0]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The stripped state that came along with invites and knocks of a user, as `(room, JSON array)`.
pub async fn stripped_states(
    db: &impl GenericClient,
    user_sid: StringId,
    room_nids: &[i64],
) -> Result<Vec<(i64, String)>> {
    const SQL: &str = "
        SELECT room_nid, stripped_state FROM memberships
         WHERE user_sid = $1 AND room_nid = ANY ($2) AND stripped_state IS NOT NULL";
    let rows = query(db, SQL, &[&user_sid, &room_nids]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
