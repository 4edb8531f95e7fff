//! Reading from the database what is not in memory: for many rooms at once, never a query per room.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use myelin_events::{Rules, Unsigned, rules};
use myelin_rooms::RoomNid;
use myelin_storage::{
    Client, Result,
    sync::{self as table, StateRow, TimelineRow, UserRoomRow, members},
};
use myelin_types::{Position, StreamId, WriterId};
use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId, events::room::member::MembershipState};

use crate::{
    engine::Engine,
    event::{Rendered, RoomEvent},
    room::{Entry, Floor, Older, Room},
    user::{UserFeed, UserRoom},
};

mod changes;

use changes::StoredChanges;

/// Events that are parsed before others get their turn on this thread.
const PARSED_AT_ONCE: usize = 256;

/// A room that a user has or had something to do with.
pub(crate) struct UserRoomFound {
    pub room_nid: RoomNid,
    pub room: UserRoom,
}

impl Engine {
    /// Reads a user's rooms, if that was not done.
    pub async fn load_user(&self, user: &Arc<UserFeed>) -> Result<()> {
        if user.inner.lock().sid.is_some() {
            return Ok(());
        }
        let _turn = user.loading.lock().await;
        if user.inner.lock().sid.is_some() {
            return Ok(());
        }
        let ignored = self.parts.user_data.ignored_users(&user.user_id).await?;
        let client = self.parts.database.get().await?;
        let sid = self.parts.strings.intern(&client, user.user_id.as_str()).await?;
        let rows = table::rooms_of_user(&client, sid).await?;
        drop(client);
        {
            let mut inner = user.inner.lock();
            // Unless a newer list came while this one was being read.
            if !inner.account_data.iter().any(|(.., datum)| datum.is_ignored_users()) {
                inner.ignored = Arc::new(ignored);
            }
        }
        let new_rooms = self.settle(user, sid, rows.into_iter().filter_map(found).collect());
        self.learn_newest(&new_rooms).await
    }

    /// Asks for the newest events of rooms that are followed since a moment ago. Before they were, an event may have been told
    /// that nobody here heard of; so only what the database says from now on, and what is told, are all.
    async fn learn_newest(&self, rooms: &[Arc<Room>]) -> Result<()> {
        if rooms.is_empty() {
            return Ok(());
        }
        let nids: Vec<i64> = rooms.iter().map(|room| room.nid.0).collect();
        let client = self.parts.database.get().await?;
        let newest = table::newest_events(&client, &nids).await?;
        drop(client);
        let by_room: HashMap<i64, (WriterId, StreamId)> =
            newest.into_iter().map(|(room_nid, writer, pos)| (room_nid, (writer, pos))).collect();
        for room in rooms {
            room.learn_newest(by_room.get(&room.nid.0).copied());
        }
        Ok(())
    }

    /// Reads events before those that rooms have: of each room so many.
    pub async fn load_older(&self, wanted: &[(Arc<Room>, usize)]) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let before: Vec<Option<StreamId>> =
            wanted.iter().map(|(room, _)| room.inner.read().events.front().map(|first| first.pos)).collect();
        let nids: Vec<i64> = wanted.iter().map(|(room, _)| room.nid.0).collect();
        let upto: Vec<i64> = wanted
            .iter()
            .zip(&before)
            .map(|((room, _), before)| match before {
                Some(first) => first.0 - 1,
                None => room.frozen_at.map_or(i64::MAX, |at| at.0),
            })
            .collect();
        // One more tells what comes before them.
        let limits: Vec<i64> =
            wanted.iter().map(|(_, count)| i64::try_from(*count).unwrap_or(i64::MAX - 1) + 1).collect();
        let client = self.parts.database.get().await?;
        let rows = table::timelines(&client, &nids, &upto, &limits).await?;
        let mut changes = StoredChanges::read(&client, &self.parts.strings, &rows).await?;
        let redactions = load_redactions(&client, &rows).await?;
        drop(client);

