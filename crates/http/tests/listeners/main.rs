//! Real listeners on loopback, and what clients see of them.

mod client;
mod resources;
mod sockets;
mod stopping;
mod tls;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::Method;
use myelin_http::{
    ApiError, Bind, Caller, Draining, Listener, RawRequest, RawResponse, RequestHead, Resource, Router,
    Routes, RunningServer, Server, ServerOptions,
};
use ruma::api::client::session::login;
use serde_json::json;
use tokio::sync::Notify;

use crate::client::{Answer, Connection};

/// What tests see of the handlers, and tell them.
#[derive(Clone, Default)]
struct App {
    /// A waiting handler has begun.
    begun: Arc<Notify>,
    /// Lets waiting handlers go on.
    go_on: Arc<Notify>,
    /// A waiting handler has gone, one way or the other.
    gone: Arc<Notify>,
    /// A waiting handler has reached its end.
    finished: Arc<AtomicBool>,
}

struct Anyone;

impl Caller<App> for Anyone {
    async fn authenticate(_: &App, _: &RequestHead, _: Option<&str>) -> Result<Self, ApiError> {
        Ok(Self)
    }
}

/// Tells that it was dropped.
struct Gone(Arc<Notify>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn echo(_: App, request: RawRequest) -> Result<RawResponse, ApiError> {
    let seen = json!({
        "body": request.body().len(), "remote": request.head.remote_addr(), "query": request.head.query(),
    });
    Ok(RawResponse::json(seen.to_string()))
}

async fn wait(app: App, _: RawRequest) -> Result<RawResponse, ApiError> {
    let _gone = Gone(app.gone.clone());
    app.begun.notify_one();
    // The timer belongs to the runtime of the test, wherever this is polled first.
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, app.go_on.notified()).await.map_err(ApiError::internal)?;
    app.finished.store(true, Ordering::SeqCst);
    Ok(RawResponse::json("{}"))
}

