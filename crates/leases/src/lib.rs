//! Fenced leases in PostgreSQL: who may do what, and who can't any more.
//!
//! A process registers as a [`Session`]: it gets the number of its name and a fresh *epoch*. Every write that needs a
//! duty (a shard of rooms, a stream, a queue) is made in a transaction that checks the epoch, so a process that was
//! only slow, or was replaced while it slept, can't write any more: its commit fails with
//! [`StorageError::Fenced`](myelin_storage::StorageError::Fenced). Liveness is one row per process, renewed every few
//! seconds; a lease is a row that names the holder and its epoch.
//!
//! A [`Duty`] that several processes would do is shared out in parts ([`Share`]): each process looks at who lives and holds
//! what, gives up what belongs to another by rendezvous hashing, and takes what is its own and free.
//!
//! What is not here: what the duties are. Start with [`Session::register`].

mod census;
mod plan;
mod session;
mod share;

pub use myelin_storage::instances::{Living, Registration};
pub use session::{LeaseError, Session};
pub use share::{Assignment, Duty, Holder, Share, weigh};
