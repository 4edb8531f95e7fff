//! The other processes of the server, spoken to over their `replication` listeners.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use myelin_config::{Address, Config, ResourceName, Secret};
use myelin_http::{REQUEST_ID, RawResponse, RequestHead};
use myelin_replication::ReplicationRequest;
use myelin_storage::tls::{Authorities, ServerCertificate, TlsOptions};
use parking_lot::Mutex;
use reqwest::{
    Client, ClientBuilder, Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};

/// Says who is asking: the secret of the server's processes.
pub(crate) const SECRET: HeaderName = HeaderName::from_static("x-myelin-secret");
/// The address of the client whose request is passed on.
pub(crate) const CLIENT_ADDRESS: HeaderName = HeaderName::from_static("x-myelin-client-address");
/// In an answer: the request is not this process's to serve. Names the process whose it is, or nobody.
pub(crate) const ELSEWHERE: HeaderName = HeaderName::from_static("x-myelin-elsewhere");
/// The process that a request is for, where that is not the one that it is sent to: whose sender does not reach it. It is passed on
/// without this, so it goes no farther.
pub(crate) const THROUGH: HeaderName = HeaderName::from_static("x-myelin-through-to");
/// In an answer: what was passed on through this process may or may not have been served.
pub(crate) const LOST: HeaderName = HeaderName::from_static("x-myelin-lost");
/// Requests that are passed on have this before their path.
pub(crate) const FORWARD: &str = "/_myelin/forward";

/// How long a process may take to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
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

/// What is said of a request beside itself.
struct Passing<'a> {
    path: &'a str,
    client: Option<HeaderValue>,
    /// The process that is to be asked in the end.
    through_to: Option<&'a str>,
}

/// What became of a request that was passed on.
pub(crate) enum Passed {
    /// An answer for the client.
    Answered(Answered),
    /// The process says that another has to serve it, and maybe which.
    Elsewhere(Option<String>),
    /// Nothing was sent, and why.
    NotReached(String),
    /// It may or may not have been served, and why that is not known.
    Lost(String),
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

impl Answered {
    /// The answer as it is passed back.
    pub fn into_response(self) -> RawResponse {
        const PASSED: [HeaderName; 3] =
            [http::header::RETRY_AFTER, http::header::LOCATION, http::header::CACHE_CONTROL];
        let mut response = RawResponse::json(self.body).with_status(self.status);
        if let Some(content_type) = self.headers.get(http::header::CONTENT_TYPE) {
            response = response.with_header(http::header::CONTENT_TYPE, content_type.clone());
        }
        for name in PASSED {
            if let Some(value) = self.headers.get(&name) {
                response = response.with_header(name, value.clone());
            }
        }
        response
    }
}

impl Peers {
    /// The peers that the configuration names.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let workers = &config.workers;
        let known = workers.instance_map.iter();
        let known = known.filter_map(|(name, instance)| Some((name.clone(), instance.address()?)));
        let secret = workers.worker_replication_secret.as_ref().map(secret_header).transpose()?;
        Ok(Self(Arc::new(Inner {
            secret,
            known: known.collect(),
            tcp: tcp_client()?,
            unix: Mutex::default(),
        })))
    }

    /// Where the others reach this process, for those whose configuration does not name it (yet).
    pub fn own_address(&self, config: &Config) -> Option<Address> {
        let name = config.process().name;
        let listening = || {
            let mut listeners = config.http.listeners.iter();
            listeners.find(|listener| listener.serves(ResourceName::Replication))?.address()
        };
        self.0.known.get(&name).cloned().or_else(listening)
    }

    /// Where a process is: by our configuration, or else by what it says of itself.
    pub fn address(&self, name: &str, announced: Option<&str>) -> Option<Address> {
        self.0.known.get(name).cloned().or_else(|| announced.and_then(Address::parse))
    }

