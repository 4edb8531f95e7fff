//! Rooms that the user is invited to, or knocks at: stripped state and nothing else.

use std::collections::HashMap;

use myelin_events::{
    client_format::write_stripped_state,
    raw_json::{ObjectWriter, push_string},
};
use myelin_storage::{
    Result,
    sync::{self as table, StateRow, members},
};

use super::{Context, plan::InvitePlan};
use crate::event::Rendered;

/// The state that somebody who is invited is shown
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#stripped-state)).
const STRIPPED: [&str; 8] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.history_visibility",
];

impl Context<'_> {
    /// The members of `invite` and of `knock`.
    pub(super) async fn write_invites(&self, plans: &[InvitePlan]) -> Result<(String, String)> {
        let (mut invite, mut knock) = (String::new(), String::new());
        if plans.is_empty() {
            return Ok((invite, knock));
        }
        let sid = self.user.inner.lock().sid.unwrap_or_default();
        let nids: Vec<i64> = plans.iter().map(|plan| plan.room_nid.0).collect();
        let client = self.engine.parts.database.get().await?;
        let came_along: HashMap<i64, String> =
            members::stripped_states(&client, sid, &nids).await?.into_iter().collect();
        let local: Vec<i64> = nids.into_iter().filter(|nid| !came_along.contains_key(nid)).collect();
        let mut states: HashMap<i64, Vec<StateRow>> = HashMap::new();
        if !local.is_empty() {
            let mut rows = table::current_states_of_types(&client, &local, &STRIPPED).await?;
            let (rooms, users) = people(plans);
            let users = self.engine.parts.strings.intern_all(&client, &users).await?;
            rows.extend(members::member_events(&client, &rooms, &users).await?);
            for row in rows {
                states.entry(row.room_nid).or_default().push(row);
            }
        }
        drop(client);
        for plan in plans {
            let out = if plan.is_knock { &mut knock } else { &mut invite };
            if !out.is_empty() {
                out.push(',');
            }
            push_string(out, plan.room_id.as_str());
            out.push(':');
            let mut room = ObjectWriter::new(out);
            let mut state = room.object(if plan.is_knock { "knock_state" } else { "invite_state" });
            match came_along.get(&plan.room_nid.0) {
                Some(events) => state.raw("events", events),
                None => {
                    let rows = states.remove(&plan.room_nid.0).unwrap_or_default();
                    let mut events = String::from("[");
                    for row in rows {
                        if events.len() > 1 {
                            events.push(',');
                        }
                        let event =
                            Rendered::from_stored(&plan.room_id, plan.rules, &row.event_id, row.json)?;
                        write_stripped_state(&mut events, &event.pdu);
                    }
                    events.push(']');
                    state.raw("events", &events);
                }
            }
            state.end();
            room.end();
        }
        Ok((invite, knock))
    }
}

/// Whose member events belong to these: those of the users, and of whoever invited them.
fn people<'a>(plans: &'a [InvitePlan]) -> (Vec<i64>, Vec<&'a str>) {
    let mut rooms = Vec::new();
    let mut users: Vec<&'a str> = Vec::new();
    for plan in plans {
        rooms.push(plan.room_nid.0);
        users.push(plan.user_id.as_str());
        if plan.sender != plan.user_id {
            rooms.push(plan.room_nid.0);
            users.push(plan.sender.as_str());
        }
    }
    (rooms, users)
}
