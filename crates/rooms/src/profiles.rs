//! The names and pictures that go into member events.

use std::future::ready;

use futures_util::future::BoxFuture;
use myelin_storage::StorageError;
pub use myelin_storage::accounts::profiles::ShowNumber;
use ruma::{OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::RoomError;

/// What a user's profile puts into the user's member events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberProfile {
    /// The name.
    pub displayname: Option<String>,
    /// The picture, an `mxc:` address.
    pub avatar_url: Option<String>,
}

/// Where the engine finds the profiles of local users.
pub trait Profiles: Send + Sync {
    /// The profile of a user of this server; an empty one if there is no such user.
    fn profile<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, MemberProfile>;

    /// What the user's rooms are to show, as new as it gets.
    ///
    /// # Errors
    /// If it can't be read.
    fn to_show<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, Result<ToShow, StorageError>>;

    /// Notes that all of a user's rooms show a change.
    ///
    /// # Errors
    /// If it can't be noted.
    fn note_shown<'a>(
        &'a self,
        user_id: &'a UserId,
        change: ShowNumber,
    ) -> BoxFuture<'a, Result<(), StorageError>>;

    /// Users of whom some room may not show the last change.
    ///
    /// # Errors
    /// If they can't be read.
    fn list_to_show(&self) -> BoxFuture<'_, Result<Vec<(OwnedUserId, ShowNumber)>, StorageError>>;
}

/// What the rooms of a user are to show.
#[derive(Clone, Debug, Default)]
pub struct ToShow {
    /// The profile.
    pub profile: MemberProfile,
    /// Which change of it is to be [noted](Profiles::note_shown) as shown.
    pub change: Option<ShowNumber>,
}

/// The processes that write the other rooms.
pub trait OtherWriters: Send + Sync {
    /// Has the writer of a room of this shard [show a profile](crate::Rooms::update_profile_in).
    fn update_profile<'a>(
        &'a self,
        shard: u8,
        room_id: &'a RoomId,
        user_id: &'a UserId,
        profile: &'a MemberProfile,
    ) -> BoxFuture<'a, Result<(), RoomError>>;
}

/// Nobody has a profile.
impl Profiles for () {
    fn profile<'a>(&'a self, _: &'a UserId) -> BoxFuture<'a, MemberProfile> {
        Box::pin(ready(MemberProfile::default()))
    }

    fn to_show<'a>(&'a self, _: &'a UserId) -> BoxFuture<'a, Result<ToShow, StorageError>> {
        Box::pin(ready(Ok(ToShow::default())))
    }

    fn note_shown<'a>(&'a self, _: &'a UserId, _: ShowNumber) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(ready(Ok(())))
    }

    fn list_to_show(&self) -> BoxFuture<'_, Result<Vec<(OwnedUserId, ShowNumber)>, StorageError>> {
        Box::pin(ready(Ok(Vec::new())))
    }
}
