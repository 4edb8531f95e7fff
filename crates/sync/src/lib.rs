//! The sync engine: what changed for a user since a position, and waiting until something does.
//!
//! Each process follows the rooms and users that it serves: a `Room` has the latest events of a room with the JSON that
//! clients see, its state as far as somebody needed it, and its receipts; a `UserFeed` has a user's rooms and what lately
//! changed for them. Both are fed by the streams, in step with the positions, so that a sync which finds everything
//! there asks no database. What is not there is read for many rooms at once. All of it can be thrown away at any time.
//!
//! - [`Sync::sync`] answers a request: look, and wait if there is nothing.
//! - `Sync::apply_…` take in the rows of the streams; they run on the path of every write.
//! - [`SyncToken`] is how far a client has seen every stream, [`SyncFilter`] what it wants of that.
//! - [`sources`] is what other crates know of a user.
//!
//! What is not here: `sync` never writes events, and knows nothing of HTTP. Start with [`Sync`].

mod engine;
mod event;
pub mod filter;
mod lazy;
mod load;
mod log;
mod respond;
mod room;
pub mod sources;
#[cfg(test)]
mod tests;
mod token;
mod unread;
mod user;

pub use engine::{Sync, SyncOptions, SyncParts};
pub use filter::SyncFilter;
pub use respond::{SyncError, SyncRequest};
pub use sources::SyncServices;
pub use token::SyncToken;
