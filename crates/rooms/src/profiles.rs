//! The names and pictures that go into member events.

use std::{future::Future, pin::Pin};

use ruma::{RoomId, UserId};
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
    fn profile<'a>(&'a self, user_id: &'a UserId)
    -> Pin<Box<dyn Future<Output = MemberProfile> + Send + 'a>>;
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
    ) -> Pin<Box<dyn Future<Output = Result<(), RoomError>> + Send + 'a>>;
}

/// Nobody has a profile.
impl Profiles for () {
    fn profile<'a>(&'a self, _: &'a UserId) -> Pin<Box<dyn Future<Output = MemberProfile> + Send + 'a>> {
        Box::pin(std::future::ready(MemberProfile::default()))
    }
}
