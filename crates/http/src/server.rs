//! Listeners, and the processes' way from start to stop.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    num::NonZeroUsize,
    sync::Arc,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use actix_http::{
    HttpServiceBuilder, KeepAlive, Protocol, Request, Response, TlsAcceptorConfig, body::BoxBody,
};
use actix_server::{ServerBuilder, ServerHandle};
use actix_service::{Service, ServiceFactory, ServiceFactoryExt as _, fn_service};
use tokio::net::UnixStream;

use crate::{drain::Draining, limits::InFlight, router::Router};

mod body;
mod listener;
mod service;
mod tls;
mod wire;

pub use self::{
    listener::{Bind, Listener, Resource, ServedResource, StartError, TlsFiles},
    tls::TlsError,
};
use self::{
    listener::{Bound, UnixSocket},
    service::{Shared, Site},
    tls::Certificate,
};

/// The limits and timeouts that all listeners of a process share.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Threads that read requests and write answers; handlers run on the shared runtime. Default: one per core. Where only
    /// other processes and monitoring ask, one suffices: each looks at the clock all the time, for each listener.
    pub threads: NonZeroUsize,
    /// Bytes of a request's body, where the endpoint has no limit of its own. Default: 200 events of 65,536 bytes,
    /// which is what a federation transaction may come to.
    pub body_limit: usize,
    /// Requests that are worked on at once; further ones get 503. Default: 2,000.
    pub max_working: usize,
    /// Long polls that wait at once; further ones get 503. Default: 100,000.
    pub max_waiting: usize,
    /// Connections per thread; further ones wait to be accepted. Default: 50,000.
    pub max_connections: usize,
    /// How long an idle connection is kept. Longer than reverse proxies keep theirs, so that it is they who close
    /// it, and not we while a request is on its way. Default: 75 s.
    pub keep_alive: Duration,
    /// How long a request's head may take to arrive. Default: 10 s.
    pub head_timeout: Duration,
    /// How long a request's body may take to arrive. Default: 60 s.
    pub body_timeout: Duration,
    /// How long requests under way have to finish once the process stops. Default: 8 s, which leaves the rest of the
    /// process two of the ten seconds that service managers are usually told to grant.
    pub drain_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            threads: available_parallelism().unwrap_or(NonZeroUsize::MIN),
            body_limit: 200 * 65_536,
            max_working: 2000,
            max_waiting: 100_000,
            max_connections: 50_000,
            keep_alive: Duration::from_secs(75),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(8),
        }
    }
}

/// What is served, before it is. [`Server::mount`] the APIs, then [`Server::start`] the listeners.
pub struct Server {
    options: ServerOptions,
    draining: Draining,
    mounted: Vec<(Resource, Router)>,
}

impl Server {
    /// Nothing mounted yet. Handlers see `draining` in their requests; [`RunningServer::stop`] starts it.
    pub fn new(options: ServerOptions, draining: Draining) -> Self {
        Self { options, draining, mounted: Vec::new() }
    }

    /// Serves these routes on each listener that has the resource.
    pub fn mount(&mut self, resource: Resource, router: Router) {
        self.mounted.push((resource, router));
    }

    /// Binds all addresses, then starts to serve. Either all listeners work or none does.
    ///
    /// Handlers run on the runtime in whose context this is called.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// # Errors
    ///
    /// If a listener can't be opened, or none is given.
    pub fn start(self, listeners: &[Listener]) -> Result<RunningServer, StartError> {
        let Self { options, draining, mounted } = self;
        let mut bound = Vec::new();
        for listener in listeners {
            let certificate = listener.tls.as_ref().map(Certificate::load).transpose()?;
            bound.push((listener, certificate.map(Arc::new), listener::bind_all(&listener.bind)?));
        }
        if bound.iter().all(|(_, _, sockets)| sockets.is_empty()) {
            return Err(StartError::NoListeners);
        }

        let shared = Arc::new(Shared {
            runtime: tokio::runtime::Handle::current(),
            in_flight: InFlight::new(options.max_working, options.max_waiting),
            draining: draining.clone(),
            body_limit: options.body_limit,
            body_timeout: options.body_timeout,
        });
        let mut builder = actix_server::Server::build()
            .workers(threads(&options, listeners))
            .max_concurrent_connections(options.max_connections)
            .shutdown_timeout(options.drain_timeout.as_secs().max(1))
            .disable_signals();
        let mut running = RunningState::default();
        for (listener, certificate, sockets) in bound {
            let site = Arc::new(Site::new(shared.clone(), listener, &mounted));
            running.certificates.extend(certificate.clone());
            for socket in sockets {
                let connection = Connection { options: options.clone(), draining: draining.clone() };
                builder = running.listen(builder, socket, &site, certificate.as_ref(), connection)?;
            }
        }

        let server = builder.run();
        let handle = server.handle();
        let task = tokio::spawn(server);
        Ok(RunningServer { handle, task, shared, options, state: running })
    }
}

/// How many threads these listeners need.
fn threads(options: &ServerOptions, listeners: &[Listener]) -> usize {
    let mut resources = listeners.iter().flat_map(|listener| &listener.resources);
    let is_internal =
        |resource| matches!(resource, Resource::Replication | Resource::Metrics | Resource::Health);
    match resources.all(|served| is_internal(served.resource)) {
        true => 1,
        false => options.threads.get().min(512),
    }
}

