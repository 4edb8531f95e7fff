//! Reading rooms for their members: timelines, states and relations, always many rows with one statement.
//!
//! Nothing here decides who may see what; the callers are given what that takes.

use crate::{
    GenericClient, Result, Row, events::StoredEvent, query, query_one, query_opt, rooms::RoomRow,
    strings::StringId,
};

mod directory;
mod relations;
mod state;
mod timeline;

pub use directory::{JoinedCount, SummaryState, list_joined_counts, list_public_rooms, list_summary_state};
pub use relations::{
    EventRef, Related, RelationPage, RelationSummary, ThreadPage, ThreadRow, list_edits, list_references,
    list_relations, list_threads, summarize_relations,
};
pub use state::{
    HistoryRow, StateEvent, get_state_event_at, is_state_changed_after, list_current_state, list_key_history,
    list_members_at, list_replaced_events, list_state_at, list_state_at_lazily,
};
pub use timeline::{
    EventFilter, Page, TimeRow, find_event_by_time, get_scan_end, list_filtered_timeline, list_timeline,
    list_timeline_by_id, list_timeline_by_nid,
};

/// An event of a timeline with what its readers need beside itself.
#[derive(Clone, Debug)]
pub struct TimelineEvent {
    /// The room.
    pub room_nid: i64,
    /// The event.
    pub event: StoredEvent,
    /// The type, interned.
    pub type_sid: StringId,
    /// The state key, interned.
    pub key_sid: Option<StringId>,
    /// The device that sent it.
    pub device_id: Option<String>,
    /// The transaction id that it was sent with.
    pub txn_id: Option<String>,
    /// Other events point at it.
    pub has_relations: bool,
}

/// The columns of a [`TimelineEvent`], for statements that select it from `events e`.
macro_rules! timeline_event {
    () => {
        concat!(
            crate::events::stored_event!(),
            ", e.room_nid, e.type_sid, e.state_key_sid, e.device_id, e.txn_id, ",
            crate::events::has_relations!()
        )
    };
}
pub(crate) use timeline_event;

/// How many columns that are: the index of the first that comes behind them.
const TIMELINE_EVENT_COLUMNS: usize = 15;

impl From<&Row> for TimelineEvent {
    fn from(row: &Row) -> Self {
        Self {
            event: StoredEvent::from(row),
            room_nid: row.get(9),
            type_sid: row.get(10),
            key_sid: row.get(11),
            device_id: row.get(12),
            txn_id: row.get(13),
            has_relations: row.get(14),
        }
    }
}

/// A user's latest membership of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembershipRow {
    /// The room.
    pub room_nid: i64,
    /// 0 leave, 1 join, 2 invite, 3 knock, 4 ban.
    pub membership: i16,
    /// Where it changed last.
    pub pos: i64,
    /// The user does not want to know of the room any more.
    pub forgotten: bool,
}

/// A user's latest memberships of some rooms, in no order.
pub async fn list_memberships(
    db: &impl GenericClient,
    user_sid: StringId,
    room_nids: &[i64],
) -> Result<Vec<MembershipRow>> {
    const SQL: &str = "
        SELECT room_nid, membership, pos, forgotten FROM memberships WHERE user_sid = $1 AND room_nid = ANY ($2)";
    let membership = |row: &Row| MembershipRow {
        room_nid: row.get(0),
        membership: row.get(1),
        pos: row.get(2),
        forgotten: row.get(3),
    };
    Ok(query(db, SQL, &[&user_sid, &room_nids]).await?.iter().map(membership).collect())
}

/// Whether two users are in a room together.
pub async fn share_a_room(db: &impl GenericClient, one: StringId, other: StringId) -> Result<bool> {
    const SQL: &str = "
        SELECT EXISTS (SELECT FROM memberships a JOIN memberships b USING (room_nid)
                        WHERE a.user_sid = $1 AND b.user_sid = $2 AND a.membership = 1 AND b.membership = 1)";
    Ok(query_one(db, SQL, &[&one, &other]).await?.get(0))
}

/// Where an event stands in its room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPlace {
    /// Its place in the timeline.
    pub pos: i64,
    /// The root of the thread that it is part of.
    pub thread_id: Option<String>,
}

/// The place of an event that is in a room's timeline.
pub async fn get_event_place(
    db: &impl GenericClient,
    room_nid: i64,
    event_id: &str,
) -> Result<Option<EventPlace>> {
    const SQL: &str =
        "SELECT pos, thread_id FROM events WHERE event_id = $2 AND room_nid = $1 AND pos IS NOT NULL";
    let row = query_opt(db, SQL, &[&room_nid, &event_id]).await?;
    Ok(row.map(|row| EventPlace { pos: row.get(0), thread_id: row.get(1) }))
}

/// Those of the rooms with these ids that there are, in no order.
pub async fn list_rooms(db: &impl GenericClient, room_ids: &[&str]) -> Result<Vec<RoomRow>> {
    const SQL: &str = "
        SELECT room_nid, room_id, room_version, is_public, is_blocked FROM rooms WHERE room_id = ANY ($1)";
    Ok(query(db, SQL, &[&room_ids]).await?.iter().map(room).collect())
}

/// The rooms with these numbers, in no order.
pub async fn list_rooms_by_nid(db: &impl GenericClient, room_nids: &[i64]) -> Result<Vec<RoomRow>> {
    const SQL: &str = "
        SELECT room_nid, room_id, room_version, is_public, is_blocked FROM rooms WHERE room_nid = ANY ($1)";
    Ok(query(db, SQL, &[&room_nids]).await?.iter().map(room).collect())
}

fn room(row: &Row) -> RoomRow {
    RoomRow {
        room_nid: row.get(0),
        room_id: row.get(1),
        room_version: row.get(2),
        is_public: row.get(3),
        is_blocked: row.get(4),
    }
}

/// Those of these users who asked to be erased.
pub async fn list_erased_users(db: &impl GenericClient, user_ids: &[&str]) -> Result<Vec<String>> {
    const SQL: &str = "SELECT user_id FROM users WHERE user_id = ANY ($1) AND erased";
    Ok(query(db, SQL, &[&user_ids]).await?.iter().map(|row| row.get(0)).collect())
}
