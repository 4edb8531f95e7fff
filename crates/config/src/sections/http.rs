//! What the process listens on.

use std::{net::IpAddr, path::PathBuf};

use crate::{
    section::section,
    value::{OneOrMany, choice},
};

section! {
    /// Listeners and the certificate of those with TLS.
    Http {
        /// What the main process listens on. A worker has `worker_listeners` instead, with the same options.
        listeners: Vec<Listener> = [],
        /// The certificate chain (PEM) of listeners with `tls: true`. Read again at SIGHUP.
        tls_certificate_path: Option<PathBuf> = null,
        /// The private key (PEM) of the certificate. Read again at SIGHUP.
        tls_private_key_path: Option<PathBuf> = null,
        /// Requests that a process works on at once. More are refused at once, with 503 and the time to wait, so that those which are
        /// accepted are answered soon whatever comes; a reverse proxy tries another process. Long polls that wait don't count.
        max_concurrent_requests: u32 = 2000,
    }
}

section! {
    /// One port or unix socket.
    Listener {
        /// The TCP port. Either this or `path` must be given.
        port: Option<u16> = null,
        /// The path of a unix socket, instead of `port`.
        path: Option<PathBuf> = null,
        /// The permissions of the unix socket, in octal.
        mode: u32 = 0o666,
        /// The addresses to listen on; `localhost` means 127.0.0.1.
        bind_addresses: OneOrMany<IpAddr> = ["::", "0.0.0.0"],
        /// What is spoken there: `http`, or `metrics` for Prometheus alone.
        kind as "type": ListenerKind = "http",
        /// Whether to speak TLS with the certificate of `tls_certificate_path`.
        tls: bool = false,
        /// Whether the client's address stands in `X-Forwarded-For`, because a reverse proxy is in front.
        x_forwarded: bool = false,
        /// The header in which a reverse proxy gives the request's ID for the logs.
        request_id_header: Option<String> = null,
        /// A name of this listener for the logs, instead of its port.
        tag: Option<String> = null,
        /// What is served there (`type: http` only).
        resources: Vec<Resource> = [],
    }
}

section! {
    /// A part of the API that a listener serves.
    Resource {
        /// The parts: `client`, `federation`, `media`, `keys`, `replication`, `metrics`, `health`, `openid`, `static`,
        /// `consent`.
        names: OneOrMany<ResourceName> = [],
        /// Whether to compress answers (gzip) for clients that accept it.
        compress: bool = false,
    }
}

choice! {
    /// What a listener speaks.
    ListenerKind: "a kind of listener" {
        /// HTTP: the APIs that `resources` names.
        Http = "http",
        /// HTTP for Prometheus: `/metrics` and `/_synapse/metrics` only.
        Metrics = "metrics",
        /// Synapse's debug shell, which is not served.
        Manhole = "manhole",
    }
}

choice! {
    /// A part of the API.
    ResourceName: "a resource" {
        /// The client-server API, and the admin API with it.
        Client = "client",
        /// The server-server API, and the keys with it.
        Federation = "federation",
        /// Uploads, downloads and thumbnails.
        Media = "media",
        /// The signing keys of this and other servers.
        Keys = "keys",
        /// Requests of the other processes of this server.
        Replication = "replication",
        /// Prometheus metrics at `/_synapse/metrics`.
        Metrics = "metrics",
        /// `/health`.
        Health = "health",
        /// OpenID tokens, for integration managers of other servers.
        OpenId = "openid",
        /// Files for browsers.
        Static = "static",
        /// The form by which users agree to terms.
        Consent = "consent",
    }
}

impl Listener {
    /// Whether the listener serves `name`.
    #[must_use]
    pub fn serves(&self, name: ResourceName) -> bool {
        self.kind == ListenerKind::Http
            && self.resources.iter().any(|resource| resource.names.contains(&name))
    }

    /// Whether only this machine can reach the listener: a unix socket, or loopback addresses alone.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.path.is_some() || self.bind_addresses.iter().all(|address| address.is_loopback())
    }

    /// The listener's name in logs and metrics.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.tag, &self.path, self.port) {
            (Some(tag), ..) => tag.clone(),
            (None, Some(path), _) => path.display().to_string(),
            (None, None, Some(port)) => port.to_string(),
            (None, None, None) => "unnamed".to_owned(),
        }
    }
}
