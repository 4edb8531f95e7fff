//! `room_state`, `room_state_past`, `state_deltas`: the state of rooms over time.
//!
//! The *mainline* is a room's resolved current state as it was from one position of the events stream to the next; the
//! state before an event without a fork is the mainline just before its position. What a fork differs in is a *delta*.

use std::collections::HashMap;

use myelin_types::StreamId;

use crate::{GenericClient, Result, Row, Write, query, query_opt, strings::StringId};

/// Changes of current states, as columns. Of several changes of one key the order of [`StateChanges::push`] counts.
#[derive(Debug, Default)]
pub struct StateChanges {
    /// Keys that may have held something before this batch: that ends at the position.
    ended: KeyColumns,
    ended_at: Vec<i64>,
    /// What held only within this batch.
    past: KeyColumns,
    past_since: Vec<i64>,
    past_until: Vec<i64>,
    past_nids: Vec<i64>,
    /// What holds now; `None`: nothing.
    latest: HashMap<(i64, StringId, StringId), (StreamId, Option<i64>)>,
}

#[derive(Debug, Default)]
struct KeyColumns {
    room_nids: Vec<i64>,
    type_sids: Vec<StringId>,
    key_sids: Vec<StringId>,
}

impl KeyColumns {
    fn push(&mut self, (room_nid, type_sid, key_sid): (i64, StringId, StringId)) {
        self.room_nids.push(room_nid);
        self.type_sids.push(type_sid);
        self.key_sids.push(key_sid);
    }
}

/// A key of a room's current state that changes.
#[derive(Clone, Copy, Debug)]
pub struct NewState {
    /// The room.
    pub room_nid: i64,
    /// The event type, interned.
    pub type_sid: StringId,
    /// The state key, interned.
    pub key_sid: StringId,
    /// What holds from now on; `None`: nothing.
    pub event_nid: Option<i64>,
    /// Whether something held before.
    pub replaces: bool,
}

impl StateChanges {
    /// Adds a change at a position.
    pub fn push(&mut self, at: StreamId, new: &NewState) {
        let key = (new.room_nid, new.type_sid, new.key_sid);
        match self.latest.insert(key, (at, new.event_nid)) {
            None if new.replaces => {
                self.ended.push(key);
                self.ended_at.push(at.0);
            }
            // Two changes at one position: only the last was ever true.
            Some((since, Some(event_nid))) if since < at => {
                self.past.push(key);
                self.past_since.push(since.0);
                self.past_until.push(at.0);
                self.past_nids.push(event_nid);
            }
            _ => {}
        }
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.latest.is_empty()
    }
}

/// Changes current states, and keeps what held before.
pub async fn change_state(db: &impl Write, changes: &StateChanges) -> Result<()> {
    // All parts of a statement see the table as it was before it: what ends is read before it is overwritten.
    const CHANGE: &str = "
        WITH ended AS (
            INSERT INTO room_state_past (room_nid, type_sid, key_sid, since, until, event_nid)
            SELECT s.room_nid, s.type_sid, s.key_sid, s.since, e.at, s.event_nid
              FROM unnest($6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[]) AS e (room_nid, type_sid, key_sid, at)
              JOIN room_state s USING (room_nid, type_sid, key_sid))
        INSERT INTO room_state (room_nid, type_sid, key_sid, event_nid, since)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
            ON CONFLICT (room_nid, type_sid, key_sid)
            DO UPDATE SET event_nid = excluded.event_nid, since = excluded.since";
    const PAST: &str = "
        INSERT INTO room_state_past (room_nid, type_sid, key_sid, since, until, event_nid)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])";
    const REMOVE: &str = "
        DELETE FROM room_state s USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS k (room, type, key)
         WHERE s.room_nid = k.room AND s.type_sid = k.type AND s.key_sid = k.key";
    let (mut set, mut nids, mut since) = (KeyColumns::default(), Vec::new(), Vec::new());
    let mut removed = KeyColumns::default();
    for (key, (at, event_nid)) in &changes.latest {
        match event_nid {
            Some(event_nid) => {
                set.push(*key);
                nids.push(*event_nid);
                since.push(at.0);
            }
            None => removed.push(*key),
        }
    }
    let StateChanges { ended, ended_at, past, past_since, past_until, past_nids, .. } = changes;
    db.write(
        CHANGE,
        &[
            &set.room_nids,
            &set.type_sids,
            &set.key_sids,
            &nids,
            &since,
            &ended.room_nids,
            &ended.type_sids,
            &ended.key_sids,
            ended_at,
        ],
    )
    .await?;
    if !past_since.is_empty() {
        let KeyColumns { room_nids, type_sids, key_sids } = past;
        db.write(PAST, &[room_nids, type_sids, key_sids, past_since, past_until, past_nids]).await?;
    }
    if !removed.room_nids.is_empty() {
        db.write(REMOVE, &[&removed.room_nids, &removed.type_sids, &removed.key_sids]).await?;
    }
    Ok(())
}

