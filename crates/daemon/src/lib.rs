//! What daemons there are, and start, readiness, drain and stop of each.
//!
//! A daemon's `main.rs` names its [`Role`]; `node` parses [`Arguments`], composes the parts, and hands over to
//! [`until_stopped`]. Nothing here knows what the parts do. Start with [`Role`]; [`Exit`] lists the exit codes.

mod arguments;
mod exit;
mod readiness;
mod role;
mod signals;

pub use arguments::Arguments;
pub use exit::Exit;
pub use readiness::{Condition, Readiness};
pub use role::Role;
pub use signals::{notify_ready, notify_stopping, until_stopped};
