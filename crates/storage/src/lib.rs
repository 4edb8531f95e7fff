//! PostgreSQL: the pool, the migrations, and one module of SQL per table family.
//!
//! All SQL of Myelin stands in this crate, beside the function that runs it. Functions take
//! `db: &impl GenericClient`, which is a [`Client`] or the caller's [`Transaction`]; those that write are meant to be
//! called in a transaction. Those that take `&impl Write` give no answer that counts, so that the statements of several go out
//! together, in a [`Flight`]. There are no rules of Matrix here: what may be written is decided by the callers.
//! Each of them fails if the database does ([`StorageError`]), and says so only where there is more to say.
//!
//! Start with [`Database`], then read the module of the table you are after.

pub mod account_data;
pub mod accounts;
pub mod aliases;
pub mod cross_signing;
mod database;
pub mod device_keys;
pub mod device_lists;
mod error;
pub mod event_graph;
pub mod events;
pub mod filters;
pub mod instances;
pub mod key_backups;
pub mod memberships;
mod migrate;
pub mod one_time_keys;
mod pipeline;
pub mod presence;
pub mod push_rules;
pub mod receipts;
pub mod relations;
pub mod room_reads;
pub mod rooms;
pub mod state;
pub mod streams;
pub mod strings;
pub mod sync;
#[cfg(test)]
mod test_support;
pub mod tls;
pub mod to_device;

pub use database::{
    Answer, Client, Database, DatabaseOptions, DetachedClient, Flight, GenericClient, Transaction, Write,
    detach, discard, execute, query, query_one, query_opt,
};
pub use error::{Result, StorageError};
pub use migrate::{migrate, migrations_fingerprint};
pub use pipeline::pipelined;
pub use tokio_postgres::{Row, types::ToSql};
