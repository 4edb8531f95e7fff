//! Where a process listens, and what it serves there.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use tokio::net::TcpSocket;

use super::tls::TlsError;

/// One entry of `listeners` in the configuration.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// The addresses. All serve the same.
    pub bind: Vec<Bind>,
    /// The certificate, if TLS is spoken on the TCP addresses.
    pub tls: Option<TlsFiles>,
    /// Whether a reverse proxy *sets* `X-Forwarded-For` to the client's address. It must not append to what the
    /// client sent: as with Synapse, the first address counts.
    pub x_forwarded: bool,
    /// What is served. `/health` is, in any case.
    pub resources: Vec<ServedResource>,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// A TCP port; 0 lets the system choose.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix {
        /// The socket's file. One that a dead process left is replaced.
        path: PathBuf,
        /// Its permissions, for instance `0o666`.
        mode: u32,
    },
}

/// The files of a certificate, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, followed by those that lead to the root.
    pub certificate: PathBuf,
    /// Its key.
    pub private_key: PathBuf,
}

/// A resource on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedResource {
    /// Which one.
    pub resource: Resource,
    /// Whether big answers are compressed for clients that take gzip. Better left to the reverse proxy.
    pub compress: bool,
}

impl From<Resource> for ServedResource {
    fn from(resource: Resource) -> Self {
        Self { resource, compress: false }
    }
}

/// A set of routes, as the configuration names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// The client-server API and the admin API. Brings `media` and `static` along.
    Client,
    /// The consent pages.
    Consent,
    /// The server-server API. Brings `keys`, `media` and `openid` along.
    Federation,
    /// The server's signing keys.
    Keys,
    /// The media repository.
    Media,
    /// Prometheus metrics.
    Metrics,
    /// The part of the federation API that answers for OpenID tokens.
    Openid,
    /// What the processes of one server ask each other.
    Replication,
    /// Static pages.
    Static,
    /// Liveness and readiness.
    Health,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Client,
        Self::Consent,
        Self::Federation,
        Self::Keys,
        Self::Media,
        Self::Metrics,
        Self::Openid,
        Self::Replication,
        Self::Static,
        Self::Health,
    ];

    /// The name in `resources: [{names: […]}]`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Consent => "consent",
            Self::Federation => "federation",
            Self::Keys => "keys",
            Self::Media => "media",
            Self::Metrics => "metrics",
            Self::Openid => "openid",
            Self::Replication => "replication",
            Self::Static => "static",
            Self::Health => "health",
        }
    }

    /// The resource of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.name() == name)
    }

    /// Whether a listener that has `self` serves `other` too.
    pub(super) fn brings(self, other: Self) -> bool {
        self == other
            || match self {
                Self::Client => matches!(other, Self::Media | Self::Static),
                Self::Federation => matches!(other, Self::Keys | Self::Media | Self::Openid),
                _ => false,
            }
    }

    /// Whether pages of other origins may read the answers. Not those that are for operators and our own processes.
    pub(super) fn is_for_browsers(self) -> bool {
        !matches!(self, Self::Metrics | Self::Replication | Self::Health)
    }
}

/// A listener can't be started. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody else has the address.
    #[error(
        "{address} is already in use: stop the process that has it, or give this listener another address"
    )]
    InUse {
        /// The address.
        address: String,
    },
    /// The system does not let us.
    #[error(
        "no permission to listen on {address}: ports below 1024 need CAP_NET_BIND_SERVICE, sockets a writable folder"
    )]
    Forbidden {
        /// The address.
        address: String,
    },
    /// The address is not one of this machine.
    #[error("{address} is not an address of this machine")]
    NotOurs {
        /// The address.
        address: String,
    },
    /// There is a file where the socket should be.
    #[error("{} exists and is not a socket: remove it, or give this listener another path", .0.display())]
    NotASocket(PathBuf),
    /// Anything else that the system may say.
    #[error("can't listen on {address}: {error}")]
    Io {
        /// The address.
        address: String,
        /// What the system says.
        error: io::Error,
    },
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A process that listens nowhere serves nobody.
    #[error("no listener has an address")]
    NoListeners,
}

impl StartError {
    fn io(address: &impl fmt::Display, error: io::Error) -> Self {
        let address = address.to_string();
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::Forbidden { address },
            io::ErrorKind::AddrNotAvailable => Self::NotOurs { address },
            _ => Self::Io { address, error },
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "port {} of {}", address.port(), address.ip()),
            Self::Unix { path, .. } => write!(f, "the socket {}", path.display()),
        }
    }
}

