//! One request, from the socket and back.
//!
//! A listener's thread reads the request, finds the route and polls the handler once. What finds all it needs in
//! memory is done then. What has to wait goes on as a task of the shared runtime: it does not hold up the other
//! connections of its thread, and a write goes on to its end when its client hangs up. But a long poll that knows
//! from where on it waits stays on its thread, where its answer is short work.
//!
//! Why not a task from the start: waking a sleeping thread, and being woken by it, costs more than everything else.
//! On two cores a request with an access token took 27 to 51 µs of CPU that way and takes 14 to 17 µs this way, of
//! which 4 to 6 are ours and the rest the kernel's (`cargo bench -p myelin-http`).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use actix_http::{
    ConnectionType, ContentEncoding, Request, Response,
    body::{BodySize, BoxBody, MessageBody},
    encoding::Encoder,
    header as actix_header,
};
use http::{HeaderMap, Method, StatusCode, header};
use tokio::{runtime::Handle, task::JoinHandle};
use tracing::Instrument as _;

use super::{
    body::{self, Streamed},
    listener::{Listener, Resource},
    wire,
};
use crate::{
    drain::Draining,
    error::ApiError,
    limits::{InFlight, Place},
    observe::{Endpoint, Observation},
    request::{Inner, RequestHead},
    response::{RawResponse, ResponseBody},
    router::{Destination, Route, Router},
};

/// What all listeners of a process share.
pub(super) struct Shared {
    pub(super) runtime: Handle,
    pub(super) in_flight: InFlight,
    pub(super) draining: Draining,
    pub(super) body_limit: usize,
    pub(super) body_timeout: Duration,
}

/// What one listener serves.
pub(super) struct Site {
    shared: Arc<Shared>,
    routers: Vec<(Router, bool)>,
    x_forwarded: bool,
    cors: bool,
    unrecognized: Arc<Endpoint>,
}

impl Site {
    pub(super) fn new(shared: Arc<Shared>, listener: &Listener, mounted: &[(Resource, Router)]) -> Self {
        let serving = |resource: Resource| {
            let mut sources = listener.resources.iter().filter(|served| served.resource.brings(resource));
            let first = sources.next();
            // Probes are answered wherever they come.
            let compress =
                first.is_some_and(|served| served.compress || sources.any(|served| served.compress));
            (first.is_some() || resource == Resource::Health).then_some(compress)
        };
        let routers = mounted
            .iter()
            .filter_map(|(resource, router)| Some((router.clone(), serving(*resource)?)))
            .collect();
        Self {
            shared,
            routers,
            x_forwarded: listener.x_forwarded,
            cors: listener.resources.iter().any(|served| served.resource.is_for_browsers()),
            unrecognized: Arc::new(Endpoint::new("unrecognized".into(), false)),
        }
    }

    /// The first router that has the path decides.
    fn find(&self, method: &Method, path: &str) -> Result<(Arc<Route>, Vec<String>, bool), ApiError> {
        let mut wrong_method = false;
        for (router, compress) in &self.routers {
            match router.find(method, path)? {
                Destination::Route(route, path_args) => return Ok((route.clone(), path_args, *compress)),
                Destination::WrongMethod => wrong_method = true,
                Destination::Unknown => {}
            }
        }
        Err(if wrong_method { ApiError::wrong_method() } else { ApiError::unrecognized() })
    }
}

/// An answer on its way out.
enum Outgoing {
    Whole(StatusCode, HeaderMap, bytes::Bytes),
    Streamed(StatusCode, HeaderMap, Streamed),
}

pub(super) async fn serve(site: &Site, request: Request) -> Response<BoxBody> {
    let arrived = Instant::now();
    let method = wire::method(&request);
    // Browsers ask before they send; the endpoint's logic must not run
    // (https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients).
    if method == Method::OPTIONS {
        let answer = RawResponse::empty(StatusCode::NO_CONTENT);
        return respond(site, Outgoing::whole(answer), false);
    }
    let remote_addr = wire::remote_addr(&request, site.x_forwarded);
    let found = site.find(&method, request.uri().path());
    let endpoint = found.as_ref().map_or(&site.unrecognized, |(route, _, _)| &route.endpoint);
    let observation = Observation::new(endpoint.clone(), method.clone(), remote_addr, arrived);

    let (answer, compress) = match found {
        Ok((route, path_args, compress)) => {
            let compress = compress && wire::accepts_gzip(&request);
            (run(site, request, Arrival { method, remote_addr, arrived, route, path_args }).await, compress)
        }
        Err(error) => (Err(error), false),
    };
    let outgoing = answer.unwrap_or_else(|error| Outgoing::whole(error.into_response()));
    observation.finish(outgoing.status());
    respond(site, outgoing, compress)
}

