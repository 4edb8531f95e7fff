//! The other processes of the server, spoken to over their `replication` listeners.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use myelin_config::{Config, Instance, ListenerKind, ResourceName, Secret};
use myelin_http::RequestHead;
use myelin_replication::ReplicationRequest;
use myelin_storage::tls::{Authorities, ServerCertificate, TlsOptions};
use parking_lot::Mutex;
use reqwest::{
    Client, Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};

/// Says who is asking: the secret of the server's processes.
pub(crate) const SECRET: HeaderName = HeaderName::from_static("x-myelin-secret");
/// The address of the client whose request is passed on.
pub(crate) const CLIENT_ADDRESS: HeaderName = HeaderName::from_static("x-myelin-client-address");
/// In an answer: the request is not this process's to serve. Names the process whose it is, or nobody.
pub(crate) const ELSEWHERE: HeaderName = HeaderName::from_static("x-myelin-elsewhere");
/// Requests that are passed on have this before their path.
pub(crate) const FORWARD: &str = "/_myelin/forward";

/// How long a process may take to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a process may take to answer a request that was passed on. Long polls are not.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// How long an idle connection is kept: shorter than the listener keeps it, so that none is closed while it is used.
const IDLE: Duration = Duration::from_secs(30);

/// How to reach the other processes. Clones are the same.
#[derive(Clone)]
pub(crate) struct Peers(Arc<Inner>);

struct Inner {
    secret: Option<HeaderValue>,
    known: HashMap<String, Address>,
    tcp: Client,
    /// A client for each unix socket.
    unix: Mutex<HashMap<PathBuf, Client>>,
}

/// Where a process listens for the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Http(String),
    Unix(PathBuf),
}

impl Address {
    fn of(instance: &Instance) -> Option<Self> {
        if let Some(path) = &instance.path {
            return Some(Self::Unix(path.clone()));
        }
        let (host, port) = (instance.host.as_deref()?, instance.port?);
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let scheme = if instance.tls { "https" } else { "http" };
        Some(Self::Http(format!("{scheme}://{host}:{port}")))
    }

    fn parse(text: &str) -> Self {
        match text.strip_prefix("unix:") {
            Some(path) => Self::Unix(path.into()),
            None => Self::Http(text.to_owned()),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What became of a request that was passed on.
pub(crate) enum Passed {
    /// An answer for the client.
    Answered(Answered),
    /// The process says that another has to serve it, and maybe which.
    Elsewhere(Option<String>),
    /// Nothing was sent.
    NotReached(reqwest::Error),
    /// It may or may not have been served.
    Lost(reqwest::Error),
}

/// What became of a typed request.
pub(crate) enum Asked<T> {
    Answered(T),
    /// The process was not reached, or says that another has to do it: to be tried again.
    Again,
    Refused(String),
}

/// An answer of another process.
pub(crate) struct Answered {
    pub status: http::StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Peers {
    /// The peers that the configuration names.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let workers = &config.workers;
        let known = workers.instance_map.iter();
        let known = known.filter_map(|(name, instance)| Some((name.clone(), Address::of(instance)?)));
        let secret = workers.worker_replication_secret.as_ref().map(secret_header).transpose()?;
        Ok(Self(Arc::new(Inner {
            secret,
            known: known.collect(),
            tcp: client(None)?,
            unix: Mutex::default(),
        })))
    }

    /// Where the others reach this process, for those whose configuration does not name it (yet).
    pub fn own_address(&self, config: &Config) -> Option<Address> {
        let name = config.process().name;
        self.0.known.get(&name).cloned().or_else(|| {
            let serves = |listener: &&myelin_config::Listener| {
                listener.kind == ListenerKind::Http && listener.serves(ResourceName::Replication)
            };
            let listener = config.http.listeners.iter().find(serves)?;
            if let Some(path) = &listener.path {
                return Some(Address::Unix(path.clone()));
            }
            let address = listener.bind_addresses.iter().find(|address| !address.is_unspecified());
            let host = match address {
                Some(std::net::IpAddr::V6(address)) => format!("[{address}]"),
                Some(address) => address.to_string(),
                None => "127.0.0.1".to_owned(),
            };
            let scheme = if listener.tls { "https" } else { "http" };
            Some(Address::Http(format!("{scheme}://{host}:{}", listener.port?)))
        })
    }

    /// Where a process is: by our configuration, or else by what it says of itself.
    pub fn address(&self, name: &str, announced: Option<&str>) -> Option<Address> {
        self.0.known.get(name).cloned().or_else(|| announced.map(Address::parse))
    }

    /// Passes a client's request on.
    pub async fn pass_on(&self, to: &Address, head: &RequestHead) -> Passed {
        match self.try_pass_on(to, head).await {
            Ok(answer) => match answer.headers.get(ELSEWHERE) {
                Some(holder) => Passed::Elsewhere(holder.to_str().ok().map(str::to_owned)),
                None => Passed::Answered(answer),
            },
            Err(error) if error.is_connect() || error.is_builder() => Passed::NotReached(error),
            Err(error) => Passed::Lost(error),
        }
    }

    async fn try_pass_on(&self, to: &Address, head: &RequestHead) -> Result<Answered, reqwest::Error> {
        let (client, base) = self.client(to)?;
        let path = head.uri().path_and_query().map_or("/", |path| path.as_str());
        let mut headers = passed_headers(head.headers());
        if let Some(secret) = &self.0.secret {
            headers.insert(SECRET, secret.clone());
        }
        let client_address = head.remote_addr().and_then(|address| address.to_string().parse().ok());
        if let Some(address) = client_address {
            headers.insert(CLIENT_ADDRESS, address);
        }
        let method = if head.method() == Method::HEAD { Method::GET } else { head.method().clone() };
        let request = client.request(method, format!("{base}{FORWARD}{path}")).headers(headers);
        let response = request.body(head.body().clone()).send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Answered { status, headers, body: response.bytes().await? })
    }

    /// Asks a process something.
    pub async fn ask<R: ReplicationRequest>(&self, to: &Address, request: &R) -> Asked<R::Response> {
        let sent = async {
            let (client, base) = self.client(to)?;
            let mut sending = client.post(format!("{base}/_myelin/replication/{}", R::NAME)).json(request);
            if let Some(secret) = &self.0.secret {
                sending = sending.header(SECRET, secret.clone());
            }
            let response = sending.send().await?;
            let (status, elsewhere) = (response.status(), response.headers().contains_key(ELSEWHERE));
            Ok::<_, reqwest::Error>((status, elsewhere, response.bytes().await?))
        };
        match sent.await {
            Ok((_, true, _)) => Asked::Again,
            Ok((status, _, body)) if status.is_success() => match serde_json::from_slice(&body) {
                Ok(response) => Asked::Answered(response),
                Err(error) => Asked::Refused(format!("{}: {error}", R::NAME)),
            },
            Ok((status, ..)) if status.is_server_error() && R::MAY_REPEAT => Asked::Again,
            Ok((status, ..)) => Asked::Refused(format!("{}: {status}", R::NAME)),
            Err(error) if error.is_connect() || R::MAY_REPEAT => Asked::Again,
            Err(error) => Asked::Refused(format!("{}: {error}", R::NAME)),
        }
    }

    fn client(&self, to: &Address) -> Result<(Client, String), reqwest::Error> {
        match to {
            Address::Http(base) => Ok((self.0.tcp.clone(), base.clone())),
            Address::Unix(path) => {
                let mut clients = self.0.unix.lock();
                let client = match clients.get(path) {
                    Some(client) => client.clone(),
                    None => clients.entry(path.clone()).insert_entry(unix_client(path)?).get().clone(),
                };
                Ok((client, "http://localhost".to_owned()))
            }
        }
    }

    /// Whether a request comes from one of the server's own processes. Without a secret, whoever reaches the listener does: the
    /// configuration sees to it that only this machine can.
    pub fn is_ours(&self, secret: Option<&[u8]>) -> bool {
        use subtle::ConstantTimeEq as _;
        match &self.0.secret {
            None => true,
            Some(own) => secret.is_some_and(|given| bool::from(own.as_bytes().ct_eq(given))),
        }
    }
}

fn secret_header(secret: &Secret) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.expose())
        .context("worker_replication_secret: has characters that can't stand in a header")?;
    value.set_sensitive(true);
    Ok(value)
}

