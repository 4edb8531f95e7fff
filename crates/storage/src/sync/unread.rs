//! Unread counts of many rooms at once: sums over the events after a receipt.

use crate::{GenericClient, Result, query, strings::StringId};

/// Up to where a user has read, of which room and thread.
#[derive(Clone, Debug, Default)]
pub struct ReadUpTo {
    /// The rooms.
    pub room_nids: Vec<i64>,
    /// For each: nothing up to here counts.
    pub positions: Vec<i64>,
    /// For each: up to where it is counted.
    pub upto: Vec<i64>,
    /// Rooms of which the user has read threads apart.
    pub thread_rooms: Vec<i64>,
    /// For each: the thread, empty for what is in no thread.
    pub thread_ids: Vec<String>,
    /// For each: nothing of the thread up to here counts.
    pub thread_positions: Vec<i64>,
}

/// What is unread of a thread of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadRow {
    /// The room.
    pub room_nid: i64,
    /// The thread; `None` for what is in no thread.
    pub thread_id: Option<String>,
    /// How many events notify.
    pub notifications: i64,
    /// How many of them highlight.
    pub highlights: i64,
}

/// Counts what is unread, by room and thread; what has nothing unread is left out. No room counts more than
/// `max_events` of its newest events.
pub async fn count_unread(
    db: &impl GenericClient,
    user_id: &str,
    user_sid: StringId,
    read: &ReadUpTo,
    max_events: i64,
) -> Result<Vec<UnreadRow>> {
    const SQL: &str = "
        SELECT q.room_nid, e.thread_id, count(*) FILTER (WHERE b.bits & 1 <> 0), count(*) FILTER (WHERE b.bits & 2 <> 0)
          FROM unnest($3::bigint[], $4::bigint[], $5::bigint[]) AS q (room_nid, after, upto)
         CROSS JOIN LATERAL (
               SELECT e.pos, e.thread_id, e.push, e.push_exceptions, e.sender_sid FROM events e
                WHERE e.room_nid = q.room_nid AND e.pos > q.after AND e.pos <= q.upto
                ORDER BY e.pos DESC LIMIT $9) e
         CROSS JOIN LATERAL (
               SELECT coalesce((e.push_exceptions::jsonb ->> $1)::int, e.push) AS bits) b
          LEFT JOIN unnest($6::bigint[], $7::text[], $8::bigint[]) AS t (room_nid, thread_id, after)
                 ON t.room_nid = q.room_nid AND t.thread_id = coalesce(e.thread_id, '')
         WHERE b.bits <> 0 AND e.sender_sid <> $2 AND e.pos > coalesce(t.after, q.after)
         GROUP BY q.room_nid, e.thread_id";
    let rows = query(
        db,
        SQL,
        &[
            &user_id,
            &user_sid,
            &read.room_nids,
            &read.positions,
            &read.upto,
            &read.thread_rooms,
            &read.thread_ids,
            &read.thread_positions,
            &max_events,
        ],
    )
    .await?;
    Ok(rows
        .iter()
        .map(|row| UnreadRow {
            room_nid: row.get(0),
            thread_id: row.get(1),
            notifications: row.get(2),
            highlights: row.get(3),
        })
        .collect())
}
