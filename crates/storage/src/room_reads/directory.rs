//! What the directory and summaries tell of rooms.

use crate::{
    GenericClient, Result, Row,
    events::{StoredEvent, stored_event},
    query,
    strings::StringId,
};

/// The numbers of the rooms that are published in the directory, in no order; blocked ones are left out.
pub async fn list_public_rooms(db: &impl GenericClient) -> Result<Vec<i64>> {
    const SQL: &str = "SELECT room_nid FROM rooms WHERE is_public AND NOT is_blocked";
    Ok(query(db, SQL, &[]).await?.iter().map(|row| row.get(0)).collect())
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
