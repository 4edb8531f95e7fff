//! Profile changes reach the rooms as member events.

use std::collections::hash_map::Entry;

use futures_util::{StreamExt as _, stream};
use myelin_events::MemberContent;
use ruma::{
    OwnedUserId, RoomId, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use tracing::warn;

use super::{ChangeMembership, MembershipAction};
use crate::{MemberProfile, RoomError, Rooms};

/// Rooms that are told at the same time.
const CONCURRENT_ROOMS: usize = 16;

impl Rooms {
    /// Notes that a local user's profile has changed: the rooms that the user is in will show it, soon but not at once.
    /// Changes that follow each other quickly reach the rooms as one.
    pub fn profile_changed(&self, user_id: OwnedUserId) {
        match self.0.profile_changes.lock().entry(user_id.clone()) {
            Entry::Occupied(mut under_way) => {
                under_way.insert(true);
                return;
            }
            Entry::Vacant(none) => _ = none.insert(false),
        }
        let rooms = self.clone();
        tokio::spawn(async move {
            loop {
                let profile = rooms.0.profiles.profile(&user_id).await;
                if let Err(error) = rooms.update_profile(&user_id, &profile).await {
                    warn!(%user_id, %error, "a profile was not updated in rooms");
                }
                let mut changes = rooms.0.profile_changes.lock();
                match changes.get_mut(&user_id) {
                    Some(again) if *again => *again = false,
                    _ => {
                        changes.remove(&user_id);
                        return;
                    }
                }
            }
        });
    }

    /// Shows a local user's new profile in all rooms that the user is in. A room where that fails keeps the old one
    /// and is logged; gives how many took the new one.
    ///
    /// # Errors
    /// If the rooms of the user can't be read.
    pub async fn update_profile(
        &self,
        user_id: &UserId,
        profile: &MemberProfile,
    ) -> Result<usize, RoomError> {
        let rooms = self.list_joined_rooms(user_id).await?;
        let updates = rooms.into_iter().map(|room_id| {
            let user_id = user_id.to_owned();
            async move {
                let outcome = match self.update_profile_in(&room_id, &user_id, profile).await {
                    Err(RoomError::NotHere(Some(shard))) => match self.0.other_writers.get() {
                        Some(others) => others.update_profile(shard, &room_id, &user_id, profile).await,
                        None => Err(RoomError::NotHere(Some(shard))),
                    },
                    outcome => outcome,
                };
                outcome
                    .inspect_err(|error| warn!(%room_id, %error, "a profile was not updated in a room"))
                    .is_ok()
            }
        });
        let updated = stream::iter(updates).buffer_unordered(CONCURRENT_ROOMS);
        Ok(updated.filter(|updated| std::future::ready(*updated)).count().await)
    }

    /// Shows a local user's new profile in a room that this process writes, if the user is in it.
    ///
    /// # Errors
    /// [`RoomError::NotHere`] if another process writes it.
    pub async fn update_profile_in(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        profile: &MemberProfile,
    ) -> Result<(), RoomError> {
        let request = ChangeMembership::new(user_id.to_owned(), room_id.to_owned(), MembershipAction::Join);
        let content = super::content(&request, profile);
        let draft = self.draft_member(&request, &content).await?;
        let room = self.enter(room_id).await?;
        // The user may have left meanwhile, and must not be brought back.
        let event = room.pdu(&StateEventType::RoomMember, user_id.as_str());
        let now = event.and_then(|event| MemberContent::of(event));
        let is_same = |now: &MemberContent| {
            now.displayname == profile.displayname && now.avatar_url == profile.avatar_url
        };
        match now.filter(|now| now.membership == MembershipState::Join) {
            Some(now) if !is_same(&now) => self.send_draft(room, draft, None, None).await.map(|_| ()),
            _ => Ok(()),
        }
    }
}
