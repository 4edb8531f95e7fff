//! Where a process is reached.

use std::{fmt, net::IpAddr, path::PathBuf};

use crate::{Instance, Listener};

/// Where a listener is reached: as `instance_map` says, or as a client on the same machine may find out from its options.
///
/// Written as `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`; [`Address::parse`] reads that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// The host; the address of an IPv6 host stands in brackets.
        host: String,
        /// The port.
        port: u16,
        /// Whether TLS is spoken there.
        tls: bool,
    },
    /// A unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Reads an address as it is written; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Some(Self::Unix(path.into()));
        }
        let (scheme, place) = text.split_once("://")?;
        let (host, port) = place.rsplit_once(':')?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        Some(Self::Tcp { host: host.to_owned(), port: port.parse().ok()?, tls })
    }

    /// What a request's path is put behind; a client of a unix socket has to be told of the socket beside.
    #[must_use]
    pub fn base_url(&self) -> String {
        match self {
            Self::Tcp { .. } => self.to_string(),
            Self::Unix(_) => "http://localhost".to_owned(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, tls } => write!(f, "http{}://{host}:{port}", if *tls { "s" } else { "" }),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Instance {
    /// Where the process is; `None` if the entry does not say so.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        if let Some(path) = &self.path {
            return Some(Address::Unix(path.clone()));
        }
        let host = self.host.as_deref()?;
        let is_bare_ipv6 = host.contains(':') && !host.starts_with('[');
        let host = if is_bare_ipv6 { format!("[{host}]") } else { host.to_owned() };
        Some(Address::Tcp { host, port: self.port?, tls: self.tls })
    }
}

impl Listener {
    /// Where a client on the same machine reaches the listener; `None` if it has neither a path nor a port.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        if let Some(path) = &self.path {
            return Some(Address::Unix(path.clone()));
        }
        let address = self.bind_addresses.iter().find(|address| !address.is_unspecified());
        let host = match address {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            Some(address) => address.to_string(),
            None => "127.0.0.1".to_owned(),
        };
        Some(Address::Tcp { host, port: self.port?, tls: self.tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OneOrMany, section::defaults};

    fn unbound() -> Listener {
        defaults()
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let check = |instance: Instance, text: &str| {
            let address = instance.address().expect("it has an address");
            assert_eq!(address.to_string(), text);
            assert_eq!(Address::parse(text), Some(address));
        };
        let tcp =
            |host: &str, tls| Instance { host: Some(host.to_owned()), port: Some(9000), path: None, tls };
        check(tcp("localhost", false), "http://localhost:9000");
        check(tcp("worker.internal", true), "https://worker.internal:9000");
        check(tcp("::1", false), "http://[::1]:9000");
        check(tcp("[::1]", false), "http://[::1]:9000");
        check(
            Instance { host: None, port: None, path: Some("/run/myelin/w1.sock".into()), tls: false },
            "unix:/run/myelin/w1.sock",
        );
        for text in ["", "localhost:9000", "ftp://localhost:9000", "http://localhost", "http://[::1]"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_listener_is_reached_at_its_own_address_or_else_on_loopback() {
        let check = |addresses: &[&str], text: &str| {
            let listener = Listener {
                port: Some(8008),
                bind_addresses: OneOrMany(addresses.iter().map(|address| address.parse().unwrap()).collect()),
                ..unbound()
            };
            assert_eq!(listener.address().map(|address| address.to_string()).as_deref(), Some(text));
        };
        check(&["192.0.2.1"], "http://192.0.2.1:8008");
        check(&["::1"], "http://[::1]:8008");
        check(&["0.0.0.0", "192.0.2.1"], "http://192.0.2.1:8008");
        check(&["::", "0.0.0.0"], "http://127.0.0.1:8008");
        let socket = Listener { path: Some("/run/s".into()), ..unbound() };
        assert_eq!(socket.address(), Some(Address::Unix("/run/s".into())));
        assert_eq!(unbound().address(), None);
    }
}