/// A request whose route is known.
struct Arrival {
    method: Method,
    remote_addr: Option<std::net::IpAddr>,
    arrived: Instant,
    route: Arc<Route>,
    path_args: Vec<String>,
}

async fn run(site: &Site, mut request: Request, arrival: Arrival) -> Result<Outgoing, ApiError> {
    let Arrival { method, remote_addr, arrived, route, path_args } = arrival;
    let shared = &site.shared;
    // Before the body is read: overload should cost as little as it can.
    let place = shared.in_flight.enter(route.long_poll.is_some(), wire::whose(&request, remote_addr))?;
    let limit = route.body_limit.unwrap_or(shared.body_limit);
    if wire::content_length(&request).is_some_and(|length| length > limit) {
        return Err(body::too_large(limit));
    }
    let payload = request.take_payload();
    let body = match payload {
        actix_http::Payload::None => bytes::Bytes::new(),
        payload => body::read(payload, limit, shared.body_timeout).await?,
    };
    let wire::Head { method, uri, headers } = wire::head(&request, method)?;
    // Connections are served one request after the other, and this one's buffers can be used for the next.
    drop(request);

    let stays = route.long_poll.is_some_and(|from| names_parameter(uri.query(), from));
    let abandon = route.long_poll.is_some() || matches!(method, Method::GET | Method::HEAD);
    let head = RequestHead::new(Inner {
        method,
        uri,
        headers,
        body,
        remote_addr,
        arrived,
        endpoint: route.endpoint.name().clone(),
        draining: shared.draining.clone(),
        any_body: route.any_body,
    });
    let span = tracing::info_span!("request", endpoint = &**route.endpoint.name());
    let work = handle(shared.runtime.clone(), route.clone(), head, path_args, place).instrument(span);
    match begin(&shared.runtime, Box::pin(work)) {
        Begun::Done(answer) => answer,
        Begun::Panicked => Err(panicked(&route)),
        Begun::Waiting(work) if stays => stay(&shared.runtime, work, &route).await,
        Begun::Waiting(work) => finish_elsewhere(&shared.runtime, work, &route, abandon).await,
    }
}

/// What the first poll of a handler came to.
enum Begun {
    Done(Result<Outgoing, ApiError>),
    Waiting(Work),
    Panicked,
}

type Work = Pin<Box<dyn Future<Output = Result<Outgoing, ApiError>> + Send>>;

/// Polls a handler for the first time, here on the listener's thread. What finds all it needs in memory is done then,
/// and is spared two wake-ups of sleeping threads, which cost more than the rest of the request.
fn begin(runtime: &Handle, mut work: Work) -> Begun {
    // Timers, sockets and tasks that the handler makes belong to the shared runtime from the start.
    let _guard = runtime.enter();
    // If it has to wait it is polled again at once, in its task: nobody needs to be woken for this poll.
    let mut context = Context::from_waker(Waker::noop());
    match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut context))) {
        Ok(Poll::Ready(answer)) => Begun::Done(answer),
        Ok(Poll::Pending) => Begun::Waiting(work),
        Err(_) => Begun::Panicked,
    }
}

/// Whether a query has a parameter.
fn names_parameter(query: Option<&str>, name: &str) -> bool {
    let mut pairs = query.unwrap_or_default().split('&');
    pairs.any(|pair| pair.split_once('=').is_some_and(|(key, _)| key == name))
}

/// Lets a handler that waits for news go on here, until it ends or its client hangs up. It has little to do once the news come;
/// handing that to another thread, and taking the answer back, would take longer.
async fn stay(runtime: &Handle, mut work: Work, route: &Route) -> Result<Outgoing, ApiError> {
    std::future::poll_fn(|context| {
        let _guard = runtime.enter();
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(poll) => poll,
            Err(_) => Poll::Ready(Err(panicked(route))),
        }
    })
    .await
}

