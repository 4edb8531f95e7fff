//! What stored events did to the current state of their rooms.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use myelin_storage::{
    Client, Result,
    events::flags,
    state,
    strings::{StringId, Strings},
    sync::{self as table, StateRow, TimelineRow},
};
use myelin_types::StreamId;

use crate::{
    event::{Change, Rendered},
    room::Room,
};

/// The changes of some stored events.
#[derive(Debug, Default)]
pub(super) struct StoredChanges {
    /// What the events took the place of that changed their own key and no other, by room and place.
    replaced: HashMap<(i64, StreamId), StateRow>,
    /// What changed at the places where forks met, by room and place.
    forks: HashMap<(i64, StreamId), Vec<ForkChange>>,
    /// The events that those name, as id and JSON, by room and number.
    events: HashMap<(i64, i64), (String, String)>,
}

#[derive(Debug)]
struct ForkChange {
    event_type: Arc<str>,
    state_key: Arc<str>,
    event_nid: Option<i64>,
    replaced_nid: Option<i64>,
}

impl StoredChanges {
    /// Reads what these events did: with one query, but where forks met.
    pub async fn read(client: &Client, strings: &Strings, rows: &[TimelineRow]) -> Result<Self> {
        let mut own: Vec<(&TimelineRow, (StringId, StringId))> = Vec::new();
        let mut forks: Vec<&TimelineRow> = Vec::new();
        for row in rows {
            match row.state_sids {
                _ if row.flags & flags::OTHER_STATE != 0 => forks.push(row),
                Some(sids) if row.flags & flags::CURRENT_STATE != 0 => own.push((row, sids)),
                _ => {}
            }
        }
        let mut changes = Self::default();
        changes.read_own(client, &own).await?;
        changes.read_forks(client, strings, &forks).await?;
        Ok(changes)
    }

    async fn read_own(
        &mut self,
        client: &Client,
        own: &[(&TimelineRow, (StringId, StringId))],
    ) -> Result<()> {
        if own.is_empty() {
            return Ok(());
        }
        let nids: Vec<i64> = own.iter().map(|(row, _)| row.room_nid).collect();
        let types: Vec<StringId> = own.iter().map(|(_, (type_sid, _))| *type_sid).collect();
        let keys: Vec<StringId> = own.iter().map(|(_, (_, key_sid))| *key_sid).collect();
        let places: Vec<i64> = own.iter().map(|(row, _)| row.pos.0).collect();
        let rows = table::replaced_states(client, &nids, &types, &keys, &places).await?;
        self.replaced = rows.into_iter().map(|row| ((row.room_nid, row.since), row)).collect();
        Ok(())
    }

    async fn read_forks(&mut self, client: &Client, strings: &Strings, forks: &[&TimelineRow]) -> Result<()> {
        if forks.is_empty() {
            return Ok(());
        }
        let nids: Vec<i64> = forks.iter().map(|row| row.room_nid).collect();
        let places: Vec<i64> = forks.iter().map(|row| row.pos.0).collect();
        let found = state::list_changes_at(client, &nids, &places).await?;
        let sids: Vec<StringId> = found.iter().flat_map(|change| [change.type_sid, change.key_sid]).collect();
        let words = strings.resolve_all(client, &sids).await?;
        let mut named: HashSet<(i64, i64)> = HashSet::new();
        for (change, words) in found.into_iter().zip(words.chunks_exact(2)) {
            let nids = [change.event_nid, change.replaced_nid].into_iter().flatten();
            named.extend(nids.map(|nid| (change.room_nid, nid)));
            self.forks.entry((change.room_nid, change.at)).or_default().push(ForkChange {
                event_type: words[0].clone(),
                state_key: words[1].clone(),
                event_nid: change.event_nid,
                replaced_nid: change.replaced_nid,
            });
        }
        let (room_nids, event_nids): (Vec<i64>, Vec<i64>) = named.into_iter().unzip();
        let events = table::events_by_nid(client, &room_nids, &event_nids).await?;
        self.events = events
            .into_iter()
            .map(|(room_nid, event_nid, id, json)| ((room_nid, event_nid), (id, json)))
            .collect();
        Ok(())
    }

    /// What an event did. Each can be asked for once.
    pub fn take(&mut self, room: &Room, row: &TimelineRow, event: &Arc<Rendered>) -> Result<Vec<Change>> {
        let place = (row.room_nid, row.pos);
        if let Some(changes) = self.forks.remove(&place) {
            return changes.into_iter().map(|change| self.fork_change(room, change, event)).collect();
        }
        let Some(state_key) = event.pdu.state_key().filter(|_| row.flags & flags::CURRENT_STATE != 0) else {
            return Ok(Vec::new());
        };
        let replaced = self.replaced.remove(&place).map(|row| room.parse(row)).transpose()?;
        Ok(vec![Change {
            event_type: event.pdu.event_type().to_string().into(),
            state_key: state_key.into(),
            event: Some(event.clone()),
            replaced: replaced.map(|entry| entry.event),
        }])
    }

    fn fork_change(&self, room: &Room, change: ForkChange, own: &Arc<Rendered>) -> Result<Change> {
        let find = |nid: Option<i64>| {
            let Some((id, json)) = nid.and_then(|nid| self.events.get(&(room.nid.0, nid))) else {
                return Ok(None);
            };
            if **own.pdu.event_id() == **id {
                return Ok(Some(own.clone()));
            }
            Rendered::from_stored(&room.room_id, room.rules, id, json.clone()).map(Some)
        };
        Ok(Change {
            event_type: (*change.event_type).into(),
            state_key: (*change.state_key).into(),
            event: find(change.event_nid)?,
            replaced: find(change.replaced_nid)?,
        })
    }
}
