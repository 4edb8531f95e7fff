//! Room summaries: how many members, and who gives a room without a name its name.

use std::{collections::HashMap, sync::Arc};

use myelin_events::raw_json::{ObjectWriter, push_string};
use myelin_rooms::RoomNid;
use myelin_storage::{Result, sync::members};
use myelin_types::StreamId;
use ruma::{OwnedUserId, UserId, events::room::member::MembershipState};
use serde::Deserialize;

use super::{Context, plan::RoomPlan};
use crate::room::{Counts, FirstMembers, Inner, Room, Selection};

/// Heroes of a room.
const HEROES: usize = 5;

/// A summary ([spec](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync), `RoomSummary`).
#[derive(Clone, Debug, Default)]
pub(super) struct Summary {
    counts: Counts,
    /// The users who give the room a name; `None` if it has one.
    pub heroes: Option<Vec<OwnedUserId>>,
}

impl Context<'_> {
    /// The summaries of those rooms whose members may have changed.
    pub(super) async fn summaries(
        &self,
        plans: &[RoomPlan],
        selections: &[Selection],
    ) -> Result<Vec<Option<Summary>>> {
        let wanted: Vec<bool> = plans
            .iter()
            .zip(selections)
            .map(|(plan, selection)| self.wants_summary(plan, selection))
            .collect();
        let mut uncounted = Vec::new();
        let mut unnamed = Vec::new();
        // Taken out at once: a member may change, and make the room forget them, before they are written.
        let mut found: HashMap<RoomNid, Arc<FirstMembers>> = HashMap::new();
        for (plan, _) in plans.iter().zip(&wanted).filter(|(_, wanted)| **wanted) {
            let inner = plan.room.inner.read();
            if inner.state.counts().is_none() {
                uncounted.push(plan.room.nid.0);
            }
            if !has_name(&inner) && !inner.state.has_all_members() {
                match inner.state.first_members() {
                    (Some(members), _) => _ = found.insert(plan.room.nid, members),
                    (None, changes) => unnamed.push((&plan.room, changes)),
                }
            }
        }
        if !uncounted.is_empty() {
            let client = self.engine.parts.database.get().await?;
            for count in members::count_members(&client, &uncounted).await? {
                let plan = plans.iter().find(|plan| plan.room.nid == RoomNid(count.room_nid));
                if let Some(plan) = plan {
                    plan.room.inner.write().learn_counts(&count);
                }
            }
        }
        found.extend(self.load_first_members(&unnamed).await?);
        let summaries = plans.iter().zip(wanted).map(|(plan, wanted)| {
            wanted.then(|| {
                let inner = plan.room.inner.read();
                let heroes = (!has_name(&inner)).then(|| {
                    let found = found.remove(&plan.room.nid);
                    let members = found.unwrap_or_else(|| first_members(&inner).into());
                    heroes(&members, self.user_id())
                });
                Summary { counts: inner.state.counts().unwrap_or_default(), heroes }
            })
        });
        Ok(summaries.collect())
    }

    /// Reads who came first into rooms, where that is not known; each with how often its members had changed before.
    async fn load_first_members(
        &self,
        rooms: &[(&Arc<Room>, u64)],
    ) -> Result<HashMap<RoomNid, Arc<FirstMembers>>> {
        if rooms.is_empty() {
            return Ok(HashMap::new());
        }
        let nids: Vec<i64> = rooms.iter().map(|(room, _)| room.nid.0).collect();
        let client = self.engine.parts.database.get().await?;
        let limit = i64::try_from(HEROES + 1).unwrap_or(i64::MAX);
        let rows = members::first_members(&client, &nids, limit).await?;
        drop(client);
        let mut found: HashMap<RoomNid, FirstMembers> = HashMap::new();
        for (room_nid, user_id, is_present) in rows {
            let members = found.entry(RoomNid(room_nid)).or_default();
            let members = if is_present { &mut members.present } else { &mut members.gone };
            members.extend(OwnedUserId::try_from(user_id));
        }
        let found: HashMap<RoomNid, Arc<FirstMembers>> =
            found.into_iter().map(|(nid, members)| (nid, members.into())).collect();
        for (room, changes) in rooms {
            if let Some(members) = found.get(&room.nid) {
                room.inner.write().state.learn_first_members(members.clone(), *changes);
            }
        }
        Ok(found)
    }

    fn wants_summary(&self, plan: &RoomPlan, selection: &Selection) -> bool {
        if plan.left_at.is_some() {
            return false;
        }
        if plan.is_new || self.request.full_state || selection.limited {
            return true;
        }
        let Some(since) = self.since() else { return true };
        let inner = plan.room.inner.read();
        let later =
            inner.events.iter().rev().take_while(|event| !since.events.covers(event.writer, event.pos));
        later.flat_map(|event| event.changes.iter()).any(|change| change.is_member())
    }
}

impl Summary {
    pub(super) fn write(&self, object: &mut ObjectWriter<'_>) {
        let mut summary = object.object("summary");
        if let Some(heroes) = &self.heroes {
            summary.with("m.heroes", |out| {
                out.push('[');
                for (index, user_id) in heroes.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    push_string(out, user_id.as_str());
                }
                out.push(']');
            });
        }
        summary.integer("m.joined_member_count", i64::try_from(self.counts.joined).unwrap_or(i64::MAX));
        summary.integer("m.invited_member_count", i64::try_from(self.counts.invited).unwrap_or(i64::MAX));
        summary.end();
    }
}

/// Whether the room is known to have a name or an alias.
fn has_name(room: &Inner) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Content<'a> {
        #[serde(borrow)]
        name: Option<std::borrow::Cow<'a, str>>,
        #[serde(borrow)]
        alias: Option<std::borrow::Cow<'a, str>>,
    }
    ["m.room.name", "m.room.canonical_alias"].iter().any(|event_type| {
        let Some(entry) = room.state.get(event_type, "") else { return false };
        let content: Content<'_> = entry.event.pdu.content_as().unwrap_or_default();
        content.name.or(content.alias).is_some_and(|name| !name.is_empty())
    })
}

/// The members who came first, of a room of which all are known.
fn first_members(room: &Inner) -> FirstMembers {
    let mut present = Vec::new();
    let mut gone = Vec::new();
    for (user_id, entry) in room.state.members() {
        match entry.event.membership() {
            MembershipState::Join | MembershipState::Invite => present.push((entry.since, user_id)),
            _ => gone.push((entry.since, user_id)),
        }
    }
    let first = |mut members: Vec<(StreamId, &str)>| {
        members.sort_unstable();
        let members = members.into_iter().filter_map(|(_, user_id)| user_id.try_into().ok());
        members.take(HEROES + 1).collect()
    };
    FirstMembers { present: first(present), gone: first(gone) }
}

/// Those of them who give the room its name for a user: others who are there, and where there is nobody, who was.
fn heroes(members: &FirstMembers, except: &UserId) -> Vec<OwnedUserId> {
    let others = |members: &[OwnedUserId]| -> Vec<OwnedUserId> {
        members.iter().filter(|user_id| *user_id != except).take(HEROES).cloned().collect()
    };
    let present = others(&members.present);
    if present.is_empty() { others(&members.gone) } else { present }
}