/// A socket that is bound but not yet served.
pub(super) enum Bound {
    Tcp(std::net::TcpListener, SocketAddr),
    Unix(UnixListener, UnixSocket),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, address) => address.fmt(f),
            Self::Unix(_, socket) => socket.path.display().fmt(f),
        }
    }
}

/// The file of a socket of ours, which goes when we go.
pub(super) struct UnixSocket {
    path: PathBuf,
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Another process may have replaced it already.
        let _ = fs::remove_file(&self.path);
    }
}

pub(super) fn bind_all(addresses: &[Bind]) -> Result<Vec<Bound>, StartError> {
    let mut bound = Vec::new();
    for address in in_order(addresses) {
        match address {
            Bind::Tcp(tcp) => match bind_tcp(*tcp) {
                Ok((listener, address)) => bound.push(Bound::Tcp(listener, address)),
                Err(error) if is_covered(*tcp, &error, addresses) => {
                    tracing::debug!(%address, %error, "covered by the other wildcard address");
                }
                Err(error) => return Err(StartError::io(address, error)),
            },
            Bind::Unix { path, mode } => {
                let listener = bind_unix(address, path, *mode)?;
                bound.push(Bound::Unix(listener, UnixSocket { path: path.clone() }));
            }
        }
    }
    Ok(bound)
}

/// `::` first: Linux lets it listen for IPv4 too, but not if `0.0.0.0` is taken.
fn in_order(addresses: &[Bind]) -> Vec<&Bind> {
    let is_dual = |address: &&Bind| matches!(address, Bind::Tcp(tcp) if tcp.ip() == Ipv6Addr::UNSPECIFIED);
    let (dual, others): (Vec<_>, Vec<_>) = addresses.iter().partition(is_dual);
    dual.into_iter().chain(others).collect()
}

/// Synapse's default names both wildcard addresses. `::` takes IPv4 along where there is IPv6, and where there is
/// none `0.0.0.0` is all that can be had.
fn is_covered(address: SocketAddr, error: &io::Error, all: &[Bind]) -> bool {
    let (other, harmless) = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), error.kind() == io::ErrorKind::AddrInUse)
        }
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            let taken = matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied);
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), !taken)
        }
        _ => return false,
    };
    harmless && all.contains(&Bind::Tcp(SocketAddr::new(other, address.port())))
}

fn bind_tcp(address: SocketAddr) -> io::Result<(std::net::TcpListener, SocketAddr)> {
    const BACKLOG: u32 = 2048;

    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for connections of the last process to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?.into_std()?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn bind_unix(bind: &Bind, path: &Path, mode: u32) -> Result<UnixListener, StartError> {
    let failed = |error| StartError::io(bind, error);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(StartError::NotASocket(path.to_owned()));
        }
        Ok(_) => match UnixStream::connect(path) {
            // Nobody answers: left by a process that died.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed)?;
            }
            _ => return Err(StartError::InUse { address: bind.to_string() }),
        },
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_wildcard_addresses_cover_each_other_and_nothing_else_does() {
        let bind = |address: &str| Bind::Tcp(address.parse().unwrap());
        let all = [bind("0.0.0.0:8008"), bind("127.0.0.1:8008"), bind("[::]:8008")];
        assert_eq!(in_order(&all), [&all[2], &all[0], &all[1]]);

        let check = |address: &str, kind: io::ErrorKind, all: &[Bind], covered: bool| {
            let error = io::Error::from(kind);
            assert_eq!(is_covered(address.parse().unwrap(), &error, all), covered, "{address} {kind}");
        };
        check("0.0.0.0:8008", io::ErrorKind::AddrInUse, &all, true);
        check("0.0.0.0:8008", io::ErrorKind::PermissionDenied, &all, false);
        check("0.0.0.0:8009", io::ErrorKind::AddrInUse, &all, false);
        check("0.0.0.0:8008", io::ErrorKind::AddrInUse, &all[..2], false);
        check("127.0.0.1:8008", io::ErrorKind::AddrInUse, &all, false);
        check("[::]:8008", io::ErrorKind::Unsupported, &all, true);
        check("[::]:8008", io::ErrorKind::AddrInUse, &all, false);
        check("[::]:8008", io::ErrorKind::Unsupported, &all[1..], false);
    }
}
