//! The room engine: one writer per room, group commit, state store.
//!
//! Everything that changes a room goes through [`Rooms`]: it keeps the rooms that are in use in memory, builds and
//! authorizes events there, and hands them to the shared commits of the events stream. A room is worked on by one task
//! at a time, but not held while its events are being committed: the next event is built meanwhile, and discarded if
//! the commit fails.
//!
//! - [`Rooms`] and the requests that it takes ([`CreateRoom`], [`SendEvent`], [`ChangeMembership`], …);
//! - [`Rooms::receive`] and [`Rooms::accept_join`] for what other servers send, with an [`EventSource`] to ask;
//! - [`stream`]: the rows of the events stream, which is all that leaves the engine;
//! - [`read`]: rooms as their members, and others, may see them.
//!
//! What is not here: HTTP, and who may call. What waiting clients are told is made of the stream by `myelin-sync`.

mod aliases;
mod create;
mod error;
mod heavy;
mod history;
mod join;
mod membership;
mod merge_heads;
mod numbers;
mod options;
mod profiles;
mod push;
pub mod read;
mod receive;
mod redact;
mod resident;
mod rooms;
mod send;
mod shards;
mod state;
pub mod stream;
mod upgrade;

pub use create::{CreateRoom, InitialState, Preset, RequestId};
pub use error::RoomError;
pub use join::JoinAnswer;
pub use membership::{ChangeMembership, MembershipAction, ProfileUpdate};
pub use options::{EncryptNewRooms, RoomsOptions};
pub use profiles::{MemberProfile, OtherWriters, Profiles, ShowNumber, ToShow};
pub use push::PushEvaluator;
pub use receive::{EventSource, Fetching, NotPlaced, Received, SourceError, StateIds};
pub use redact::RedactEvent;
pub use rooms::Rooms;
pub use send::SendEvent;
pub use shards::{DUTY, SHARDS, shard_of, writers_of_shards};
pub use stream::{EventNid, EventRow, EventStream, PushOutcome, Redacted, Relation, RoomNid, StateChange};
pub use upgrade::UpgradeRoom;
