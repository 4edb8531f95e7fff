//! Listeners: what comes in over TCP and unix sockets goes through a [`Service`] to its handler.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::ServerHandle,
    middleware::{Compress, Condition},
    web,
};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use crate::{
    ApiError, Draining, RawResponse, Router,
    request::{Inner, RequestHead},
    response::ResponseBody,
    routes::{Destination, Route},
};

/// What bodies may have at most, unless an endpoint says otherwise: an event of 64 KiB with room for its wrapping.
const DEFAULT_BODY_LIMIT: usize = 2 * 1024 * 1024;
/// Answers longer than this count as slow in the log. Long polls don't.
const SLOW: Duration = Duration::from_secs(5);

/// One address to listen on, and how.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name in errors and logs.
    pub name: String,
    /// Where.
    pub bind: Bind,
    /// Whether the client's address stands in `X-Forwarded-For`, because a reverse proxy is in front.
    pub x_forwarded: bool,
    /// Whether answers are compressed for clients that accept it.
    pub compress: bool,
    /// The APIs that are served, in the order in which they are asked for a path.
    pub routers: Vec<Router>,
}

/// An address.
#[derive(Clone, Debug)]
pub enum Bind {
    /// TCP on these addresses.
    Tcp(Vec<SocketAddr>),
    /// A unix socket; what an earlier process left at the path is removed.
    Unix {
        /// Where the socket is.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// Why a listener can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address} (listener {name}): {cause}{}", hint(.cause))]
pub struct ListenError {
    name: String,
    address: String,
    cause: io::Error,
}

fn hint(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "; another process listens there: stop it, or choose another port",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need a privilege, and unix sockets a writable folder"
        }
        _ => "",
    }
}

/// Listeners that are open.
#[derive(Debug)]
pub struct Server {
    handles: Vec<ServerHandle>,
    tasks: Vec<JoinHandle<io::Result<()>>>,
    draining: Draining,
}

impl Server {
    /// Opens the listeners, each with `workers` threads of its own. They serve until [`Server::stop`].
    ///
    /// Handlers run on the tokio runtime that calls this, so that one that computes for long holds up no connection.
    ///
    /// # Errors
    /// If an address can't be listened on.
    pub fn start(listeners: Vec<Listener>, workers: usize, draining: Draining) -> Result<Self, ListenError> {
        let runtime = tokio::runtime::Handle::current();
        let mut server = Self { handles: Vec::new(), tasks: Vec::new(), draining: draining.clone() };
        for listener in listeners {
            let service = Arc::new(Service {
                routers: listener.routers,
                x_forwarded: listener.x_forwarded,
                draining: draining.clone(),
                runtime: runtime.clone(),
            });
            let compress = listener.compress;
            let http = HttpServer::new(move || {
                let service = service.clone();
                App::new().wrap(Condition::new(compress, Compress::default())).default_service(web::to(
                    move |request: HttpRequest, payload: web::Payload| {
                        let service = service.clone();
                        async move { service.serve(request, payload).await }
                    },
                ))
            })
            .workers(workers)
            // Longer than what proxies hold idle connections for, so that it is they who close them.
            .keep_alive(Duration::from_secs(75))
            .client_request_timeout(Duration::from_secs(15))
            .shutdown_timeout(9)
            .disable_signals();
            let failed = |address: &str, cause| ListenError {
                name: listener.name.clone(),
                address: address.to_owned(),
                cause,
            };
            let http = match &listener.bind {
                Bind::Tcp(addresses) => addresses.iter().try_fold(http, |http, address| {
                    let socket =
                        tcp_listener(*address).map_err(|cause| failed(&address.to_string(), cause))?;
                    http.listen(socket).map_err(|cause| failed(&address.to_string(), cause))
                })?,
                Bind::Unix { path, mode } => {
                    let address = path.display().to_string();
                    let socket = unix_listener(path, *mode).map_err(|cause| failed(&address, cause))?;
                    http.listen_uds(socket).map_err(|cause| failed(&address, cause))?
                }
            };
            let running = http.run();
            server.handles.push(running.handle());
            server.tasks.push(tokio::spawn(running));
        }
        Ok(server)
    }

    /// Stops: no new connections, long polls are told to answer, and whoever is being served has some seconds to end.
    pub async fn stop(self) {
        self.draining.start();
        futures_util::future::join_all(self.handles.iter().map(|handle| handle.stop(true))).await;
        for task in self.tasks {
            if let Ok(Err(error)) = task.await {
                warn!(%error, "a listener ended badly");
            }
        }
    }
}

/// A listening socket. IPv6 addresses take no IPv4 connections, so that `::` and `0.0.0.0` can be given together.
fn tcp_listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn unix_listener(path: &Path, mode: u32) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::{fs::PermissionsExt as _, net};
    // A socket that nobody listens on any more would refuse us for ever; a living one must not be taken away.
    if net::UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What a listener does with a request.
struct Service {
    routers: Vec<Router>,
    x_forwarded: bool,
    draining: Draining,
    runtime: tokio::runtime::Handle,
}

