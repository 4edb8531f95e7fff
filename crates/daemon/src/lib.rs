//! Start, readiness, drain and stop of every daemon.
//!
//! A daemon's `main.rs` parses [`Arguments`], composes its parts, and hands over to [`until_stopped`]. Nothing here
//! knows what the parts do. Start with [`Arguments`]; [`Exit`] lists the exit codes.

mod arguments;
mod exit;
mod readiness;
mod signals;

pub use arguments::Arguments;
pub use exit::Exit;
pub use readiness::{Condition, Readiness};
pub use signals::{notify_ready, notify_stopping, until_stopped};
