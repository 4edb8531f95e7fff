//! `relations`: events that point at other events.

use myelin_types::StreamId;

use crate::{GenericClient, Result, Write, query, strings::StringId};

/// The relation type under which redactions wait for their target.
pub const PENDING_REDACTION: &str = "m.room.redaction";

/// Relations that are new, as columns of `relations`.
#[derive(Debug, Default)]
pub struct NewRelations<'a> {
    room_nids: Vec<i64>,
    parents: Vec<&'a str>,
    event_nids: Vec<i64>,
    positions: Vec<Option<i64>>,
    rel_types: Vec<&'a str>,
    type_sids: Vec<StringId>,
    sender_sids: Vec<StringId>,
    keys: Vec<Option<&'a str>>,
}

/// An event that points at another.
#[derive(Clone, Copy, Debug)]
pub struct NewRelation<'a> {
    /// The room of both.
    pub room_nid: i64,
    /// The event that is pointed at.
    pub parent_id: &'a str,
    /// The event that points.
    pub event_nid: i64,
    /// Its place in the timeline.
    pub pos: Option<StreamId>,
    /// How it points.
    pub rel_type: &'a str,
    /// Its type, interned.
    pub type_sid: StringId,
    /// Its sender, interned.
    pub sender_sid: StringId,
    /// The key of an annotation.
    pub key: Option<&'a str>,
}

impl<'a> NewRelations<'a> {
    /// Adds a relation.
    pub fn push(&mut self, new: &NewRelation<'a>) {
        self.room_nids.push(new.room_nid);
        self.parents.push(new.parent_id);
        self.event_nids.push(new.event_nid);
        self.positions.push(new.pos.map(StreamId::get));
        self.rel_types.push(new.rel_type);
        self.type_sids.push(new.type_sid);
        self.sender_sids.push(new.sender_sid);
        self.keys.push(new.key);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.room_nids.is_empty()
    }
}

/// Adds relations.
pub async fn insert_relations(db: &impl Write, new: &NewRelations<'_>) -> Result<()> {
    const SQL: &str = "
        INSERT INTO relations (room_nid, parent_id, event_nid, pos, rel_type, type_sid, sender_sid, key)
        SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[],
                             $7::bigint[], $8::text[])
            ON CONFLICT (room_nid, parent_id, event_nid) DO NOTHING";
    let NewRelations { room_nids, parents, event_nids, positions, rel_types, type_sids, sender_sids, keys } =
        new;
    db.write(SQL, &[room_nids, parents, event_nids, positions, rel_types, type_sids, sender_sids, keys]).await
}

/// Takes relations away: of events that were redacted, and of redactions that found their target. The lists belong
/// together: room, event that is pointed at, event that points.
pub async fn delete_relations(
    db: &impl Write,
    room_nids: &[i64],
    parents: &[&str],
    event_nids: &[i64],
) -> Result<()> {
    const SQL: &str = "
        DELETE FROM relations r USING unnest($1::bigint[], $2::text[], $3::bigint[]) AS d (room, parent, event)
         WHERE r.room_nid = d.room AND r.parent_id = d.parent AND r.event_nid = d.event";
    db.write(SQL, &[&room_nids, &parents, &event_nids]).await
}

/// The numbers of the redactions that wait for one of these events, each with the id of the event.
pub async fn list_pending_redactions(
    db: &impl GenericClient,
    room_nid: i64,
    targets: &[&str],
) -> Result<Vec<(String, i64)>> {
    const SQL: &str = "
        SELECT parent_id, event_nid FROM relations
         WHERE room_nid = $1 AND parent_id = ANY ($2) AND rel_type = $3 ORDER BY event_nid";
    let rows = query(db, SQL, &[&room_nid, &targets, &PENDING_REDACTION]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
