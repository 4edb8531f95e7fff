//! What is not part of a room's history: receipts, typing notifications and presence.
//!
//! [`Receipts`] are stored and have a stream; [`Presence`] has a stream too, but lives in memory and is only written
//! when it changes; [`Typing`] is in memory alone. Each tells its readers of changes *before* its position moves, so
//! that "the position covers it" means that every cache of this process has seen it.
//!
//! What is not here: who may see what. The sync engine knows who shares a room with whom, and the callers have checked
//! that a user is in the room. Start with [`Receipts`].

mod presence;
mod receipts;
#[cfg(test)]
mod test_streams;
mod typing;

pub use presence::{Presence, PresenceOptions, PresenceRow, PresenceStream, Syncing};
pub use receipts::{
    NewReceipt, ReceiptKind, ReceiptRow, ReceiptStream, ReceiptThread, Receipts, RecordError,
};
pub use typing::{Typing, TypingChange, TypingMessage};