/// A key of a state and the event that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateRow {
    /// The event type, interned.
    pub type_sid: StringId,
    /// The state key, interned.
    pub key_sid: StringId,
    /// The event.
    pub event_nid: i64,
}

impl From<&Row> for StateRow {
    fn from(row: &Row) -> Self {
        Self { type_sid: row.get(0), key_sid: row.get(1), event_nid: row.get(2) }
    }
}

/// A room's current state.
pub async fn list_current_state(db: &impl GenericClient, room_nid: i64) -> Result<Vec<StateRow>> {
    const SQL: &str = "SELECT type_sid, key_sid, event_nid FROM room_state WHERE room_nid = $1";
    Ok(query(db, SQL, &[&room_nid]).await?.iter().map(StateRow::from).collect())
}

/// A room's mainline after the position `at`.
pub async fn list_state_at(db: &impl GenericClient, room_nid: i64, at: StreamId) -> Result<Vec<StateRow>> {
    const SQL: &str = "
        SELECT type_sid, key_sid, event_nid FROM room_state WHERE room_nid = $1 AND since <= $2
         UNION ALL
        SELECT type_sid, key_sid, event_nid FROM room_state_past
         WHERE room_nid = $1 AND since <= $2 AND until > $2";
    Ok(query(db, SQL, &[&room_nid, &at.0]).await?.iter().map(StateRow::from).collect())
}

/// Single keys of a room's mainline after the position `at`; `types` and `keys` belong together.
pub async fn list_state_keys_at(
    db: &impl GenericClient,
    room_nid: i64,
    at: StreamId,
    types: &[StringId],
    keys: &[StringId],
) -> Result<Vec<StateRow>> {
    const SQL: &str = "
        SELECT type_sid, key_sid, event_nid
          FROM unnest($3::bigint[], $4::bigint[]) AS k (type_sid, key_sid)
         CROSS JOIN LATERAL (
               SELECT event_nid FROM room_state s
                WHERE s.room_nid = $1 AND s.type_sid = k.type_sid AND s.key_sid = k.key_sid AND since <= $2
                UNION ALL
               SELECT event_nid FROM room_state_past p
                WHERE p.room_nid = $1 AND p.type_sid = k.type_sid AND p.key_sid = k.key_sid
                  AND since <= $2 AND until > $2) AS held";
    Ok(query(db, SQL, &[&room_nid, &at.0, &types, &keys]).await?.iter().map(StateRow::from).collect())
}

/// How a state differs from the mainline; an `event_nid` of 0 says that the key is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// The event types, interned.
    pub type_sids: Vec<StringId>,
    /// The state keys, interned.
    pub key_sids: Vec<StringId>,
    /// The events.
    pub event_nids: Vec<i64>,
}

impl Delta {
    /// Adds a key.
    pub fn push(&mut self, row: StateRow) {
        self.type_sids.push(row.type_sid);
        self.key_sids.push(row.key_sid);
        self.event_nids.push(row.event_nid);
    }

    /// The keys that differ.
    pub fn iter(&self) -> impl Iterator<Item = StateRow> + '_ {
        let columns = self.type_sids.iter().zip(&self.key_sids).zip(&self.event_nids);
        columns.map(|((type_sid, key_sid), event_nid)| StateRow {
            type_sid: *type_sid,
            key_sid: *key_sid,
            event_nid: *event_nid,
        })
    }

    /// How many keys differ.
    pub fn len(&self) -> usize {
        self.event_nids.len()
    }

    /// Whether none differs.
    pub fn is_empty(&self) -> bool {
        self.event_nids.is_empty()
    }
}