        let mut by_room: HashMap<i64, Vec<TimelineRow>> = HashMap::with_capacity(wanted.len());
        for row in rows {
            by_room.entry(row.room_nid).or_default().push(row);
        }
        let mut parsed = 0;
        for (((room, _), before), limit) in wanted.iter().zip(before).zip(limits) {
            let mut rows = by_room.remove(&room.nid.0).unwrap_or_default();
            rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.pos));
            let is_all = i64::try_from(rows.len()).is_ok_and(|count| count < limit);
            let floor = match rows.last() {
                Some(last) if !is_all => Floor::At(last.writer, last.pos),
                _ => Floor::Start,
            };
            if !is_all {
                rows.pop();
            }
            let mut events = Vec::with_capacity(rows.len());
            for mut row in rows {
                let redaction = row.redacted_by.and_then(|nid| redactions.get(&(row.room_nid, nid)));
                let redaction =
                    redaction.map(|(event_id, json)| room.redaction(event_id, json)).transpose()?;
                let json = std::mem::take(&mut row.json);
                let event = Rendered::from_stored(&room.room_id, room.rules, &row.event_id, json)?;
                let changes = changes.take(room, &row, &event)?;
                events.push(Arc::new(RoomEvent::from_stored(row, event, changes, redaction)?));
                parsed += 1;
                if parsed % PARSED_AT_ONCE == 0 {
                    tokio::task::yield_now().await;
                }
            }
            self.grew(room.learn_older(Older { events, floor, before }));
        }
        Ok(())
    }

    /// Reads the state of rooms, with all members or only with those of rooms that have few.
    pub async fn load_states(&self, wanted: &[Arc<Room>], with_members: bool) -> Result<()> {
        let (frozen, live): (Vec<_>, Vec<_>) = wanted.iter().partition(|room| room.frozen_at.is_some());
        let mut rows = Vec::new();
        let mut small = HashSet::new();
        let client = self.parts.database.get().await?;
        if !live.is_empty() {
            let nids: Vec<i64> = live.iter().map(|room| room.nid.0).collect();
            match with_members {
                true => rows = table::current_states(&client, &nids).await?,
                false => {
                    let few = i64::try_from(self.parts.options.few_members).unwrap_or(i64::MAX - 1);
                    (rows, small) = table::current_states_of_few(&client, &nids, few).await?;
                }
            }
        }
        if !frozen.is_empty() {
            let nids: Vec<i64> = frozen.iter().map(|room| room.nid.0).collect();
            let at: Vec<i64> = frozen.iter().filter_map(|room| room.frozen_at).map(|at| at.0).collect();
            rows.extend(table::states_at(&client, &nids, &at).await?);
        }
        drop(client);
        let mut by_room = self.parse_states(wanted, rows).await?;
        for room in wanted {
            let entries = by_room.remove(&room.nid).unwrap_or_default();
            let all_members = with_members || room.frozen_at.is_some() || small.contains(&room.nid.0);
            self.grew(room.learn_state(entries, true, all_members));
        }
        Ok(())
    }

    /// Reads the member events of given users.
    pub async fn load_members(&self, wanted: &[(Arc<Room>, OwnedUserId)]) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let nids: Vec<i64> = wanted.iter().map(|(room, _)| room.nid.0).collect();
        let users: Vec<&str> = wanted.iter().map(|(_, user_id)| user_id.as_str()).collect();
        let client = self.parts.database.get().await?;
        let user_sids = self.parts.strings.intern_all(&client, &users).await?;
        let rows = members::member_events(&client, &nids, &user_sids).await?;
        drop(client);
        let rooms: Vec<Arc<Room>> = wanted.iter().map(|(room, _)| room.clone()).collect();
        for (nid, entries) in self.parse_states(&rooms, rows).await? {
            if let Some(room) = rooms.iter().find(|room| room.nid == nid) {
                self.grew(room.learn_state(entries, false, false));
            }
        }
        Ok(())
    }

    /// What changed in the state of rooms after a position, by room.
    pub async fn load_state_changes(
        &self,
        rooms: &[Arc<Room>],
        after: &Position,
    ) -> Result<HashMap<RoomNid, Vec<Entry>>> {
        if rooms.is_empty() {
            return Ok(HashMap::new());
        }
        let nids: Vec<i64> = rooms.iter().map(|room| room.nid.0).collect();
        let client = self.parts.database.get().await?;
        let rows = table::state_changes(&client, &nids, after.minimum()).await?;
        drop(client);
        self.parse_states(rooms, rows).await
    }

    /// What a user was in rooms at a position, where it is another now.
    pub async fn load_memberships_at(
        &self,
        user: &UserFeed,
        rooms: &[(RoomNid, OwnedRoomId, Rules)],
        at: &Position,
    ) -> Result<HashMap<RoomNid, MembershipState>> {
        let sid = user.inner.lock().sid;
        let Some(sid) = sid.filter(|_| !rooms.is_empty()) else { return Ok(HashMap::new()) };
        let nids: Vec<i64> = rooms.iter().map(|(nid, ..)| nid.0).collect();
        let client = self.parts.database.get().await?;
        let rows = members::memberships_at(&client, sid, &nids, at).await?;
        drop(client);
        let mut memberships = HashMap::new();
        for row in rows {
            let Some((nid, room_id, rules)) = rooms.iter().find(|(nid, ..)| nid.0 == row.room_nid) else {
                continue;
            };
            let event = Rendered::from_stored(room_id, rules, &row.event_id, row.json)?;
            memberships.insert(*nid, event.membership().clone());
        }
        Ok(memberships)
    }

    async fn parse_states(
        &self,
        rooms: &[Arc<Room>],
        rows: Vec<StateRow>,
    ) -> Result<HashMap<RoomNid, Vec<Entry>>> {
        let rooms: HashMap<i64, &Arc<Room>> = rooms.iter().map(|room| (room.nid.0, room)).collect();
        let mut by_room: HashMap<RoomNid, Vec<Entry>> = HashMap::with_capacity(rooms.len());
        for (index, row) in rows.into_iter().enumerate() {
            let Some(room) = rooms.get(&row.room_nid) else { continue };
            by_room.entry(room.nid).or_default().push(room.parse(row)?);
            if index % PARSED_AT_ONCE == PARSED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
        Ok(by_room)
    }
}

