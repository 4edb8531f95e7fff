//! Why the engine refuses.

use myelin_events::{BuildError, MalformedEvent, NotAllowed};
use myelin_replication::WriteError;
use myelin_storage::StorageError;
use ruma::{OwnedRoomAliasId, OwnedUserId, RoomVersionId};

/// Why something could not be done to a room. Nothing was written then, unless a variant says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RoomError {
    /// There is no such room here: `M_NOT_FOUND`, or `M_FORBIDDEN` where the room must not be told from one that the
    /// user is not in.
    #[error("there is no such room on this server")]
    UnknownRoom,
    /// Another process writes the rooms of this shard; `None`: this process writes none, and the room is yet to be made.
    #[error("this process does not write that room")]
    NotHere(Option<u8>),
    /// An administrator blocked the room: `M_FORBIDDEN`.
    #[error("this room has been blocked on this server")]
    Blocked,
    /// The user is not in the room: `M_FORBIDDEN`.
    #[error("you are not in this room")]
    NotJoined,
    /// The authorization rules, or a rule of ours, don't allow it: `M_FORBIDDEN`.
    #[error("{0}")]
    Forbidden(String),
    /// The user is banned from the room: `M_FORBIDDEN`.
    #[error("{0} is banned from this room")]
    Banned(OwnedUserId),
    /// Guests can't join this room: `M_GUEST_ACCESS_FORBIDDEN`.
    #[error("guests are not allowed to join this room")]
    GuestsForbidden,
    /// The user is not in one of the rooms whose members may join, and no member here can say otherwise:
    /// `M_UNABLE_TO_AUTHORISE_JOIN` if another server might, else `M_FORBIDDEN`.
    #[error("no member of this server can authorise the join")]
    UnableToAuthoriseJoin,
    /// It takes part of another server, and we don't talk to others yet: `M_FORBIDDEN`.
    #[error("{0} is a user of another server, and this server does not talk to others yet")]
    RemoteUser(OwnedUserId),
    /// The room version is not served: `M_UNSUPPORTED_ROOM_VERSION`.
    #[error("room version {0} is not supported by this server")]
    UnsupportedVersion(RoomVersionId),
    /// The parameters of a new room contradict each other: `M_INVALID_ROOM_STATE`.
    #[error("invalid room state: {0}")]
    InvalidRoomState(String),
    /// The alias is taken: `M_ROOM_IN_USE` when a room is made, `M_UNKNOWN` (409) for the alias itself.
    #[error("{0} is taken already")]
    AliasTaken(OwnedRoomAliasId),
    /// There is no such alias: `M_NOT_FOUND`.
    #[error("there is no alias {0}")]
    UnknownAlias(OwnedRoomAliasId),
    /// `m.room.canonical_alias` names an alias that doesn't point at the room: `M_BAD_ALIAS`.
    #[error("{0} does not point at this room")]
    BadAlias(String),
    /// A parameter makes no sense: `M_INVALID_PARAM`.
    #[error("{0}")]
    InvalidParam(String),
    /// The content can't be sent: `M_BAD_JSON`.
    #[error("{0}")]
    BadJson(String),
    /// The event is too large: `M_TOO_LARGE` (413).
    #[error("{0}")]
    TooLarge(String),
    /// There is no such event in the room: `M_NOT_FOUND`.
    #[error("there is no such event in this room")]
    UnknownEvent,
    /// Too much is waiting to be written: `M_LIMIT_EXCEEDED` (429), to be tried again.
    #[error("the server is overloaded; try again")]
    Overloaded,
    /// The database failed, or the process is about to end: to be tried again with the same transaction id.
    #[error("not written: {0}")]
    Unavailable(WriteError),
}

impl From<StorageError> for RoomError {
    fn from(error: StorageError) -> Self {
        Self::Unavailable(error.into())
    }
}

impl From<WriteError> for RoomError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Overloaded => Self::Overloaded,
            // Nothing was written: the writers who took our place will.
            WriteError::Storage(error) if matches!(*error, StorageError::Fenced) => Self::NotHere(None),
            other => Self::Unavailable(other),
        }
    }
}

impl From<MalformedEvent> for RoomError {
    fn from(error: MalformedEvent) -> Self {
        StorageError::Inconsistent(format!("a stored event: {error}")).into()
    }
}

impl From<NotAllowed> for RoomError {
    fn from(error: NotAllowed) -> Self {
        Self::Forbidden(error.0)
    }
}

impl From<BuildError> for RoomError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::NotCanonical(_) => Self::BadJson(error.to_string()),
            BuildError::TooLarge(_) | BuildError::FieldTooLong(_) => Self::TooLarge(error.to_string()),
            BuildError::Nul(_) => Self::InvalidParam(error.to_string()),
            BuildError::MissingReferenceHash(_) | BuildError::Context(_) => {
                Self::InvalidRoomState(error.to_string())
            }
        }
    }
}
