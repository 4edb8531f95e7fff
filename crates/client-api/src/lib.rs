//! The client-server API over HTTP: requests to the crates of the domain, and their answers back.
//!
//! One file per endpoint family, each with a `routes` function; [`routes`] calls them all. Rules of Matrix are not
//! here, they stand in the domain's crates. Start with [`App`], the services that handlers are given ([`Services`] puts them
//! together), and the callers ([`LocalUser`] and the like) that stand in their signatures.

mod account;
mod account_data;
mod adapters;
mod admin;
mod app;
mod caller;
mod capabilities;
mod create_room;
mod device;
mod discovery;
mod error;
mod filter;
mod key_backup;
mod keys;
mod limits;
mod membership;
mod presence;
mod profile;
mod public_rooms;
mod push_rules;
mod pushers;
mod reading;
mod receipt;
mod register;
mod relations;
mod replaced_room;
mod room_alias;
mod room_events;
mod room_members;
mod room_state;
mod room_summary;
mod send;
mod services;
mod session;
mod settings;
mod space;
mod sync;
mod tag;
#[cfg(test)]
mod testing;
mod threads;
mod to_device;
mod typing;
mod ui_auth;
mod voip;

pub use app::App;
pub use limits::{Address, Limits};
use myelin_http::Routes;
pub use services::{Parts, Services, Waiting};
pub use settings::Settings;

pub(crate) use caller::{Admin, Anyone, EvenLocked, GuestOrUser, LocalUser, LoggedInCaller, OptionalUser};

/// The endpoints of the client-server API that this version serves. All others answer `M_UNRECOGNIZED`.
pub fn routes(app: App) -> Routes<App> {
    let mut routes = Routes::new(app);
    account::routes(&mut routes);
    account_data::routes(&mut routes);
    admin::routes(&mut routes);
    capabilities::routes(&mut routes);
    create_room::routes(&mut routes);
    device::routes(&mut routes);
    discovery::routes(&mut routes);
    filter::routes(&mut routes);
    key_backup::routes(&mut routes);
    keys::routes(&mut routes);
    membership::routes(&mut routes);
    presence::routes(&mut routes);
    profile::routes(&mut routes);
    public_rooms::routes(&mut routes);
    push_rules::routes(&mut routes);
    pushers::routes(&mut routes);
    receipt::routes(&mut routes);
    register::routes(&mut routes);
    relations::routes(&mut routes);
    room_alias::routes(&mut routes);
    room_events::routes(&mut routes);
    room_members::routes(&mut routes);
    room_state::routes(&mut routes);
    room_summary::routes(&mut routes);
    send::routes(&mut routes);
    session::routes(&mut routes);
    space::routes(&mut routes);
    sync::routes(&mut routes);
    tag::routes(&mut routes);
    threads::routes(&mut routes);
    to_device::routes(&mut routes);
    typing::routes(&mut routes);
    voip::routes(&mut routes);
    routes
}