/// Lets a handler that has to wait go on as a task of the shared runtime.
async fn finish_elsewhere(
    runtime: &Handle,
    work: Work,
    route: &Route,
    abandon: bool,
) -> Result<Outgoing, ApiError> {
    let task = runtime.spawn(work);
    let joined = if abandon { AbandonOnDrop(task).await } else { task.await };
    joined.unwrap_or_else(|error| {
        Err(if error.is_panic() {
            panicked(route)
        } else {
            // The runtime is going down.
            ApiError::unavailable("The server is stopping", Duration::from_secs(2))
        })
    })
}

/// The panic itself has been reported by the panic hook.
fn panicked(route: &Route) -> ApiError {
    tracing::error!(endpoint = &**route.endpoint.name(), "a handler panicked");
    ApiError::internal_server_error()
}

async fn handle(
    runtime: Handle,
    route: Arc<Route>,
    head: RequestHead,
    path_args: Vec<String>,
    place: Place,
) -> Result<Outgoing, ApiError> {
    let answer = (route.handler)(head, path_args).await?;
    let (status, headers, body) = answer.into_parts();
    Ok(match body {
        ResponseBody::Whole(bytes) => Outgoing::Whole(status, headers, bytes),
        ResponseBody::Stream(stream) => {
            Outgoing::Streamed(status, headers, Streamed::start(&runtime, stream, place))
        }
    })
}

impl Outgoing {
    /// For answers that are known to be whole.
    fn whole(answer: RawResponse) -> Self {
        let (status, headers, body) = answer.into_parts();
        match body {
            ResponseBody::Whole(bytes) => Self::Whole(status, headers, bytes),
            ResponseBody::Stream(_) => Self::Whole(status, headers, bytes::Bytes::new()),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Whole(status, ..) | Self::Streamed(status, ..) => *status,
        }
    }
}

fn respond(site: &Site, outgoing: Outgoing, compress: bool) -> Response<BoxBody> {
    match outgoing {
        Outgoing::Whole(status, headers, bytes) => finish(site, status, headers, bytes, compress),
        Outgoing::Streamed(status, headers, streamed) => finish(site, status, headers, streamed, compress),
    }
}

fn finish<B>(
    site: &Site,
    status: StatusCode,
    mut headers: HeaderMap,
    body: B,
    compress: bool,
) -> Response<BoxBody>
where
    B: MessageBody + 'static,
{
    /// Below this, gzip's head and the client's work outweigh what is saved.
    const WORTH_COMPRESSING: u64 = 1024;

    let big = !matches!(body.size(), BodySize::None | BodySize::Sized(0..WORTH_COMPRESSING));
    let compress = compress && big && is_text(&headers);
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    }
    let mut response = wire::response(status, headers, body);
    if site.cors {
        add_cors_headers(response.headers_mut());
    }
    if site.shared.draining.has_started() {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    if compress {
        // Chunks are compressed on a thread for blocking work.
        let encoded =
            |head: &mut actix_http::ResponseHead, body| Encoder::response(ContentEncoding::Gzip, head, body);
        response.map_body(encoded).map_into_boxed_body()
    } else {
        response.map_into_boxed_body()
    }
}

fn is_text(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.starts_with("application/json") || value.starts_with("text/"))
}

/// See <https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients>.
fn add_cors_headers(headers: &mut actix_header::HeaderMap) {
    const HEADERS: [(actix_header::HeaderName, &str); 5] = [
        (actix_header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (actix_header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        (actix_header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With, Content-Type, Authorization, Date"),
        // Else pages could not see how long they are to wait.
        (actix_header::ACCESS_CONTROL_EXPOSE_HEADERS, "Retry-After"),
        (actix_header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];

    for (name, value) in HEADERS {
        headers.insert(name, actix_header::HeaderValue::from_static(value));
    }
}

/// A task that is of no use to anybody but the client who waits for it.
struct AbandonOnDrop<T>(JoinHandle<T>);

impl<T> Future for AbandonOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbandonOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