    /// Passes a client's request on, to be served there or, if that names another process, to be passed on to that one.
    pub async fn pass_on(&self, to: &Address, head: &RequestHead, through_to: Option<&str>) -> Passed {
        let client = head.remote_addr().and_then(|address| address.to_string().parse().ok());
        let path = head.uri().path_and_query().map_or("/", |path| path.as_str());
        self.try_pass_on(to, head, Passing { path, client, through_to }).await
    }

    /// Passes on what another process passed on to this one, since it does not reach `to`.
    pub async fn pass_farther(&self, to: &Address, head: &RequestHead) -> Passed {
        let client = head.headers().get(CLIENT_ADDRESS).cloned();
        let path = head.uri().path_and_query().and_then(|path| path.as_str().strip_prefix(FORWARD));
        self.try_pass_on(to, head, Passing { path: path.unwrap_or("/"), client, through_to: None }).await
    }

    async fn try_pass_on(&self, to: &Address, head: &RequestHead, passing: Passing<'_>) -> Passed {
        match self.send(to, head, passing).await {
            Ok(answer) if answer.headers.contains_key(LOST) => {
                Passed::Lost("the process in between had no answer".to_owned())
            }
            Ok(answer) => match answer.headers.get(ELSEWHERE) {
                Some(holder) => Passed::Elsewhere(holder.to_str().ok().map(str::to_owned)),
                None => Passed::Answered(answer),
            },
            Err(error) if error.is_connect() || error.is_builder() => Passed::NotReached(error.to_string()),
            Err(error) => Passed::Lost(error.to_string()),
        }
    }

    async fn send(
        &self,
        to: &Address,
        head: &RequestHead,
        passing: Passing<'_>,
    ) -> Result<Answered, reqwest::Error> {
        let Passing { path, client: client_address, through_to } = passing;
        let (client, base) = self.client(to)?;
        let mut headers = passed_headers(head.headers());
        if let Some(secret) = &self.0.secret {
            headers.insert(SECRET, secret.clone());
        }
        if let Some(address) = client_address {
            headers.insert(CLIENT_ADDRESS, address);
        }
        if let Some(name) = through_to.and_then(|name| HeaderValue::from_str(name).ok()) {
            headers.insert(THROUGH, name);
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
        let client = match to {
            Address::Tcp { .. } => self.0.tcp.clone(),
            Address::Unix(path) => {
                let mut clients = self.0.unix.lock();
                match clients.get(path) {
                    Some(client) => client.clone(),
                    None => clients.entry(path.clone()).insert_entry(unix_client(path)?).get().clone(),
                }
            }
        };
        Ok((client, to.base_url()))
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

fn tcp_client() -> anyhow::Result<Client> {
    let tls = TlsOptions {
        server_certificate: ServerCertificate::TrustedForHost,
        authorities: Some(Authorities::System),
        client_certificate: None,
    };
    let tls = tls.client_config().context("the certificates of this system")?;
    client().tls_backend_preconfigured(tls).build().context("a client for the other processes")
}

fn unix_client(path: &std::path::Path) -> Result<Client, reqwest::Error> {
    client().unix_socket(path).build()
}

/// What is the same wherever a process is.
fn client() -> ClientBuilder {
    Client::builder()
        .connect_timeout(CONNECT_PATIENCE)
        .timeout(ANSWER_PATIENCE)
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
}

/// The headers that mean something to a handler; not those of the connection, nor those that only we may set.
fn passed_headers(headers: &http::HeaderMap) -> HeaderMap {
    const PASSED: [HeaderName; 5] = [
        REQUEST_ID,
        http::header::AUTHORIZATION,
        http::header::CONTENT_TYPE,
        http::header::USER_AGENT,
        http::header::ACCEPT_LANGUAGE,
    ];
    let passed = PASSED.into_iter().filter_map(|name| Some((name.clone(), headers.get(&name)?.clone())));
    passed.collect()
}
