//! Fenced leases in PostgreSQL: who may do what, and who can't any more.
//!
//! A process registers as a [`Session`]: it gets the number of its name and a fresh *epoch*. Every write that needs a
//! duty (a shard of rooms, a stream, a queue) is made in a transaction that checks the epoch, so a process that was
//! only slow, or was replaced while it slept, can't write any more: its commit fails with
//! [`StorageError::Fenced`](myelin_storage::StorageError::Fenced). Liveness is one row per process, renewed every few
//! seconds; a lease is a row that names the holder and its epoch.
//!
//! What is not here: what the duties are. Start with [`Session::register`].

mod session;

pub use session::{LeaseError, Session};
