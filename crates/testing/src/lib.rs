//! A fresh database for every test, on a private PostgreSQL that nobody has to set up; and a [Redis](TestRedis) for those
//! that want one.
//!
//! The first test that asks starts the server (`dev/postgres`, kept in the build folder, reused by later runs, ended when
//! no test has run for some minutes or by `make clean`); each database is a copy of a template that is migrated once:
//!
//! ```no_run
//! # async fn migrate(_url: String) -> Result<(), std::io::Error> { Ok(()) }
//! # async fn example() {
//! use myelin_testing::TestDatabase;
//!
//! let database = TestDatabase::create("fingerprint of the migrations", migrate).await;
//! // Connect to database.url(). When `database` is dropped, so is the database.
//! # }
//! ```
//!
//! A test that breaks the server has a [`TestPostgres`] of its own.
//!
//! `MYELIN_TEST_POSTGRES` names another server to use instead: its socket folder, or a `postgresql://` URL of a
//! superuser.
//!
//! Most tests want [`MigratedDatabase`]: the same, with the schema of today and a pool. Tests inside `myelin-storage`
//! itself stand in its `tests/` folder, so that both sides mean the same `Database`. [`TestDatabase`] is below it, and
//! knows nothing of the schema; [`TestServer`] is below that.

mod database;
mod migrated;
mod ports;
mod postgres;
mod redis;
mod sentinel;
mod server;

use std::path::PathBuf;

pub use database::TestDatabase;
pub use migrated::MigratedDatabase;
pub use ports::free_port;
pub use postgres::TestPostgres;
pub use redis::TestRedis;
pub use sentinel::TestSentinel;
pub use server::TestServer;

/// A file of certificates for `localhost`: `ca.crt`, or `server.crt` and `server.key`, which that authority signed.
pub fn certificate(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "data", name].iter().collect()
}
