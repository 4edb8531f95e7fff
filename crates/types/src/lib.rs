//! Small types that every crate shares: stream ids and positions, writers, the clock.
//!
//! Nothing here does I/O or knows about Matrix events. Start with [`Position`]: it is what "up to where has a
//! reader seen a stream" means everywhere in Myelin, from a database row to a sync token.

mod clock;
mod position;
mod random;

pub use clock::{Clock, ManualClock, MillisSinceEpoch};
pub use position::{ParsePositionError, Position, StreamId, WriterId};
pub use random::random_alphanumeric;
