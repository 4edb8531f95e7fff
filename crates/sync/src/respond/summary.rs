//! Room summaries: how many members, and who gives a room without a name its name.

use std::collections::HashMap;

use myelin_events::raw_json::{ObjectWriter, push_string};
use myelin_rooms::RoomNid;
use myelin_storage::{Result, sync::members};
use ruma::{OwnedUserId, UserId, events::room::member::MembershipState};
use serde::Deserialize;

use super::{Context, plan::RoomPlan};
use crate::room::{Counts, Inner, Selection};

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
        for (plan, _) in plans.iter().zip(&wanted).filter(|(_, wanted)| **wanted) {
            let inner = plan.room.inner.read();
            if inner.state.counts().is_none() {
                uncounted.push(plan.room.nid.0);
            }
            if !has_name(&inner) && !inner.state.has_all_members() {
                unnamed.push(plan.room.nid.0);
            }
        }
        let mut heroes: HashMap<i64, Vec<OwnedUserId>> = HashMap::new();
        if !uncounted.is_empty() || !unnamed.is_empty() {
            let client = self.engine.parts.database.get().await?;
            if !uncounted.is_empty() {
                for count in members::count_members(&client, &uncounted).await? {
                    let plan = plans.iter().find(|plan| plan.room.nid == RoomNid(count.room_nid));
                    if let Some(plan) = plan {
                        plan.room.inner.write().learn_counts(&count);
                    }
                }
            }
            if !unnamed.is_empty() {
                let me = self.user.inner.lock().sid.unwrap_or_default();
                let limit = i64::try_from(HEROES).unwrap_or(i64::MAX);
                for (room_nid, user_id) in members::heroes(&client, &unnamed, me, limit).await? {
                    heroes.entry(room_nid).or_default().extend(OwnedUserId::try_from(user_id));
                }
            }
        }
        let summaries = plans.iter().zip(wanted).map(|(plan, wanted)| {
            wanted.then(|| {
                let inner = plan.room.inner.read();
                let found = heroes.remove(&plan.room.nid.0).unwrap_or_default();
                let heroes = match has_name(&inner) {
                    true => None,
                    false if inner.state.has_all_members() => Some(first_members(&inner, self.user_id())),
                    false => Some(found),
                };
                Summary { counts: inner.state.counts().unwrap_or_default(), heroes }
            })
        });
        Ok(summaries.collect())
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

/// The members who came first, besides the user; where there is nobody, those who were there.
fn first_members(room: &Inner, except: &UserId) -> Vec<OwnedUserId> {
    let mut present = Vec::new();
    let mut gone = Vec::new();
    for (user_id, entry) in room.state.members().filter(|(user_id, _)| *user_id != except.as_str()) {
        match entry.event.membership() {
            MembershipState::Join | MembershipState::Invite => present.push((entry.since, user_id)),
            _ => gone.push((entry.since, user_id)),
        }
    }
    let mut heroes = if present.is_empty() { gone } else { present };
    heroes.sort_unstable();
    let heroes = heroes.into_iter().filter_map(|(_, user_id)| user_id.try_into().ok());
    heroes.take(HEROES).collect()
}
