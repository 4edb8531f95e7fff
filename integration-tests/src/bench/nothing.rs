//! A server that does nothing, in the HTTP server that all daemons use and with the threads that they use: what it takes, a
//! homeserver takes at least.

use std::{
    convert::Infallible,
    env,
    net::TcpListener,
    sync::{LazyLock, OnceLock},
    time::{Duration, Instant},
};

use actix_http::{HttpService, Request, Response, body::BoxBody};
use actix_service::fn_service;
use anyhow::{Context as _, ensure};
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot, watch},
    time::sleep,
};

use crate::{processes::Group, writer};

/// How long it may take until it listens.
const PATIENCE: Duration = Duration::from_secs(3);

/// About as long as the answer to a `/sync` with one message.
const NEWS: &str = const {
    match std::str::from_utf8(&[b'x'; 800]) {
        Ok(text) => text,
        Err(_) => "",
    }
};

/// Tells those who wait.
static NEWS_CAME: LazyLock<watch::Sender<()>> = LazyLock::new(|| watch::Sender::new(()));

/// Takes those who want a row written.
static WRITER: OnceLock<mpsc::Sender<oneshot::Sender<()>>> = OnceLock::new();

/// A running server; ends with this.
pub struct Nothing {
    process: Child,
    /// Its base URL.
    pub url: String,
}

impl Nothing {
    /// Starts it.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts it with a database that has the [tables](writer::TABLES).
    pub async fn start_on(database: &str) -> anyhow::Result<Self> {
        Self::start_with(&["--database", database]).await
    }

    async fn start_with(arguments: &[&str]) -> anyhow::Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let program = env::current_exe().context("finding this program")?;
        let process = Command::new(program)
            .args(["--serve-nothing", &port.to_string()])
            .args(arguments)
            .kill_on_drop(true)
            .spawn()?;
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < deadline, "the empty handler does not listen");
            sleep(Duration::from_millis(5)).await;
        }

        Ok(Self { process, url: format!("http://127.0.0.1:{port}") })
    }

    /// Its process, to be measured.
    pub fn groups(&self) -> Vec<Group> {
        vec![Group::server("empty_handler", self.process.id().into_iter().collect())]
    }
}

/// What `--serve-nothing` does: answers at once, but `/wait` when somebody asks for `/news`, and `/write` when a row is committed.
pub async fn serve(port: u16, database: Option<String>) -> anyhow::Result<()> {
    if let Some(database) = database {
        let (sender, queue) = mpsc::channel(writer::ROWS);
        let _ = WRITER.set(sender);
        tokio::spawn(async move { writer::run(&database, queue).await.expect("the database is there") });
    }
    let threads = std::thread::available_parallelism()?;
    let server =
        actix_server::Server::build()
            .workers(threads.get())
            .bind("nothing", ("127.0.0.1", port), || HttpService::build().finish(fn_service(answer)).tcp())?;

    server.run().await.context("serving nothing")
}

async fn answer(request: Request) -> Result<Response<BoxBody>, Infallible> {
    match request.path() {
        "/wait" => {
            // The sender lives as long as the process.
            let _ = NEWS_CAME.subscribe().changed().await;
            Ok(Response::ok().set_body(BoxBody::new(NEWS)))
        }
        "/write" => {
            let (written, answer) = oneshot::channel();
            let taken = match WRITER.get() {
                Some(writer) => writer.send(written).await.is_ok(),
                None => false,
            };
            match taken && answer.await.is_ok() {
                true => Ok(Response::ok()),
                false => Ok(Response::internal_server_error()),
            }
        }
        "/news" => {
            NEWS_CAME.send_replace(());
            Ok(Response::ok())
        }
        _ => Ok(Response::ok()),
    }
}
