//! Which rooms an answer is about, and in which section each of them stands.

use std::{collections::HashMap, sync::Arc};

use myelin_rooms::RoomNid;
use myelin_storage::Result;
use myelin_types::{Position, StreamId};
use ruma::{OwnedRoomId, OwnedUserId, events::room::member::MembershipState};

use super::Context;
use crate::{
    room::Room,
    user::{Inner, UserRoom},
};

/// The rooms of an answer.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Joined and left rooms, which have timelines.
    pub timelines: Vec<RoomPlan>,
    /// Rooms that the user is invited to, or knocks at.
    pub invites: Vec<InvitePlan>,
}

/// A room with a timeline.
#[derive(Clone, Debug)]
pub(super) struct RoomPlan {
    pub room: Arc<Room>,
    /// The user left at this place.
    pub left_at: Option<StreamId>,
    /// The client knows nothing of the room, or not what it needs to go on.
    pub is_new: bool,
    /// What the user is at the end.
    pub membership: MembershipState,
}

/// A room without a timeline.
#[derive(Clone, Debug)]
pub(super) struct InvitePlan {
    pub room_nid: RoomNid,
    pub room_id: OwnedRoomId,
    pub rules: myelin_events::Rules,
    pub is_knock: bool,
    /// Who is invited, or knocks.
    pub user_id: OwnedUserId,
    /// Who invited.
    pub sender: OwnedUserId,
}

/// A room whose membership changed, where what it was before is still to be found out.
struct Changed {
    room_nid: RoomNid,
    room: UserRoom,
    now: MembershipState,
    /// `None`: the database must be asked.
    before: Option<MembershipState>,
    /// The user came in since, maybe not for the first time.
    joined_since: bool,
}

impl Context<'_> {
    /// Chooses the rooms. `has_account_data` says of a room whether account data of it is to be told.
    pub(super) async fn plan(&self, has_account_data: impl Fn(&OwnedRoomId) -> bool) -> Result<Plan> {
        let mut plan = Plan::default();
        let forgotten = self.forgotten_rooms().await?;
        let mut changed = Vec::new();
        let is_quiet = self.since().is_some_and(|since| {
            since.events == self.upto.events
                && since.receipts == self.upto.receipts
                && since.typing == self.upto.typing
                && since.account_data == self.upto.account_data
        });
        if is_quiet && !self.request.full_state {
            return Ok(plan);
        }
        {
            let user = self.user.inner.lock();
            for (room_nid, room) in &user.rooms {
                if !self.filter().rooms.matches(&room.room_id) || forgotten.contains(&room_nid.0) {
                    continue;
                }
                let now = membership_at(&user, *room_nid, room, &self.upto.events);
                match self.since() {
                    None => self.plan_initial(&mut plan, *room_nid, room, now),
                    Some(since) if since.events.covers(room.writer, room.pos) => {
                        if now == MembershipState::Join
                            && let Some(handle) = &room.room
                            && (self.request.full_state
                                || handle.has_events_since(&since.events)
                                || handle.has_receipts_since(&since.receipts)
                                || handle.has_typing_since(&since.typing)
                                || has_account_data(&room.room_id))
                        {
                            plan.timelines.push(joined(handle, false));
                        }
                    }
                    Some(since) => changed.push(Changed {
                        room_nid: *room_nid,
                        room: room.clone(),
                        before: user.membership_at(*room_nid, &since.events),
                        joined_since: user.joined_between(*room_nid, &since.events, &self.upto.events),
                        now,
                    }),
                }
            }
        }
        self.plan_changed(&mut plan, changed).await?;
        Ok(plan)
    }

    /// The rooms that must not be told with those that were left.
    async fn forgotten_rooms(&self) -> Result<Vec<i64>> {
        let sid = self.user.inner.lock().sid;
        match sid.filter(|_| self.since().is_none() && self.filter().include_leave) {
            Some(sid) => {
                let client = self.engine.parts.database.get().await?;
                myelin_storage::sync::forgotten_rooms(&client, sid).await
            }
            None => Ok(Vec::new()),
        }
    }

    fn plan_initial(&self, plan: &mut Plan, room_nid: RoomNid, room: &UserRoom, now: MembershipState) {
        match now {
            MembershipState::Join => plan.timelines.extend(room.room.as_ref().map(|room| joined(room, true))),
            MembershipState::Invite | MembershipState::Knock => {
                plan.invites.extend(self.invite(room_nid, room, &now));
            }
            _ if self.filter().include_leave => plan.timelines.push(left(room_nid, room, true, now)),
            _ => {}
        }
    }

    async fn plan_changed(&self, plan: &mut Plan, changed: Vec<Changed>) -> Result<()> {
        let Some(since) = self.since() else { return Ok(()) };
        let unknown: Vec<_> = changed
            .iter()
            .filter(|changed| changed.before.is_none())
            .map(|changed| (changed.room_nid, changed.room.room_id.clone(), changed.room.rules))
            .collect();
        let found: HashMap<RoomNid, MembershipState> =
            self.engine.load_memberships_at(self.user, &unknown, &since.events).await?;
        for changed in changed {
            let Changed { room_nid, room, now, before, joined_since } = changed;
            let before = before.or_else(|| found.get(&room_nid).cloned()).unwrap_or(MembershipState::Leave);
            match now {
                MembershipState::Join => {
                    let is_new = before != MembershipState::Join || joined_since;
                    plan.timelines.extend(room.room.as_ref().map(|room| joined(room, is_new)));
                }
                MembershipState::Invite | MembershipState::Knock => {
                    plan.invites.extend(self.invite(room_nid, &room, &now));
                }
                // Somebody who was not there hears nothing of not being there, unless it is for good, or they want to know
                // all: they may have declined an invite since.
                MembershipState::Leave
                    if before == MembershipState::Leave && !joined_since && !self.request.full_state => {}
                MembershipState::Ban if before == MembershipState::Ban && !joined_since => {}
                _ => {
                    let is_new = before != MembershipState::Join || joined_since;
                    plan.timelines.push(left(room_nid, &room, is_new, now));
                }
            }
        }
        Ok(())
    }

    fn invite(&self, room_nid: RoomNid, room: &UserRoom, now: &MembershipState) -> Option<InvitePlan> {
        let is_knock = *now == MembershipState::Knock;
        // Invites of users who are ignored are not shown: <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>
        if !is_knock && self.ignored.contains(&room.sender) {
            return None;
        }
        Some(InvitePlan {
            room_nid,
            room_id: room.room_id.clone(),
            rules: room.rules,
            is_knock,
            user_id: self.request.user_id.clone(),
            sender: room.sender.clone(),
        })
    }
}

/// What the user is in a room at a position: the room may have gone on.
fn membership_at(user: &Inner, room_nid: RoomNid, room: &UserRoom, at: &Position) -> MembershipState {
    user.membership_at(room_nid, at).unwrap_or_else(|| room.membership.clone())
}

fn joined(room: &Arc<Room>, is_new: bool) -> RoomPlan {
    RoomPlan { room: room.clone(), left_at: None, is_new, membership: MembershipState::Join }
}

/// What somebody who left sees is what was there when they did: a room of its own.
fn left(room_nid: RoomNid, room: &UserRoom, is_new: bool, membership: MembershipState) -> RoomPlan {
    let frozen = Room::frozen(room_nid, room.room_id.clone(), room.rules, room.pos);
    RoomPlan { room: Arc::new(frozen), left_at: Some(room.pos), is_new, membership }
}
