//! `memberships`: who is what in which room, by user.

use std::collections::HashMap;

use myelin_types::{StreamId, WriterId};

use crate::{GenericClient, Result, Write, execute, query, strings::StringId};

/// Memberships that changed, as columns of `memberships`.
#[derive(Debug, Default)]
pub struct NewMemberships {
    user_sids: Vec<StringId>,
    room_nids: Vec<i64>,
    memberships: Vec<i16>,
    event_nids: Vec<i64>,
    positions: Vec<i64>,
    writers: Vec<i16>,
    sender_sids: Vec<StringId>,
    /// Where the columns of a user and a room are.
    index: HashMap<(StringId, i64), usize>,
}

/// A user's membership of a room from some event on.
#[derive(Clone, Copy, Debug)]
pub struct NewMembership {
    /// The user, interned.
    pub user_sid: StringId,
    /// The room.
    pub room_nid: i64,
    /// 0 leave, 1 join, 2 invite, 3 knock, 4 ban.
    pub membership: i16,
    /// The member event.
    pub event_nid: i64,
    /// The id in the events stream at which it changed.
    pub pos: StreamId,
    /// Who wrote that.
    pub writer: WriterId,
    /// The sender of the member event, interned.
    pub sender_sid: StringId,
}

impl NewMemberships {
    /// Adds a change. A later one of the same user and room takes the place of an earlier.
    pub fn push(&mut self, new: &NewMembership) {
        let next = self.user_sids.len();
        let index = *self.index.entry((new.user_sid, new.room_nid)).or_insert(next);
        if index < next {
            self.memberships[index] = new.membership;
            self.event_nids[index] = new.event_nid;
            self.positions[index] = new.pos.0;
            self.writers[index] = new.writer.0;
            self.sender_sids[index] = new.sender_sid;
            return;
        }
        self.user_sids.push(new.user_sid);
        self.room_nids.push(new.room_nid);
        self.memberships.push(new.membership);
        self.event_nids.push(new.event_nid);
        self.positions.push(new.pos.0);
        self.writers.push(new.writer.0);
        self.sender_sids.push(new.sender_sid);
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.user_sids.is_empty()
    }
}

/// Notes new memberships, in place of those that the users had in these rooms.
pub async fn upsert_memberships(db: &impl Write, new: &NewMemberships) -> Result<()> {
    const SQL: &str = "
        INSERT INTO memberships (user_sid, room_nid, membership, event_nid, pos, writer_id, sender_sid)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::bigint[], $5::bigint[], $6::smallint[],
                             $7::bigint[])
            ON CONFLICT (user_sid, room_nid) DO UPDATE
           SET membership = excluded.membership, event_nid = excluded.event_nid, pos = excluded.pos,
               writer_id = excluded.writer_id, sender_sid = excluded.sender_sid, forgotten = false,
               stripped_state = NULL";
    let NewMemberships {
        user_sids, room_nids, memberships, event_nids, positions, writers, sender_sids, ..
    } = new;
    db.write(SQL, &[user_sids, room_nids, memberships, event_nids, positions, writers, sender_sids]).await
}

/// The ids of the rooms in which a user has this membership and which the user did not forget.
pub async fn list_rooms_with_membership(
    db: &impl GenericClient,
    user_sid: StringId,
    membership: i16,
) -> Result<Vec<String>> {
    const SQL: &str = "
        SELECT room_id FROM memberships JOIN rooms USING (room_nid)
         WHERE user_sid = $1 AND membership = $2 AND NOT forgotten ORDER BY room_id";
    Ok(query(db, SQL, &[&user_sid, &membership]).await?.iter().map(|row| row.get(0)).collect())
}

/// Forgets a room that the user left or was banned from; `false` if there is no such membership.
pub async fn forget(db: &impl GenericClient, user_sid: StringId, room_nid: i64) -> Result<bool> {
    const SQL: &str = "
        UPDATE memberships SET forgotten = true
         WHERE user_sid = $1 AND room_nid = $2 AND membership IN (0, 4)";
    Ok(execute(db, SQL, &[&user_sid, &room_nid]).await? == 1)
}