async fn poll(app: App, request: RawRequest) -> Result<RawResponse, ApiError> {
    let _gone = Gone(app.gone.clone());
    app.begun.notify_one();
    request.head.draining().started().await;
    Ok(RawResponse::json(r#"{"next_batch":"s1"}"#))
}

async fn big(_: App, _: RawRequest) -> Result<RawResponse, ApiError> {
    Ok(RawResponse::json(format!("\"{}\"", "a".repeat(5000))))
}

async fn streamed(app: App, request: RawRequest) -> Result<RawResponse, ApiError> {
    let broken = request.head.query() == Some("broken");
    let chunks = stream::iter(0..100).then(move |number| {
        let app = app.clone();
        async move {
            if broken && number == 50 {
                // Before the head has gone out, a failure would cut the connection without one.
                app.go_on.notified().await;
                return Err(ApiError::internal("the disk is on fire"));
            }
            Ok(Bytes::from(format!("{number:>100}")))
        }
    });
    Ok(RawResponse::stream(chunks))
}

async fn panics(_: App, _: RawRequest) -> Result<RawResponse, ApiError> {
    panic!("a handler's mistake");
}

/// Makes a timer only once it waits.
async fn panics_later(_: App, _: RawRequest) -> Result<RawResponse, ApiError> {
    tokio::task::yield_now().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    panic!("a handler's mistake, after it had to wait");
}

async fn fails(_: App, _: RawRequest) -> Result<RawResponse, ApiError> {
    Err(ApiError::internal("the password is hunter2"))
}

async fn login(_: App, _: Anyone, _: login::v3::Request) -> Result<login::v3::Response, ApiError> {
    Err(ApiError::forbidden("No"))
}

fn router(app: &App) -> Router {
    let mut routes = Routes::new(app.clone());
    routes.add(login);
    routes.add_raw(Method::GET, "/echo", echo);
    routes.add_raw(Method::POST, "/echo", echo);
    routes.add_raw(Method::POST, "/small", echo).body_limit(10);
    routes.add_raw(Method::GET, "/wait", wait);
    routes.add_raw(Method::POST, "/wait", wait);
    routes.add_raw(Method::POST, "/poll", poll).long_poll("since");
    routes.add_raw(Method::GET, "/big", big);
    routes.add_raw(Method::GET, "/streamed", streamed);
    routes.add_raw(Method::GET, "/panics", panics);
    routes.add_raw(Method::GET, "/panics-later", panics_later);
    routes.add_raw(Method::GET, "/panics-waiting", panics_later).long_poll("since");
    routes.add_raw(Method::GET, "/fails", fails);
    routes.build()
}

fn loopback() -> Bind {
    Bind::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn client_listener() -> Listener {
    Listener { bind: vec![loopback()], resources: vec![Resource::Client.into()], ..Listener::default() }
}

/// Quick to give up, so that a failing test does not take a minute.
fn options() -> ServerOptions {
    ServerOptions {
        threads: 1.try_into().unwrap(),
        drain_timeout: Duration::from_secs(5),
        ..ServerOptions::default()
    }
}

fn start_with(app: &App, options: ServerOptions, listener: Listener) -> RunningServer {
    let mut server = Server::new(options, Draining::default());
    server.mount(Resource::Client, router(app));
    server.start(&[listener]).expect("a free port on loopback")
}

fn start(app: &App) -> RunningServer {
    start_with(app, options(), client_listener())
}

async fn ask(server: &RunningServer, request: &str, headers: &[&str], body: &str) -> Answer {
    Connection::open(server.addresses()[0]).await.ask(request, headers, body).await
}

#[tokio::test]
async fn every_answer_has_cors_headers_and_is_not_cached() {
    let server = start(&App::default());
    for (request, status) in [
        ("GET /echo", 200),
        ("GET /nothing", 404),
        ("PUT /echo", 405),
        ("GET /panics", 500),
        ("OPTIONS /echo", 204),
        ("OPTIONS /nothing", 204),
    ] {
        let answer = ask(&server, request, &[], "").await;
        assert_eq!(answer.status, status, "{request}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{request}");
        assert!(answer.header("access-control-allow-methods").unwrap().contains("DELETE"), "{request}");
        assert!(
            answer.header("access-control-allow-headers").unwrap().contains("Authorization"),
            "{request}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{request}");
    }
}

#[tokio::test]
async fn bad_requests_get_the_status_and_the_errcode_of_the_specification() {
    let options = ServerOptions { body_limit: 100, ..options() };
    let server = start_with(&App::default(), options, client_listener());
    let check = async |request: &str, body: &str, status: u16, errcode: &str| {
        let answer = ask(&server, request, &[], body).await;
        assert_eq!((answer.status, answer.errcode().as_str()), (status, errcode), "{request} {body}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    };
    check("GET /", "", 404, "M_UNRECOGNIZED").await;
    check("GET /_matrix/client/v3/nothing", "", 404, "M_UNRECOGNIZED").await;
    check("PATCH /echo", "", 405, "M_UNRECOGNIZED").await;
    check("BREW /echo", "", 405, "M_UNRECOGNIZED").await;
    check("GET /panics", "", 500, "M_UNKNOWN").await;
    check("GET /fails", "", 500, "M_UNKNOWN").await;
    check("POST /echo", &"x".repeat(101), 413, "M_TOO_LARGE").await;
    check("POST /small", &"x".repeat(11), 413, "M_TOO_LARGE").await;
    check("POST /_matrix/client/v3/login", "{}", 400, "M_BAD_JSON").await;
    check("POST /_matrix/client/v3/login", "{", 400, "M_NOT_JSON").await;
    check("PUT /_matrix/client/v3/login", "{}", 405, "M_UNRECOGNIZED").await;

    let internal = ask(&server, "GET /fails", &[], "").await;
    assert!(!internal.text().contains("hunter2"));
}

#[tokio::test]
async fn a_body_without_a_length_is_limited_while_it_is_read() {
    let server = start(&App::default());
    let mut connection = Connection::open(server.addresses()[0]).await;
    let chunks = "6\r\nabcdef\r\n6\r\nabcdef\r\n0\r\n\r\n";
    let head = "HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    connection.send_raw(&format!("POST /echo {head}{chunks}")).await;
    assert_eq!(connection.read(false).await.json()["body"], 12);
    connection.send_raw(&format!("POST /small {head}{chunks}")).await;
    assert_eq!(connection.read(false).await.status, 413);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let options = ServerOptions { body_timeout: Duration::from_millis(50), ..options() };
    let server = start_with(&App::default(), options, client_listener());
    let mut connection = Connection::open(server.addresses()[0]).await;
    connection.send_raw("POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nabc").await;
    assert_eq!(connection.read(false).await.status, 408);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let server = start(&App::default());
    let mut connection = Connection::open(server.addresses()[0]).await;
    let answer = connection.ask("HEAD /big", &[], "").await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("5002")));
    // Were there a body, it would be taken for the next answer.
    assert_eq!(connection.ask("GET /echo?a=b", &[], "").await.json()["query"], "a=b");
}

#[tokio::test]
async fn big_answers_are_compressed_where_the_listener_says_so() {
    let app = App::default();
    let plain = start(&app);
    let mut listener = client_listener();
    listener.resources[0].compress = true;
    let compressing = start_with(&app, options(), listener);
    let check = async |server: &RunningServer, request: &str, headers: &[&str], compressed: bool| {
        let answer = ask(server, request, headers, "").await;
        assert_eq!(answer.header("content-encoding") == Some("gzip"), compressed, "{request} {headers:?}");
        assert!(answer.complete);
        if compressed {
            assert!(answer.body.len() < 2000, "{}", answer.body.len());
        }
    };
    const GZIP: &[&str] = &["accept-encoding: deflate, gzip"];
    check(&compressing, "GET /big", GZIP, true).await;
    check(&compressing, "GET /streamed", GZIP, true).await;
    check(&compressing, "GET /big", &[], false).await;
    check(&compressing, "GET /big", &["accept-encoding: gzip;q=0"], false).await;
    check(&compressing, "GET /echo", GZIP, false).await;
    check(&plain, "GET /big", GZIP, false).await;
}

#[tokio::test]
async fn an_answer_that_is_streamed_is_whole_or_visibly_cut() {
    let app = App::default();
    let server = start(&app);
    let whole = ask(&server, "GET /streamed", &[], "").await;
    assert!(whole.complete);
    assert_eq!(whole.body.len(), 100 * 100);
    let mut connection = Connection::open(server.addresses()[0]).await;
    connection.send("GET /streamed?broken", &[], "").await;
    let head = connection.read_head().await;
    assert_eq!(head.status, 200);
    app.go_on.notify_one();
    let broken = connection.read_body(head, false).await;
    assert!(!broken.complete);
    assert!(!broken.text().contains("fire"));
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let server = start(&App::default());
    let mut connection = Connection::open(server.addresses()[0]).await;
    assert_eq!(connection.ask("GET /panics", &[], "").await.status, 500);
    assert_eq!(connection.ask("GET /panics-later", &[], "").await.status, 500);
    assert_eq!(connection.ask("GET /panics-waiting?since=s0", &[], "").await.status, 500);
    assert_eq!(connection.ask("GET /echo", &[], "").await.status, 200, "even the connection goes on");
}

#[tokio::test]
async fn overload_is_answered_at_once_and_long_polls_are_counted_apart() {
    let app = App::default();
    let options = ServerOptions { max_working: 1, max_waiting: 1, ..options() };
    let server = start_with(&app, options, client_listener());
    let mut working = Connection::open(server.addresses()[0]).await;
    working.send("POST /wait", &[], "").await;
    app.begun.notified().await;

    let refused = ask(&server, "GET /echo", &[], "").await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());

    let mut waiting = Connection::open(server.addresses()[0]).await;
    waiting.send("POST /poll", &[], "").await;
    app.begun.notified().await;
    assert_eq!(ask(&server, "POST /poll", &[], "").await.status, 503);

    app.go_on.notify_one();
    assert_eq!(working.read(false).await.status, 200);
    app.gone.notified().await;
    assert_eq!(working.ask("GET /echo", &[], "").await.status, 200, "the place is free again");
}

#[tokio::test]
async fn reads_and_long_polls_end_with_their_client_but_writes_run_to_their_end() {
    let app = App::default();
    let server = start(&app);
    for request in ["GET /wait", "POST /poll", "POST /poll?since=s0"] {
        let mut connection = Connection::open(server.addresses()[0]).await;
        connection.send(request, &[], "").await;
        app.begun.notified().await;
        drop(connection);
        app.gone.notified().await;
        assert!(!app.finished.load(Ordering::SeqCst), "{request}");
    }

    let mut connection = Connection::open(server.addresses()[0]).await;
    connection.send("POST /wait", &[], "").await;
    app.begun.notified().await;
    drop(connection);
    app.go_on.notify_one();
    app.gone.notified().await;
    assert!(app.finished.load(Ordering::SeqCst));
}

#[tokio::test]
async fn the_proxy_is_believed_only_where_it_is_expected() {
    let app = App::default();
    let direct = start(&app);
    let behind = start_with(&app, options(), Listener { x_forwarded: true, ..client_listener() });
    let remote = async |server: &RunningServer, headers: &[&str]| {
        ask(server, "GET /echo", headers, "").await.json()["remote"].as_str().unwrap().to_owned()
    };
    const FORWARDED: &[&str] = &["x-forwarded-for: 192.0.2.7, 10.0.0.1"];
    assert_eq!(remote(&direct, FORWARDED).await, "127.0.0.1");
    assert_eq!(remote(&behind, FORWARDED).await, "192.0.2.7");
    assert_eq!(remote(&behind, &[]).await, "127.0.0.1");
}