impl Room {
    /// An event of the state, from the database.
    pub fn parse(&self, row: StateRow) -> Result<Entry> {
        let event = Rendered::from_stored(&self.room_id, self.rules, &row.event_id, row.json)?;
        Ok(Entry { event, since: row.since })
    }

    fn redaction(&self, event_id: &str, json: &str) -> Result<Box<str>> {
        let event = Rendered::from_stored(&self.room_id, self.rules, event_id, json.to_owned())?;
        Ok(event.json().to_json(None, &Unsigned::default()).into())
    }
}

/// The redactions of those of these that are redacted, by room and number, as id and JSON.
async fn load_redactions(
    client: &Client,
    rows: &[TimelineRow],
) -> Result<HashMap<(i64, i64), (String, String)>> {
    let wanted: HashSet<(i64, i64)> =
        rows.iter().filter_map(|row| row.redacted_by.map(|nid| (row.room_nid, nid))).collect();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let (room_nids, event_nids): (Vec<i64>, Vec<i64>) = wanted.into_iter().unzip();
    let rows = table::events_by_nid(client, &room_nids, &event_nids).await?;
    Ok(rows.into_iter().map(|(room_nid, event_nid, id, json)| ((room_nid, event_nid), (id, json))).collect())
}

/// A row of a user's rooms, unless we can't serve the room.
fn found(row: UserRoomRow) -> Option<UserRoomFound> {
    let version = RoomVersionId::try_from(row.room_version).ok()?;
    let room = UserRoom {
        rules: rules(&version)?,
        room_id: row.room_id.try_into().ok()?,
        membership: membership_of_column(row.membership),
        pos: row.pos,
        writer: row.writer,
        sender: row.sender.try_into().ok()?,
        changed: row.joined_at.unwrap_or(row.pos),
        room: None,
        marks: None,
        unread: None,
    };
    Some(UserRoomFound { room_nid: RoomNid(row.room_nid), room })
}

/// What `memberships.membership` stands for.
pub(crate) fn membership_of_column(column: i16) -> MembershipState {
    match column {
        1 => MembershipState::Join,
        2 => MembershipState::Invite,
        3 => MembershipState::Knock,
        4 => MembershipState::Ban,
        _ => MembershipState::Leave,
    }
}
