//! The sections of the configuration, one file each.

mod appservices;
mod auth;
mod caches;
mod database;
mod federation;
mod http;
mod keys;
mod logging;
mod media;
mod push;
mod rate_limits;
mod redis;
mod registration;
mod room_directory;
mod rooms;
mod server;
mod users;
mod voip;
mod workers;

pub use self::{
    appservices::*, auth::*, caches::*, database::*, federation::*, http::*, keys::*, logging::*, media::*,
    push::*, rate_limits::*, redis::*, registration::*, room_directory::*, rooms::*, server::*, users::*,
    voip::*, workers::*,
};
