//! The client-server API over HTTP: requests to the crates of the domain, and their answers back.
//!
//! One file per endpoint family, each with a `routes` function; [`routes`] calls them all. Rules of Matrix are not
//! here, they stand in the domain's crates. Start with [`App`], the services that handlers are given.

mod app;
mod caller;
mod discovery;

pub use app::{App, Services};
pub use caller::Anyone;
use myelin_http::Routes;

/// The endpoints of the client-server API that this version serves. All others answer `M_UNRECOGNIZED`.
pub fn routes(app: App) -> Routes<App> {
    let mut routes = Routes::new(app);
    discovery::routes(&mut routes);
    routes
}
