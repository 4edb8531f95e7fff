//! What all daemons are put together from: one process of a homeserver, whatever its role.
//!
//! A daemon's `main.rs` names its [`Role`] and calls [`main`]. [`start`] is the order of a start and of an end: configuration,
//! logs, PostgreSQL, registration, services, listeners, ready. The parts themselves are other crates; here they are put
//! together from the configuration, and taken apart again.

mod duties;
mod failure;
mod forward;
mod listeners;
mod peers;
mod postgres;
mod process;
mod pulse;
mod redis;
mod replication_api;
mod requests;
mod start;
mod status;

use std::process::ExitCode;

pub use myelin_daemon::Role;
use myelin_daemon::{Arguments, Exit};

pub use self::{failure::Failure, start::run};

/// Runs a daemon from its command line to its exit code.
pub async fn main(role: Role) -> ExitCode {
    let arguments = Arguments::from_command_line();
    match run(role, &arguments).await {
        Ok(()) => Exit::Stopped.into(),
        Err(failure) => failure.report(role).into(),
    }
}
