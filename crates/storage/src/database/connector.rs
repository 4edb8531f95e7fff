//! Connecting to the one of several hosts that takes writes.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use deadpool_postgres::Connect;
use futures_util::future::select_ok;
use parking_lot::Mutex;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_postgres::{
    Client, Config, Error, NoTls, Socket,
    config::{Host, TargetSessionAttrs},
    tls::{MakeTlsConnect, TlsConnect},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::warn;

/// How long a host has for itself before the next one is asked, too. One that lost its power doesn't even refuse.
const STAGGER: Duration = Duration::from_millis(500);

/// What PostgreSQL is told of each connection.
///
/// A process that stands still, or is cut off, in the middle of a transaction must not keep its locks, which those who take its
/// duties over wait for; and one that is gone for good is to be noticed.
///
/// Our statements look rows up by their keys, many in one statement. Compiling them takes longer than running them, and
/// remembering rows that were looked up once costs more than it saves.
const SETTINGS: &str = "-c idle_in_transaction_session_timeout=5s -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 \
     -c tcp_keepalives_count=3 -c jit=off -c enable_memoize=off";

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes connections. Clones know of each other's.
#[derive(Clone)]
pub(super) struct Connector(Arc<Inner>);

struct Inner {
    /// One for each host.
    hosts: Vec<Config>,
    tls: Option<MakeRustlsConnect>,
    /// The host that took writes last.
    current: AtomicUsize,
    /// The connections that stand, with their hosts.
    open: Mutex<Vec<(usize, AbortHandle)>>,
}

impl Connector {
    pub(super) fn new(config: &Config, tls: Option<rustls::ClientConfig>) -> Self {
        let hosts = (0..config.get_hosts().len()).map(|index| for_host(config, index)).collect();
        let tls = tls.map(MakeRustlsConnect::new);
        Self(Arc::new(Inner { hosts, tls, current: AtomicUsize::new(0), open: Mutex::default() }))
    }

    pub(super) fn hosts(&self) -> usize {
        self.0.hosts.len()
    }
}

impl Connect for Connector {
    /// Only one host takes writes. The one that did last time is asked first, and all others if it does not answer at once.
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        Box::pin(async {
            let inner = &self.0;
            let count = inner.hosts.len();
            let first = inner.current.load(Ordering::Relaxed);
            let attempts = (0..count).map(|turn| {
                let index = (first + turn) % count;
                let wait = STAGGER * u32::try_from(turn).unwrap_or(u32::MAX);
                Box::pin(async move {
                    tokio::time::sleep(wait).await;
                    Ok::<_, Error>((index, inner.connect_to(index).await?))
                })
            });
            let ((index, (client, connection)), _) = select_ok(attempts).await?;
            inner.arrived(index, connection.abort_handle());
            Ok((client, connection))
        })
    }
}

impl Inner {
    async fn connect_to(&self, index: usize) -> Result<(Client, JoinHandle<()>), Error> {
        match &self.tls {
            Some(tls) => run(&self.hosts[index], tls.clone()).await,
            None => run(&self.hosts[index], NoTls).await,
        }
    }

    /// Notes a connection. After a fail-over those to the former host are of no use any more: what is under way there can't be
    /// committed, and may never be answered.
    fn arrived(&self, index: usize, connection: AbortHandle) {
        let mut open = self.open.lock();
        open.retain(|(_, connection)| !connection.is_finished());
        if self.current.swap(index, Ordering::Relaxed) != index {
            let former: Vec<_> = open.extract_if(.., |(host, _)| *host != index).collect();
            warn!(host = index + 1, given_up = former.len(), "another host of PostgreSQL takes writes now");
            former.iter().for_each(|(_, connection)| connection.abort());
        }
        open.push((index, connection));
    }
}

async fn run<T>(config: &Config, tls: T) -> Result<(Client, JoinHandle<()>), Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(tls).await?;
    let connection = tokio::spawn(async {
        if let Err(error) = connection.await {
            warn!(%error, "a connection to PostgreSQL broke");
        }
    });
    Ok((client, connection))
}

/// The same configuration for one of its hosts, which must take writes.
fn for_host(config: &Config, index: usize) -> Config {
    let mut one = Config::new();
    match &config.get_hosts()[index] {
        Host::Tcp(name) => one.host(name),
        Host::Unix(folder) => one.host_path(folder),
    };
    if let Some(address) = config.get_hostaddrs().get(index) {
        one.hostaddr(*address);
    }
    if let Some(port) = config.get_ports().get(index).or(config.get_ports().first()) {
        one.port(*port);
    }
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(dbname) = config.get_dbname() {
        one.dbname(dbname);
    }
    if let Some(name) = config.get_application_name() {
        one.application_name(name);
    }
    if let Some(timeout) = config.get_connect_timeout() {
        one.connect_timeout(*timeout);
    }
    if let Some(timeout) = config.get_tcp_user_timeout() {
        one.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    // The last one given counts.
    one.options(format!("{SETTINGS} {}", config.get_options().unwrap_or_default()).trim_end())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding())
        .target_session_attrs(TargetSessionAttrs::ReadWrite);
    one
}