impl Service {
    async fn serve(&self, request: HttpRequest, payload: web::Payload) -> HttpResponse {
        let arrived = Instant::now();
        let cors =
            request.path().starts_with("/_matrix/") || request.path().starts_with("/.well-known/matrix/");
        // Browsers ask before every call; any path may be asked for.
        let (endpoint, answer) = if request.method() == actix_web::http::Method::OPTIONS {
            ("preflight".into(), RawResponse::empty(http::StatusCode::NO_CONTENT))
        } else {
            self.route(&request, payload, arrived).await
        };
        let (status, took) = (answer.status().as_u16(), arrived.elapsed());
        let labels = [("endpoint", endpoint.to_string()), ("status", status.to_string())];
        metrics::histogram!("myelin_http_request_seconds", &labels).record(took.as_secs_f64());
        debug!(method = %request.method(), endpoint = &*endpoint, status, ?took, "answered");
        to_actix(answer, cors, request.method() == actix_web::http::Method::HEAD)
    }

    async fn route(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        arrived: Instant,
    ) -> (Arc<str>, RawResponse) {
        let unknown = |error: ApiError| ("unknown".into(), error.into_response());
        let Ok(method) = http::Method::from_bytes(request.method().as_str().as_bytes()) else {
            return unknown(ApiError::unrecognized());
        };
        let (route, path_args) = match self.find(&method, request.uri().path()) {
            Ok(found) => found,
            Err(error) => return unknown(error),
        };
        let endpoint = route.endpoint.clone();
        let body = match read_body(payload, route.body_limit.unwrap_or(DEFAULT_BODY_LIMIT)).await {
            Ok(body) => body,
            Err(error) => return (endpoint, error.into_response()),
        };
        let head = match self.head(request, method, body, &route, arrived) {
            Ok(head) => head,
            Err(error) => return (endpoint, error.into_response()),
        };
        let answer = std::panic::AssertUnwindSafe((route.handler)(head, path_args)).catch_unwind();
        // Not on this thread, which has many connections to serve. Dropped when the client leaves only if nothing is
        // changed by that: a write goes on to its end.
        let task = self.runtime.spawn(answer);
        let abort = AbortOnDrop(request.method().is_safe().then(|| task.abort_handle()));
        let answer = match task.await {
            Ok(Ok(Ok(answer))) => answer,
            Ok(Ok(Err(error))) => error.into_response(),
            Ok(Err(_)) | Err(_) => {
                ApiError::internal(format!("the handler of {endpoint} panicked")).into_response()
            }
        };
        drop(abort);
        if arrived.elapsed() > SLOW && !route.long_poll {
            warn!(endpoint = &*endpoint, took = ?arrived.elapsed(), "a slow request");
        }
        (endpoint, answer)
    }

    fn find(&self, method: &http::Method, path: &str) -> Result<(Arc<Route>, Vec<String>), ApiError> {
        let mut wrong_method = false;
        for router in &self.routers {
            match router.find(method, path)? {
                Destination::Route(route, path_args) => return Ok((route.clone(), path_args)),
                Destination::WrongMethod => wrong_method = true,
                Destination::Unknown => {}
            }
        }
        Err(if wrong_method { ApiError::wrong_method() } else { ApiError::unrecognized() })
    }

    fn head(
        &self,
        request: &HttpRequest,
        method: http::Method,
        body: Bytes,
        route: &Route,
        arrived: Instant,
    ) -> Result<RequestHead, ApiError> {
        // Path and query only, as handlers expect it; what else clients put into the request line is of no use.
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let uri =
            target.parse().map_err(|_| ApiError::invalid_param("The request's path can't be understood"))?;
        let mut headers = http::HeaderMap::with_capacity(request.headers().len());
        for (name, value) in request.headers() {
            let name = http::HeaderName::from_bytes(name.as_ref());
            if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(value.as_bytes())) {
                headers.append(name, value);
            }
        }
        Ok(RequestHead::new(Inner {
            method,
            uri,
            remote_addr: self.remote_addr(request),
            headers,
            body,
            arrived,
            endpoint: route.endpoint.clone(),
            draining: self.draining.clone(),
            any_body: route.any_body,
        }))
    }

    /// The client's address. Behind a proxy it is the one that the nearest proxy saw, the last of the header: what
    /// stands before it, anybody may have written.
    fn remote_addr(&self, request: &HttpRequest) -> Option<IpAddr> {
        let forwarded = || {
            let header = request.headers().get_all("x-forwarded-for").last()?.to_str().ok()?;
            header.rsplit(',').next()?.trim().parse().ok()
        };
        let peer = || request.peer_addr().map(|address| address.ip());
        if self.x_forwarded { forwarded().or_else(peer) } else { peer() }
    }
}

struct AbortOnDrop(Option<tokio::task::AbortHandle>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

async fn read_body(mut payload: web::Payload, limit: usize) -> Result<Bytes, ApiError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| ApiError::bad_json("The request's body ended too early"))?;
        if body.len() + chunk.len() > limit {
            return Err(ApiError::too_large(format!("The request's body is larger than {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Turns the answer into actix's, which speaks an older version of the `http` crate.
fn to_actix(answer: RawResponse, cors: bool, head_only: bool) -> HttpResponse {
    let (status, headers, body) = answer.into_parts();
    let status = actix_web::http::StatusCode::from_u16(status.as_u16())
        .unwrap_or(actix_web::http::StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    for (name, value) in &headers {
        response.append_header((name.as_str(), value.as_bytes()));
    }
    if cors {
        // <https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients>
        response
            .insert_header(("Access-Control-Allow-Origin", "*"))
            .insert_header(("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS"))
            .insert_header(("Access-Control-Allow-Headers", "X-Requested-With, Content-Type, Authorization"));
    }
    match body {
        ResponseBody::Whole(_) if head_only => response.finish(),
        ResponseBody::Whole(bytes) => response.body(bytes),
        ResponseBody::Stream(stream) => response.streaming(stream),
    }
}