/// Listeners at work. Dropping this does not stop them: [`RunningServer::stop`] does.
pub struct RunningServer {
    handle: ServerHandle,
    task: tokio::task::JoinHandle<io::Result<()>>,
    shared: Arc<Shared>,
    options: ServerOptions,
    state: RunningState,
}

#[derive(Default)]
struct RunningState {
    addresses: Vec<SocketAddr>,
    certificates: Vec<Arc<Certificate>>,
    unix_sockets: Vec<UnixSocket>,
}

/// What each connection is told.
#[derive(Clone)]
struct Connection {
    options: ServerOptions,
    draining: Draining,
}

impl RunningServer {
    /// The TCP addresses, in the order of the listeners, with the ports that the system chose for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.state.addresses
    }

    /// Reads all certificates anew; connections that are made from now on get them. If one of them can't be read,
    /// it stays as it was and the others are replaced all the same.
    ///
    /// # Errors
    ///
    /// With the first certificate that can't be read.
    pub fn reload(&self) -> Result<(), TlsError> {
        let results: Vec<_> =
            self.state.certificates.iter().map(|certificate| certificate.reload()).collect();
        results.into_iter().collect()
    }

    /// Announces the end to long polls, accepts no more connections, and waits for the requests under way, up to
    /// [`ServerOptions::drain_timeout`]. Whether all have been answered.
    pub async fn stop(self) -> bool {
        let started = Instant::now();
        self.shared.draining.start();
        self.handle.stop(true).await;
        // Writes whose client went away are not seen by the listener, but they run to their end as well.
        let left = self.options.drain_timeout.saturating_sub(started.elapsed());
        let idle = tokio::time::timeout(left, self.shared.in_flight.idle()).await.is_ok();
        if let Err(error) = self.task.await.map_err(io::Error::other).and_then(|result| result) {
            tracing::warn!(%error, "the listeners did not stop cleanly");
        }
        drop(self.state);
        idle
    }
}

impl RunningState {
    fn listen(
        &mut self,
        builder: ServerBuilder,
        socket: Bound,
        site: &Arc<Site>,
        certificate: Option<&Arc<Certificate>>,
        connection: Connection,
    ) -> Result<ServerBuilder, StartError> {
        let site = site.clone();
        let name = socket.to_string();
        let result = match socket {
            Bound::Tcp(listener, address) => {
                self.addresses.push(address);
                match certificate.map(|certificate| certificate.server_config()) {
                    None => builder.listen(&name, listener, move || {
                        let site = site.clone();
                        connection
                            .service()
                            .finish(fn_service(move |request| serve(site.clone(), request)))
                            .tcp()
                    }),
                    Some(config) => {
                        let config = config?;
                        builder.listen(&name, listener, move || {
                            let site = site.clone();
                            let handshake = TlsAcceptorConfig::default().handshake_timeout(HANDSHAKE_TIMEOUT);
                            let service = connection.service().secure();
                            service
                                .finish(fn_service(move |request| serve(site.clone(), request)))
                                .rustls_0_23_with_config(config.clone(), handshake)
                        })
                    }
                }
            }
            Bound::Unix(listener, socket) => {
                self.unix_sockets.push(socket);
                builder.listen_uds(&name, listener, move || {
                    let site = site.clone();
                    let service = connection.service();
                    let service = service.finish(fn_service(move |request| serve(site.clone(), request)));
                    fn_service(async |stream: UnixStream| Ok((stream, Protocol::Http1, None)))
                        .and_then(service)
                })
            }
        };
        result.map_err(|error| StartError::Io { address: name, error })
    }
}

impl Connection {
    fn service<T, S>(&self) -> HttpServiceBuilder<T, S>
    where
        S: ServiceFactory<Request, Config = (), Error = Infallible, InitError = ()>,
        <S::Service as Service<Request>>::Future: 'static,
    {
        let draining = self.draining.clone();
        HttpServiceBuilder::default()
            .keep_alive(KeepAlive::Timeout(self.options.keep_alive))
            .client_request_timeout(self.options.head_timeout)
            .client_disconnect_timeout(Duration::from_secs(2))
            .tcp_nodelay(true)
            // Clients don't half-close; who closes has gone, and its long poll with it.
            .h1_allow_half_closed(false)
            .graceful_shutdown_signal(move || {
                let draining = draining.clone();
                async move {
                    draining.started().await;
                    tokio::time::sleep(LINGER).await;
                }
            })
    }
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long idle connections are kept once the process stops. A reverse proxy may be sending a request over one in this very
/// moment, and could not tell whether it was served if we closed it. What is answered until then says that it was the last.
const LINGER: Duration = Duration::from_secs(1);

async fn serve(site: Arc<Site>, request: Request) -> Result<Response<BoxBody>, Infallible> {
    Ok(service::serve(&site, request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_serves_clients_has_as_many_threads_as_there_may_be() {
        let options = ServerOptions { threads: NonZeroUsize::new(7).unwrap(), ..ServerOptions::default() };
        let serving = |resources: &[Resource]| Listener {
            bind: Vec::new(),
            tls: None,
            x_forwarded: false,
            resources: resources.iter().copied().map(ServedResource::from).collect(),
        };
        let internal = serving(&[Resource::Replication, Resource::Metrics]);
        let client = serving(&[Resource::Client]);
        assert_eq!(threads(&options, std::slice::from_ref(&internal)), 1);
        assert_eq!(threads(&options, &[internal, client]), 7);
    }
}
