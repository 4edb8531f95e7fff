//! What the directory and summaries tell of rooms.

use crate::{
    GenericClient, Result, Row,
    events::{StoredEvent, stored_event},
    query,
    rooms::RoomRow,
    strings::StringId,
};

/// The rooms that are published in the directory, in no order.
pub async fn list_public_rooms(db: &impl GenericClient) -> Result<Vec<RoomRow>> {
    const SQL: &str = "
        SELECT room_nid, room_id, room_version, is_public, is_blocked FROM rooms WHERE is_public";
    let room = |row: &Row| RoomRow {
        room_nid: row.get(0),
        room_id: row.get(1),
        room_version: row.get(2),
        is_public: row.get(3),
        is_blocked: row.get(4),
    };
    Ok(query(db, SQL, &[]).await?.iter().map(room).collect())
}

/// An event of the current state of one of several rooms.
#[derive(Clone, Debug)]
pub struct SummaryState {
    /// The room.
    pub room_nid: i64,
    /// The event.
    pub event: StoredEvent,
}

/// The current state of some rooms, only these types.
pub async fn list_summary_state(
    db: &impl GenericClient,
    room_nids: &[i64],
    types: &[StringId],
) -> Result<Vec<SummaryState>> {
    const SQL: &str = concat!(
        "SELECT ",
        stored_event!(),
        ", e.room_nid
          FROM unnest($1::bigint[]) AS r (room_nid) CROSS JOIN unnest($2::bigint[]) AS t (type_sid)
          JOIN room_state s ON s.room_nid = r.room_nid AND s.type_sid = t.type_sid
          JOIN events e ON e.room_nid = s.room_nid AND e.event_nid = s.event_nid"
    );
    let rows = query(db, SQL, &[&room_nids, &types]).await?;
    Ok(rows.iter().map(|row| SummaryState { room_nid: row.get(9), event: StoredEvent::from(row) }).collect())
}

/// How many members a room has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinedCount {
    /// The room.
    pub room_nid: i64,
    /// The joined members.
    pub joined: i64,
}

/// How many members each of some rooms has; rooms without any are left out.
pub async fn list_joined_counts(db: &impl GenericClient, room_nids: &[i64]) -> Result<Vec<JoinedCount>> {
    const SQL: &str = "
        SELECT room_nid, count(*) FROM memberships
         WHERE room_nid = ANY ($1) AND membership = 1 GROUP BY room_nid";
    let count = |row: &Row| JoinedCount { room_nid: row.get(0), joined: row.get(1) };
    Ok(query(db, SQL, &[&room_nids]).await?.iter().map(count).collect())
}
