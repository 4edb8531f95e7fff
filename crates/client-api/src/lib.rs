//! The client-server API over HTTP: requests to the crates of the domain, and their answers back.
//!
//! One file per endpoint family, each with a `routes` function; [`routes`] calls them all. Rules of Matrix are not
//! here, they stand in the domain's crates. Start with [`App`], the services that handlers are given, and the callers
//! ([`LocalUser`] and the like) that stand in their signatures.

mod app;
mod caller;
mod discovery;
mod error;
mod limits;
mod settings;
#[cfg(test)]
mod testing;

pub use app::{App, Services};
pub use caller::{Admin, Anyone, EvenLocked, GuestOrUser, LocalUser, LoggedInCaller, OptionalUser};
pub use limits::{Address, Limits};
use myelin_http::Routes;
pub use settings::Settings;

/// The endpoints of the client-server API that this version serves. All others answer `M_UNRECOGNIZED`.
pub fn routes(app: App) -> Routes<App> {
    let mut routes = Routes::new(app);
    discovery::routes(&mut routes);
    routes
}