fn client(unix: Option<&std::path::Path>) -> anyhow::Result<Client> {
    let tls = TlsOptions {
        server_certificate: ServerCertificate::TrustedForHost,
        authorities: Some(Authorities::System),
        client_certificate: None,
    };
    let builder = Client::builder()
        .connect_timeout(CONNECT_PATIENCE)
        .timeout(ANSWER_PATIENCE)
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_backend_preconfigured(tls.client_config().context("the certificates of this system")?);
    let builder = match unix {
        Some(path) => builder.unix_socket(path),
        None => builder,
    };
    builder.build().context("a client for the other processes")
}

fn unix_client(path: &std::path::Path) -> Result<Client, reqwest::Error> {
    Client::builder()
        .connect_timeout(CONNECT_PATIENCE)
        .timeout(ANSWER_PATIENCE)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .unix_socket(path)
        .build()
}

/// The headers that mean something to a handler; not those of the connection, nor those that only we may set.
fn passed_headers(headers: &http::HeaderMap) -> HeaderMap {
    const PASSED: [HeaderName; 4] = [
        http::header::AUTHORIZATION,
        http::header::CONTENT_TYPE,
        http::header::USER_AGENT,
        http::header::ACCEPT_LANGUAGE,
    ];
    let passed = PASSED.into_iter().filter_map(|name| Some((name.clone(), headers.get(&name)?.clone())));
    passed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let check = |instance: Instance, text: &str| {
            let address = Address::of(&instance).expect("it has an address");
            assert_eq!(address.to_string(), text);
            assert_eq!(Address::parse(text), address);
        };
        let tcp =
            |host: &str, tls| Instance { host: Some(host.to_owned()), port: Some(9000), path: None, tls };
        check(tcp("localhost", false), "http://localhost:9000");
        check(tcp("worker.internal", true), "https://worker.internal:9000");
        check(tcp("::1", false), "http://[::1]:9000");
        check(
            Instance { host: None, port: None, path: Some("/run/myelin/w1.sock".into()), tls: false },
            "unix:/run/myelin/w1.sock",
        );
    }
}
