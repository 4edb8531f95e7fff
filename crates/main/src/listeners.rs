//! From the configuration's listeners to what is served on each.

use std::net::SocketAddr;

use myelin_config::{Config, Listener, ListenerKind, ResourceName, SslMode};
use myelin_http::{Bind, Router};

use crate::system_api::SystemApi;

/// Refuses what this version can't do, rather than doing something else.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    if let Some(listener) = config.http.listeners.iter().find(|listener| listener.tls) {
        return Err(format!(
            "listeners: {}: TLS is not served yet; let a reverse proxy speak it and set `tls: false`",
            listener.name()
        ));
    }
    match config.database.args.sslmode {
        SslMode::Disable | SslMode::Allow | SslMode::Prefer => Ok(()),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            Err("database.args.sslmode: TLS to PostgreSQL is not spoken yet; use a unix socket or `prefer`"
                .to_owned())
        }
    }
}

/// HTTP threads: one for each core, as long as they are few.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8))
}

/// What to listen on, and what is found there.
pub(crate) fn compose(config: &Config, client: &Router, system: &SystemApi) -> Vec<myelin_http::Listener> {
    config.http.listeners.iter().filter_map(|listener| compose_one(listener, client, system)).collect()
}

fn compose_one(listener: &Listener, client: &Router, system: &SystemApi) -> Option<myelin_http::Listener> {
    let mut routers = Vec::new();
    match listener.kind {
        ListenerKind::Metrics => routers.push(system.metrics()),
        // The configuration has warned of it.
        ListenerKind::Manhole => return None,
        ListenerKind::Http => {
            // Every listener tells how the process is.
            routers.push(system.health());
            if listener.serves(ResourceName::Client) {
                routers.push(client.clone());
            }
            if listener.serves(ResourceName::Metrics) {
                routers.push(system.metrics());
            }
        }
    }
    let bind = match (&listener.path, listener.port) {
        (Some(path), _) => Bind::Unix { path: path.clone(), mode: listener.mode },
        (None, Some(port)) => {
            Bind::Tcp(listener.bind_addresses.iter().map(|address| SocketAddr::new(*address, port)).collect())
        }
        (None, None) => return None,
    };
    Some(myelin_http::Listener {
        name: listener.name(),
        bind,
        x_forwarded: listener.x_forwarded,
        compress: listener.compresses(ResourceName::Client),
        routers,
    })
}
