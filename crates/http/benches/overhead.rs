//! What a request costs before anything is done for it: `cargo bench -p myelin-http`.
//!
//! Starts itself again as the client, so that the CPU time of this process is that of the server. One line of JSON
//! for each scenario and number of connections; with few of them most requests wake a sleeping thread.

use std::{
    env,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use myelin_http::{
    ApiError, Bind, Caller, Draining, Listener, RawRequest, RawResponse, RequestHead, Resource, Routes,
    Server, ServerOptions,
};
use ruma::{OwnedUserId, api::client::account::whoami, owned_user_id};

const REQUESTS: usize = 200_000;
/// A handler that finds all it needs in memory, and one that has to wait for something (here, for its turn).
const SCENARIOS: [(&str, &str); 2] =
    [("memory", "/_matrix/client/v3/account/whoami"), ("waiting", "/_matrix/client/v3/capabilities")];
const CLIENT: &str = "MYELIN_BENCH_CLIENT";

#[derive(Clone)]
struct App {
    user_id: OwnedUserId,
}

struct LocalUser(OwnedUserId);

impl Caller<App> for LocalUser {
    async fn authenticate(app: &App, _: &RequestHead, token: Option<&str>) -> Result<Self, ApiError> {
        token.map(|_| Self(app.user_id.clone())).ok_or_else(ApiError::missing_token)
    }
}

async fn whoami(_: App, user: LocalUser, _: whoami::v3::Request) -> Result<whoami::v3::Response, ApiError> {
    Ok(whoami::v3::Response::new(user.0, false))
}

async fn waiting(_: App, _: RawRequest) -> Result<RawResponse, ApiError> {
    tokio::task::yield_now().await;
    Ok(RawResponse::json("{}"))
}

async fn nothing(_: App, _: RawRequest) -> Result<RawResponse, ApiError> {
    Ok(RawResponse::json("{}"))
}

fn main() {
    match env::var(CLIENT) {
        Ok(orders) => client(&orders),
        Err(_) => server(),
    }
}

fn server() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut routes = Routes::new(App { user_id: owned_user_id!("@alice:example.org") });
        routes.add(whoami);
        // As many routes as a whole homeserver has.
        routes.add_raw(http::Method::GET, SCENARIOS[1].1, waiting);
        let measured = |path: &str| SCENARIOS.iter().any(|(_, measured)| *measured == path);
        for operation in myelin_routing::operations().iter().filter(|operation| !measured(operation.path)) {
            routes.add_raw(operation.method.clone(), operation.path, nothing);
        }
        let mut server = Server::new(ServerOptions::default(), Draining::default());
        server.mount(Resource::Client, routes.build());
        let listener = Listener {
            bind: vec![Bind::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))],
            resources: vec![Resource::Client.into()],
            ..Listener::default()
        };
        let running = server.start(&[listener]).expect("a free port on loopback");
        let address = running.addresses()[0];
        for (scenario, path) in SCENARIOS {
            for connections in [1, 4, 64] {
                load(address, path, connections, REQUESTS / 20).await;
                let (user, system) = cpu_seconds();
                let started = Instant::now();
                load(address, path, connections, REQUESTS).await;
                let (user_after, system_after) = cpu_seconds();
                report(scenario, connections, user_after - user, system_after - system, started.elapsed());
            }
        }
        running.stop().await;
    });
}

#[expect(clippy::print_stdout, reason = "this is what a benchmark is for")]
fn report(scenario: &str, connections: usize, user: f64, system: f64, elapsed: Duration) {
    let per_request = |seconds: f64| (seconds * 1e7 / REQUESTS as f64).round() / 10.0;
    let line = serde_json::json!({
        "scenario": scenario,
        "connections": connections,
        "user_us_per_request": per_request(user),
        "system_us_per_request": per_request(system),
        "requests_per_second": (REQUESTS as f64 / elapsed.as_secs_f64()).round(),
    });
    println!("{line}");
}

async fn load(address: SocketAddr, path: &str, connections: usize, requests: usize) {
    let program = env::current_exe().expect("the path of this program");
    let mut client = Command::new(program);
    client.env(CLIENT, format!("{address} {path} {connections} {requests}"));
    let status =
        tokio::task::spawn_blocking(move || client.status()).await.expect("the client does not panic");
    assert!(status.expect("the client starts").success());
}

/// User and system time of this process and all its threads.
fn cpu_seconds() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    // The second field, the program's name, may have spaces in it.
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    // USER_HZ is 100 wherever Linux runs.
    let mut seconds =
        fields.split_whitespace().skip(11).map(|ticks| ticks.parse::<f64>().unwrap_or(0.0) / 100.0);
    (seconds.next().unwrap_or(0.0), seconds.next().unwrap_or(0.0))
}

fn client(orders: &str) {
    let mut orders = orders.split(' ');
    let address: SocketAddr = orders.next().and_then(|text| text.parse().ok()).expect("an address");
    let path = orders.next().expect("a path");
    let mut number = || orders.next().and_then(|text| text.parse::<usize>().ok()).expect("a number");
    let (connections, requests) = (number(), number());
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(move || converse(address, path, requests / connections));
        }
    });
}

fn converse(address: SocketAddr, path: &str, requests: usize) {
    // As many headers as a browser behind a proxy sends.
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: matrix.example.org\r\n\
         user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\naccept: */*\r\n\
         accept-encoding: gzip, deflate, br\r\nauthorization: Bearer syt_YWxpY2U_abcdefghijklmnopqrst_0abcde\r\n\
         x-forwarded-for: 192.0.2.1\r\nreferer: https://app.example.org/\r\n\r\n"
    );

    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let mut answer = [0; 4096];
    for _ in 0..requests {
        stream.write_all(request.as_bytes()).expect("the server reads");
        let length = stream.read(&mut answer).expect("the server answers");
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
    }
}
