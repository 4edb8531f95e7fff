//! The room engine: one writer per room, group commit, state store.
//!
//! - [`stream`]: the rows of the events stream, which is all that leaves the engine.

pub mod stream;

pub use stream::{EventRow, PushOutcome, Redacted, Relation, RoomNid, StateChange};
