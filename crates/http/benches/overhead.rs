//! What a request costs before anything is done for it: `cargo bench -p myelin-http`.
//!
//! Starts itself again as the client, so that the CPU time of this process is that of the server. One line of JSON
//! for each number of connections; with few of them every request wakes a sleeping thread, with many none does.

use std::{
    env,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
};

use myelin_http::{
    ApiError, Bind, Caller, Draining, Listener, RawRequest, RawResponse, RequestHead, Resource, Routes,
    Server, ServerOptions,
};
use ruma::{OwnedUserId, api::client::account::whoami, owned_user_id};

const REQUESTS: usize = 200_000;
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
        for operation in
            myelin_routing::operations().iter().filter(|operation| operation.id != "getTokenOwner")
        {
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
        for connections in [1, 4, 64] {
            load(address, connections, REQUESTS / 20).await;
            let before = cpu_seconds();
            let started = std::time::Instant::now();
            load(address, connections, REQUESTS).await;
            report(connections, cpu_seconds() - before, started.elapsed().as_secs_f64());
        }
        running.stop().await;
    });
}

#[expect(clippy::print_stdout, reason = "this is what a benchmark is for")]
fn report(connections: usize, cpu: f64, elapsed: f64) {
    let requests = REQUESTS as f64;
    println!(
        r#"{{"scenario":"whoami","connections":{connections},"cpu_us_per_request":{:.1},"requests_per_second":{:.0}}}"#,
        cpu * 1e6 / requests,
        requests / elapsed
    );
}

async fn load(address: SocketAddr, connections: usize, requests: usize) {
    let program = env::current_exe().expect("the path of this program");
    let mut client = Command::new(program);
    client.env(CLIENT, format!("{address} {connections} {requests}"));
    let status =
        tokio::task::spawn_blocking(move || client.status()).await.expect("the client does not panic");
    assert!(status.expect("the client starts").success());
}

/// User and system time of this process and all its threads.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    // The second field, the program's name, may have spaces in it.
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks: f64 =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap_or(0.0)).sum();
    // USER_HZ, which is 100 wherever Linux runs.
    ticks / 100.0
}

fn client(orders: &str) {
    let mut orders = orders.split(' ');
    let address: SocketAddr = orders.next().and_then(|text| text.parse().ok()).expect("an address");
    let mut number = || orders.next().and_then(|text| text.parse::<usize>().ok()).expect("a number");
    let (connections, requests) = (number(), number());
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(move || converse(address, requests / connections));
        }
    });
}

fn converse(address: SocketAddr, requests: usize) {
    // As many headers as a browser behind a proxy sends.
    const REQUEST: &[u8] = b"GET /_matrix/client/v3/account/whoami HTTP/1.1\r\nhost: matrix.example.org\r\n\
        user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\naccept: */*\r\n\
        accept-encoding: gzip, deflate, br\r\nauthorization: Bearer syt_YWxpY2U_abcdefghijklmnopqrst_0abcde\r\n\
        x-forwarded-for: 192.0.2.1\r\nreferer: https://app.example.org/\r\n\r\n";

    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let mut answer = [0; 4096];
    for _ in 0..requests {
        stream.write_all(REQUEST).expect("the server reads");
        let length = stream.read(&mut answer).expect("the server answers");
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
    }
}
