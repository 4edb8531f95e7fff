//! Streams: writers with committed positions, notices, and readers that never skip a row.
//!
//! A [`Stream`] is a table whose rows have ids from one sequence. A [`StreamWriter`] commits rows in groups, one
//! transaction after the other, and moves its committed position in the same transaction: the database commit is the
//! truth. A [`Feed`] is the reading side in every process: it applies each committed batch once and in order to
//! whoever [subscribed](Feed::subscribe), and only then moves its [`Position`]. Notices may be lost, repeated or late;
//! a feed that sees a gap reads the rows from the database ([`Feed::catch_up`]).
//!
//! What is not here: what the rows mean. The crates of the domain define their streams (`rooms::EventStream`, …).
//! Start with [`Stream`], then [`Feed`].
//!
//! [`Position`]: myelin_types::Position

mod combine;
mod cursor;
mod feed;
mod horizon;
mod lane;
mod notices;
mod pages;
mod request;
mod rhythm;
mod stream;
mod wire;
mod writer;

pub use combine::Combined;
pub use cursor::{Cursor, Heading, Step};
pub use feed::{Feed, Selector};
pub use horizon::{Horizon, Lag};
pub use lane::Lane;
pub use notices::{Notices, NoticesError, NoticesOptions, RedisAddress, Teller};
pub use pages::{is_full, read_pages};
pub use request::ReplicationRequest;
pub use stream::{Batch, Notice, Stamped, Stream, Topic};
pub use writer::{Appending, StreamWriter, WriteError};