/// Adds a delta.
pub async fn insert_delta(db: &impl Write, room_nid: i64, state_delta: i64, delta: &Delta) -> Result<()> {
    const SQL: &str = "
        INSERT INTO state_deltas (room_nid, state_delta, type_sids, key_sids, event_nids)
        VALUES ($1, $2, $3, $4, $5)";
    let Delta { type_sids, key_sids, event_nids } = delta;
    db.write(SQL, &[&room_nid, &state_delta, type_sids, key_sids, event_nids]).await
}

/// The deltas with these numbers.
pub async fn list_deltas(
    db: &impl GenericClient,
    room_nid: i64,
    state_deltas: &[i64],
) -> Result<HashMap<i64, Delta>> {
    const SQL: &str = "
        SELECT state_delta, type_sids, key_sids, event_nids FROM state_deltas
         WHERE room_nid = $1 AND state_delta = ANY ($2)";
    let rows = query(db, SQL, &[&room_nid, &state_deltas]).await?;
    let delta = |row: &Row| Delta { type_sids: row.get(1), key_sids: row.get(2), event_nids: row.get(3) };
    Ok(rows.iter().map(|row| (row.get(0), delta(row))).collect())
}

/// What a key of the mainline was changed to and from at one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastChange {
    /// The room.
    pub room_nid: i64,
    /// The position.
    pub at: StreamId,
    /// The event type, interned.
    pub type_sid: StringId,
    /// The state key, interned.
    pub key_sid: StringId,
    /// What held from then on.
    pub event_nid: Option<i64>,
    /// What held until then.
    pub replaced_nid: Option<i64>,
}

/// What held until `at` for these keys of rooms; the lists belong together. Keys that held nothing are left out.
pub async fn list_replaced(
    db: &impl GenericClient,
    room_nids: &[i64],
    types: &[StringId],
    keys: &[StringId],
    at: &[i64],
) -> Result<HashMap<(i64, i64), i64>> {
    const SQL: &str = "
        SELECT p.room_nid, p.until, p.event_nid
          FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS k (room_nid, type_sid, key_sid, at)
          JOIN room_state_past p USING (room_nid, type_sid, key_sid)
         WHERE p.until = k.at";
    let rows = query(db, SQL, &[&room_nids, &types, &keys, &at]).await?;
    Ok(rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect())
}

/// All that changed in some rooms at some positions; the lists belong together. Reads the rooms' whole history of
/// state, so it is for the few positions at which forks met.
pub async fn list_changes_at(
    db: &impl GenericClient,
    room_nids: &[i64],
    at: &[i64],
) -> Result<Vec<PastChange>> {
    const SQL: &str = "
        WITH wanted AS (SELECT * FROM unnest($1::bigint[], $2::bigint[]) AS w (room_nid, at)),
             began AS (
                SELECT s.room_nid, w.at, s.type_sid, s.key_sid, s.event_nid
                  FROM wanted w JOIN room_state s ON s.room_nid = w.room_nid AND s.since = w.at
                 UNION ALL
                SELECT p.room_nid, w.at, p.type_sid, p.key_sid, p.event_nid
                  FROM wanted w JOIN room_state_past p ON p.room_nid = w.room_nid AND p.since = w.at),
             ended AS (
                SELECT p.room_nid, w.at, p.type_sid, p.key_sid, p.event_nid
                  FROM wanted w JOIN room_state_past p ON p.room_nid = w.room_nid AND p.until = w.at)
        SELECT room_nid, at, type_sid, key_sid, began.event_nid, ended.event_nid
          FROM began FULL JOIN ended USING (room_nid, at, type_sid, key_sid)
         ORDER BY room_nid, at, type_sid, key_sid";
    let rows = query(db, SQL, &[&room_nids, &at]).await?;
    let change = |row: &Row| PastChange {
        room_nid: row.get(0),
        at: StreamId(row.get(1)),
        type_sid: row.get(2),
        key_sid: row.get(3),
        event_nid: row.get(4),
        replaced_nid: row.get(5),
    };
    Ok(rows.iter().map(change).collect())
}

/// What a key of the mainline held at a past position, where that is not known to be what it holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastState {
    /// The event type, interned.
    pub type_sid: StringId,
    /// The state key, interned.
    pub key_sid: StringId,
    /// What held then; `None`: nothing.
    pub event_nid: Option<i64>,
}

