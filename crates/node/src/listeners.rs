//! From the configuration's listeners to those of the HTTP server.

use std::net::SocketAddr;

use myelin_config::{Config, Listener, ListenerKind};
use myelin_http::{Bind, Resource, ServedResource, TlsFiles};

/// What to listen on.
pub(crate) fn compose(config: &Config) -> Vec<myelin_http::Listener> {
    // Synapse's debug shell is not served; the configuration has warned of it.
    let served = config.http.listeners.iter().filter(|listener| listener.kind != ListenerKind::Manhole);
    served.map(|listener| compose_one(config, listener)).collect()
}

fn compose_one(config: &Config, listener: &Listener) -> myelin_http::Listener {
    let mut bind = Vec::new();
    if let Some(path) = &listener.path {
        bind.push(Bind::Unix { path: path.clone(), mode: listener.mode });
    }
    if let Some(port) = listener.port {
        bind.extend(listener.bind_addresses.iter().map(|address| Bind::Tcp(SocketAddr::new(*address, port))));
    }
    let certificate = config.http.tls_certificate_path.clone().zip(config.http.tls_private_key_path.clone());
    let tls = certificate.filter(|_| listener.tls);
    myelin_http::Listener {
        bind,
        tls: tls.map(|(certificate, private_key)| TlsFiles { certificate, private_key }),
        x_forwarded: listener.x_forwarded,
        resources: resources(listener),
    }
}

fn resources(listener: &Listener) -> Vec<ServedResource> {
    if listener.kind == ListenerKind::Metrics {
        return vec![Resource::Metrics.into()];
    }
    let named = listener.resources.iter().flat_map(|resource| {
        let named = resource.names.iter().filter_map(|name| Resource::from_name(name.as_str()));
        named.map(|named| ServedResource { resource: named, compress: resource.compress })
    });
    named.collect()
}
