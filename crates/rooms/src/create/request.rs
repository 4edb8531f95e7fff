//! Which request a room was made by, so that one that is repeated makes it once.

use myelin_storage::rooms;
use ruma::{OwnedRoomId, RoomId, UserId};
use tokio::sync::{Mutex, MutexGuard};

use crate::{RoomError, Rooms};

/// The longest name of a request.
const MAX_LENGTH: usize = 64;
/// Among how many locks requests are spread by their names: two that share one wait for each other.
const PLACES: usize = 64;

/// A request to make a room, by its user and a name that whoever repeats it says again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// The request of that name, which is one of up to 64 letters, digits, `-` and `_`. Users have names of their own.
    pub fn new(user: &UserId, name: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_name = (1..=MAX_LENGTH).contains(&name.len()) && name.bytes().all(is_allowed);
        is_name.then(|| Self(format!("{name} {user}")))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who makes a room for a request that may come twice in the same moment.
pub(crate) struct Makers([Mutex<()>; PLACES]);

impl Default for Makers {
    fn default() -> Self {
        Self([const { Mutex::const_new(()) }; PLACES])
    }
}

impl Makers {
    /// Waits until this request is not under way here. Where the process that has it under way is another one, that was replaced, and
    /// its writes are refused; should they not be, the index of requests refuses the second.
    pub async fn enter(&self, request: &RequestId) -> MutexGuard<'_, ()> {
        let place = crc32fast::hash(request.0.as_bytes()) as usize % PLACES;
        self.0[place].lock().await
    }
}

impl Rooms {
    /// The room that this request has made already.
    pub(crate) async fn made_by(
        &self,
        request: Option<&RequestId>,
    ) -> Result<Option<OwnedRoomId>, RoomError> {
        let Some(request) = request else { return Ok(None) };
        let found = rooms::get_room_made_by(&self.0.database.get().await?, request.as_str()).await?;
        Ok(found.and_then(|room_id| RoomId::parse(room_id).ok()))
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn requests_are_told_apart_by_user_and_name() {
        let (alice, bob) = (user_id!("@alice:example.org"), user_id!("@bob:example.org"));
        assert!(RequestId::new(alice, "a_Z-9").is_some());
        assert_eq!(RequestId::new(alice, "a"), RequestId::new(alice, "a"));
        assert_ne!(RequestId::new(alice, "a"), RequestId::new(alice, "b"));
        assert_ne!(RequestId::new(alice, "a"), RequestId::new(bob, "a"));
        for name in ["", "a b", "ä", &"a".repeat(65)] {
            assert_eq!(RequestId::new(alice, name), None, "{name}");
        }
    }
}
