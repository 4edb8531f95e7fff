//! `rooms`: the rooms and their numbers.

use crate::{GenericClient, Result, StorageError, Write, execute, query_one, query_opt};

/// How many event numbers [`take_event_nids`] gives at once; the increment of the sequence.
pub const EVENT_NID_BLOCK: i64 = 1000;

/// A row of `rooms`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomRow {
    /// The room's number.
    pub room_nid: i64,
    /// The room's id.
    pub room_id: String,
    /// The room's version.
    pub room_version: String,
    /// Published in the room directory.
    pub is_public: bool,
    /// An administrator blocked it.
    pub is_blocked: bool,
}

/// The first of [`EVENT_NID_BLOCK`] event numbers that nobody else gets. What is not used of them is lost, which is
/// no harm.
pub async fn take_event_nids(db: &impl GenericClient) -> Result<i64> {
    Ok(query_one(db, "SELECT nextval('event_nids')", &[]).await?.get(0))
}

/// The number of a room that is about to be inserted.
pub async fn take_room_nid(db: &impl GenericClient) -> Result<i64> {
    Ok(query_one(db, "SELECT nextval('room_nids')", &[]).await?.get(0))
}

/// Adds a room, which a request made that has a name.
///
/// # Errors
/// A unique violation if there is one of that id, or made by that request.
pub async fn insert_room(db: &impl Write, room: &RoomRow, made_by_request: Option<&str>) -> Result<()> {
    const SQL: &str = "
        INSERT INTO rooms (room_nid, room_id, room_version, is_public, is_blocked, made_by_request)
        VALUES ($1, $2, $3, $4, $5, $6)";
    let RoomRow { room_nid, room_id, room_version, is_public, is_blocked } = room;
    db.write(SQL, &[room_nid, room_id, room_version, is_public, is_blocked, &made_by_request]).await
}

/// The id of the room that the request made.
pub async fn get_room_made_by(db: &impl GenericClient, request: &str) -> Result<Option<String>> {
    const SQL: &str = "SELECT room_id FROM rooms WHERE made_by_request = $1";
    Ok(query_opt(db, SQL, &[&request]).await?.map(|row| row.get(0)))
}

/// The room of that id.
pub async fn get_room(db: &impl GenericClient, room_id: &str) -> Result<Option<RoomRow>> {
    const SQL: &str = "
        SELECT room_nid, room_id, room_version, is_public, is_blocked FROM rooms WHERE room_id = $1";
    Ok(query_opt(db, SQL, &[&room_id]).await?.map(|row| RoomRow {
        room_nid: row.get(0),
        room_id: row.get(1),
        room_version: row.get(2),
        is_public: row.get(3),
        is_blocked: row.get(4),
    }))
}

/// Publishes a room in the directory, or takes it out.
///
/// # Errors
/// [`StorageError::Inconsistent`] if there is no such room.
pub async fn set_public(db: &impl GenericClient, room_nid: i64, is_public: bool) -> Result<()> {
    const SQL: &str = "UPDATE rooms SET is_public = $2 WHERE room_nid = $1";
    match execute(db, SQL, &[&room_nid, &is_public]).await? {
        1 => Ok(()),
        _ => Err(StorageError::Inconsistent(format!("room {room_nid} is gone"))),
    }
}

/// Blocks a room, so that nobody can send to it or join it, or lifts the block.
pub async fn set_blocked(db: &impl GenericClient, room_nid: i64, is_blocked: bool) -> Result<()> {
    execute(db, "UPDATE rooms SET is_blocked = $2 WHERE room_nid = $1", &[&room_nid, &is_blocked]).await?;
    Ok(())
}
