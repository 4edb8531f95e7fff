//! Profile changes reach the rooms as member events.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    pin::pin,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use myelin_events::MemberContent;
use myelin_replication::WriteError;
use myelin_storage::StorageError;
use ruma::{
    OwnedUserId, RoomId, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use tracing::warn;

use super::{ChangeMembership, MembershipAction};
use crate::{MemberProfile, RoomError, Rooms, ToShow};

/// Rooms that are told at the same time.
const CONCURRENT_ROOMS: usize = 16;

/// What became of a profile in the rooms of its user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProfileUpdate {
    /// Rooms that show it now.
    pub shown: usize,
    /// Rooms that could not be written and may be, later. Those that never will are in neither number.
    pub to_be_tried_again: usize,
}

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
                if let Err(error) = rooms.show_profile(&user_id).await {
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

    /// Has rooms show profiles that did not reach them, because a process ended in between or a room could not be written, until
    /// `stop` is ready. One process does this for all.
    pub async fn show_late_profiles(&self, look_every: Duration, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut ticks = tokio::time::interval(look_every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut waiting = HashMap::new();
        loop {
            tokio::select! {
                () = &mut stop => return,
                _ = ticks.tick() => {}
            }
            match self.0.profiles.list_to_show().await {
                // What was there the last time is not under way any more; and if it is, no room shows it twice.
                Ok(now) => {
                    let late = now.iter().filter(|(user_id, change)| waiting.get(user_id) == Some(change));
                    late.for_each(|(user_id, _)| self.profile_changed(user_id.clone()));
                    waiting = now.into_iter().collect();
                }
                Err(error) => warn!(%error, "could not look for profiles that rooms don't show"),
            }
        }
    }

    async fn show_profile(&self, user_id: &UserId) -> Result<(), RoomError> {
        let ToShow { profile, change } = self.0.profiles.to_show(user_id).await?;
        let update = self.update_profile(user_id, &profile).await?;
        match change {
            Some(change) if update.to_be_tried_again == 0 => {
                Ok(self.0.profiles.note_shown(user_id, change).await?)
            }
            _ => Ok(()),
        }
    }

    /// Shows a local user's new profile in all rooms that the user is in. A room where that fails keeps the old one and is logged.
    ///
    /// # Errors
    /// If the rooms of the user can't be read.
    pub async fn update_profile(
        &self,
        user_id: &UserId,
        profile: &MemberProfile,
    ) -> Result<ProfileUpdate, RoomError> {
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
                outcome.inspect_err(|error| warn!(%room_id, %error, "a profile was not updated in a room"))
            }
        });
        let count = |update: ProfileUpdate, outcome| {
            std::future::ready(match outcome {
                Ok(()) => ProfileUpdate { shown: update.shown + 1, ..update },
                Err(error) if is_temporary(&error) => {
                    ProfileUpdate { to_be_tried_again: update.to_be_tried_again + 1, ..update }
                }
                Err(_) => update,
            })
        };
        Ok(stream::iter(updates)
            .buffer_unordered(CONCURRENT_ROOMS)
            .fold(ProfileUpdate::default(), count)
            .await)
    }

    /// Shows a local user's profile in a room that this process writes, if the user is in it. `profile` is what it was when this was
    /// asked for, maybe long ago: what is shown is what it is now.
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
        let mut profile = profile.clone();
        loop {
            let content = super::content(&request, &profile);
            let draft = self.draft_member(&request, &content).await?;
            let room = self.enter(room_id).await?;
            // The user may have left meanwhile, and must not be brought back.
            let event = room.pdu(&StateEventType::RoomMember, user_id.as_str());
            let shown = event.and_then(|event| MemberContent::of(event));
            let Some(shown) = shown.filter(|shown| shown.membership == MembershipState::Join) else {
                return Ok(());
            };
            if shown.displayname == profile.displayname && shown.avatar_url == profile.avatar_url {
                return Ok(());
            }
            // During the turn at the room: who comes later knows no less, so the last one to write it writes the last change.
            let now = self.0.profiles.to_show(user_id).await?.profile;
            if now == profile {
                return self.send_draft(room, draft, None, None).await.map(|_| ());
            }
            profile = now;
        }
    }
}

/// Whether a room that could not be written may be, later. What is broken in the database stays so.
fn is_temporary(error: &RoomError) -> bool {
    match error {
        RoomError::Overloaded | RoomError::NotHere(_) => true,
        RoomError::Unavailable(WriteError::Storage(error)) => {
            !matches!(**error, StorageError::Inconsistent(_))
        }
        RoomError::Unavailable(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_tried_again_unless_it_never_will_take_a_profile() {
        let check = |error: RoomError, expected| assert_eq!(is_temporary(&error), expected, "{error}");
        check(RoomError::NotHere(None), true);
        check(RoomError::Overloaded, true);
        check(RoomError::Unavailable(WriteError::Superseded), true);
        check(StorageError::Fenced.into(), true);
        check(StorageError::Inconsistent("an event is none".to_owned()).into(), false);
        check(RoomError::Forbidden("no".to_owned()), false);
        check(RoomError::Blocked, false);
    }
}
