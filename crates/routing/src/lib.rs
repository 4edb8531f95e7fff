//! The table of all operations: what the specification calls them, and which process serves each best.
//!
//! `endpoints.tsv` is the table; [`operations`] gives its rows and [`find`] the row of a request. Metrics take the
//! operations' names from here, tests the list of what must be answered. What an operation *does* is the handler's
//! business, and whether it is mounted the daemon's: a row is no promise.

pub mod proxy;
mod table;

pub use self::table::{Api, Auth, Balance, Operation, Pool, ServedBy, find, operations};
