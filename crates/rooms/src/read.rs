//! The read side: what rooms look like to a user.
//!
//! [`RoomReader`] answers from the database, with a constant number of statements per request however many events are
//! asked for, and from two small caches that the events stream keeps true. Whoever asks is a [`Viewer`]; what they may
//! see follows from the room's history visibility and their membership at the time, in one place ([`view`]).
//!
//! A place in a room's timeline is `events.pos`, the same order for everybody; [`PaginationToken`]s lie between two
//! places. Events leave as JSON text in the client format, ready to be put into an answer.

use std::{collections::HashSet, sync::Arc};

use myelin_replication::Feed;
use myelin_storage::{Client, Database, StorageError, strings::Strings};
use myelin_types::Clock;
use quick_cache::sync::Cache;
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId, UserId};

use self::{cache::Caches, view::View};
use crate::EventStream;

mod aggregations;
mod cache;
mod context;
mod directory;
mod event;
mod filter;
mod hierarchy;
mod json;
mod members;
mod messages;
mod place;
mod relations;
mod render;
mod room;
mod state;
mod summary;
mod time;
mod token;
mod view;

pub use self::{
    context::{Context, ContextRequest},
    directory::{PublicRooms, PublicRoomsRequest},
    filter::ReadFilter,
    hierarchy::{Hierarchy, HierarchyRequest},
    json::JsonArray,
    members::MembersRequest,
    messages::{Messages, MessagesRequest},
    place::EventPlace,
    relations::{Related, RelationsRequest, Threads, ThreadsRequest},
    room::RoomInfo,
    summary::SummaryFor,
    time::EventAtTime,
    token::{InvalidToken, PaginationToken},
};

/// Events of one answer at most, whatever the client asks for.
pub const MAX_EVENTS: usize = 500;
/// Rooms whose number and version are kept in memory.
const CACHED_ROOMS: usize = 50_000;

/// Who looks at rooms.
#[derive(Clone, Debug)]
pub struct Viewer {
    /// The user.
    pub user_id: OwnedUserId,
    /// The user's device, which is told the transaction ids of what it sent.
    pub device_id: Option<OwnedDeviceId>,
    /// Whose messages the user does not want
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#ignoring-users)).
    pub ignored: Arc<HashSet<OwnedUserId>>,
}

impl Viewer {
    /// A user who ignores nobody.
    pub fn new(user_id: OwnedUserId) -> Self {
        Self { user_id, device_id: None, ignored: Arc::default() }
    }

    /// The ignored users as a parameter of statements.
    pub(crate) fn ignored(&self) -> Vec<&str> {
        self.ignored.iter().map(|user_id| user_id.as_str()).collect()
    }

    pub(crate) fn ignores(&self, user_id: &UserId) -> bool {
        !self.ignored.is_empty() && self.ignored.contains(user_id)
    }
}

/// Why something can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not there, or must not be told from what is not there: `M_NOT_FOUND`.
    #[error("{0}")]
    NotFound(&'static str),
    /// The user may not see it: `M_FORBIDDEN`.
    #[error("{0}")]
    Forbidden(&'static str),
    /// A parameter makes no sense: `M_INVALID_PARAM`.
    #[error("{0}")]
    InvalidParam(&'static str),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<InvalidToken> for ReadError {
    fn from(_: InvalidToken) -> Self {
        Self::InvalidParam("unknown pagination token")
    }
}

pub(crate) const NOT_A_MEMBER: ReadError = ReadError::Forbidden("You aren't a member of the room");
pub(crate) const NO_SUCH_EVENT: ReadError = ReadError::NotFound("Event not found");

/// What can be read of a room by one who may.
pub(crate) type Result<T> = std::result::Result<T, ReadError>;

/// Reads rooms. Clones share the caches.
#[derive(Clone)]
pub struct RoomReader(Arc<Reader>);

struct Reader {
    database: Database,
    strings: Strings,
    clock: Clock,
    rooms: Cache<OwnedRoomId, Arc<RoomInfo>>,
    caches: Caches,
}

impl std::fmt::Debug for RoomReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoomReader").field("rooms", &self.0.rooms.len()).finish_non_exhaustive()
    }
}

impl RoomReader {
    /// A reader whose caches follow `feed` and hold about `cache_bytes` of rooms' current states.
    pub fn new(
        database: Database,
        strings: Strings,
        feed: &Feed<EventStream>,
        clock: Clock,
        cache_bytes: u64,
    ) -> Self {
        let caches = Caches::new(feed, cache_bytes);
        Self(Arc::new(Reader { database, strings, clock, rooms: Cache::new(CACHED_ROOMS), caches }))
    }

    async fn client(&self) -> Result<Client> {
        Ok(self.0.database.get().await?)
    }

    /// A room as a user may see it. A room that is not here can't be told from one that the user is not in.
    async fn view(&self, client: &Client, viewer: &Viewer, room_id: &RoomId) -> Result<View> {
        let room = self.room_with(client, room_id).await?.ok_or(NOT_A_MEMBER)?;
        self.view_of(client, &viewer.user_id, room).await
    }
}