/// The end of statements that tell what keys held: `changed` names the keys, `$1` the room, `$2` the position.
macro_rules! held {
    () => {
        "
        SELECT k.type_sid, k.key_sid, held.event_nid
          FROM changed k
          LEFT JOIN LATERAL (
               SELECT event_nid FROM room_state s
                WHERE s.room_nid = $1 AND s.type_sid = k.type_sid AND s.key_sid = k.key_sid AND since <= $2
                UNION ALL
               SELECT event_nid FROM room_state_past p
                WHERE p.room_nid = $1 AND p.type_sid = k.type_sid AND p.key_sid = k.key_sid
                  AND since <= $2 AND until > $2) AS held ON true"
    };
}

/// How a room's mainline after the position `at` differs from what holds now; some of the keys may hold the same again.
/// Costs as much as has changed since then, unless forks met meanwhile.
pub async fn list_differences(
    db: &impl GenericClient,
    room_nid: i64,
    at: StreamId,
) -> Result<Vec<PastState>> {
    const FORKS_MET: &str = "
        SELECT 1 FROM events WHERE room_nid = $1 AND pos > $2 AND flags & 64 <> 0 LIMIT 1";
    /// Only the events themselves changed the state.
    const FEW: &str = concat!(
        "WITH changed AS (
            SELECT DISTINCT type_sid, state_key_sid AS key_sid FROM events
             WHERE room_nid = $1 AND pos > $2 AND flags & 8 <> 0)",
        held!()
    );
    /// Anything may have changed with any event.
    const ALL: &str = concat!(
        "WITH changed AS (
            SELECT type_sid, key_sid FROM room_state WHERE room_nid = $1 AND since > $2
             UNION
            SELECT type_sid, key_sid FROM room_state_past WHERE room_nid = $1 AND until > $2)",
        held!()
    );
    let forks_met = query_opt(db, FORKS_MET, &[&room_nid, &at.0]).await?.is_some();
    let rows = query(db, if forks_met { ALL } else { FEW }, &[&room_nid, &at.0]).await?;
    let past = |row: &Row| PastState { type_sid: row.get(0), key_sid: row.get(1), event_nid: row.get(2) };
    Ok(rows.iter().map(past).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{execute, test_support::TestClient};

    #[tokio::test]
    async fn a_past_state_is_told_by_its_differences_whether_or_not_forks_met() {
        let db = TestClient::new().await;
        let new = |key_sid, event_nid, replaces| NewState {
            room_nid: 1,
            type_sid: 7,
            key_sid,
            event_nid,
            replaces,
        };
        // Key 1 changes twice, key 2 comes, key 3 goes, key 4 stays.
        let steps = [
            (1, new(1, Some(11), false)),
            (2, new(3, Some(13), false)),
            (3, new(4, Some(14), false)),
            (4, new(1, Some(21), true)),
            (5, new(2, Some(22), false)),
            (6, new(3, None, true)),
            (7, new(1, Some(31), true)),
        ];
        for (at, step) in &steps {
            let mut changes = StateChanges::default();
            changes.push(StreamId(*at), step);
            change_state(&*db, &changes).await.unwrap();
            const SQL: &str = "
                INSERT INTO events (room_nid, event_nid, pos, depth, sender_sid, type_sid, state_key_sid,
                                    origin_server_ts, writer_id, flags, event_id, json)
                VALUES (1, $1, $1, 1, 1, 7, $2, 1, 1, 8, '', '')";
            execute(&*db, SQL, &[at, &step.key_sid]).await.unwrap();
        }
        for fork in [false, true] {
            if fork {
                execute(&*db, "UPDATE events SET flags = 64 WHERE pos = 7", &[]).await.unwrap();
            }
            let mut differences = list_differences(&*db, 1, StreamId(4)).await.unwrap();
            differences.sort_by_key(|past| past.key_sid);
            let told: Vec<_> = differences.iter().map(|past| (past.key_sid, past.event_nid)).collect();
            assert_eq!(told, [(1, Some(21)), (2, None), (3, Some(13))], "forks met: {fork}");
            assert!(list_differences(&*db, 1, StreamId(7)).await.unwrap().is_empty());
        }
    }
}
