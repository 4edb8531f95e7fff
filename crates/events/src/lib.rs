//! The PDU formats: hashes, signatures, authorization and state resolution of room versions 1 to 12, without I/O.
//!
//! Everything about events that can be decided from events alone lives here, on top of ruma's types and rules. What
//! is *not* here: fetching or storing anything, the order of events in a room, who is told of them (`myelin-rooms`,
//! `myelin-sync`), and times and randomness, which are passed in.
//!
//! Start at [`Pdu`]. Then follow an event's life:
//!
//! 1. A local user's event is [`build`](build::build)t from an [`EventTemplate`] and a place in the room; one of
//!    another server is [`receive`](receive::check_received)d.
//! 2. [`auth`] says whether the state of the room allows it.
//! 3. [`state_res`] merges states where histories meet.
//! 4. [`visibility`] and [`client_format`] decide who sees it and how, [`relations`] what it refers to.

pub mod acl;
pub mod auth;
pub mod build;
mod canonical;
pub mod client_format;
pub mod join_rules;
pub mod keys;
mod lenient;
pub mod limits;
pub mod member;
mod pdu;
pub mod power_levels;
pub mod raw_json;
pub mod receive;
pub mod redact;
pub mod relations;
mod room_version;
pub mod state_res;
#[cfg(test)]
mod test_events;
mod type_pattern;
pub mod visibility;

pub use self::{
    acl::ServerAcl,
    auth::NotAllowed,
    build::{BuildError, EventContext, EventReference, EventTemplate},
    client_format::{ClientEvent, Unsigned},
    join_rules::JoinRules,
    keys::{ServerSigningKey, SignatureError, SigningKeyError},
    member::MemberContent,
    pdu::{MalformedEvent, Pdu, event_id_of},
    power_levels::PowerLevels,
    receive::{ReceiveError, ReceivedPdu, UnverifiedPdu, check_received},
    relations::{Mentions, RelatesTo, Relation},
    room_version::{Rules, SUPPORTED_ROOM_VERSIONS, rules},
    state_res::StateMap,
    type_pattern::matches_type,
    visibility::Viewpoint,
};
