//! The real `myelin-main` as a child process, on a database of its own.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{self, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use myelin_testing::TestDatabase;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, interval, timeout},
};

use crate::{Api, PATIENCE, User};

/// The name of every server under test.
const SERVER_NAME: &str = "myelin.test";

/// A signing key in Synapse's format. It protects nothing.
const SIGNING_KEY: &str = "ed25519 a_test bXllbGluIGludGVncmF0aW9uIHRlc3RzIHNpZ25pbmc\n";

/// How much of the log is shown when a test fails.
const LOG_LINES_SHOWN: usize = 200;

/// What a test wants to be different in `homeserver.yaml`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    settings: Map<String, Value>,
}

impl Options {
    /// Sets one top-level key; it replaces the harness's own value.
    #[must_use]
    pub fn set(mut self, key: &str, value: Value) -> Self {
        self.settings.insert(key.to_owned(), value);
        self
    }
}

/// A homeserver under test: process, configuration, database. All of it is gone when this is dropped.
#[derive(Debug)]
pub struct Server {
    process: Child,
    api: Api,
    // Dropped after the process, which uses both.
    database: TestDatabase,
    folder: TempDir,
}

impl Server {
    /// Starts a homeserver and waits until it is ready.
    ///
    /// # Panics
    ///
    /// With the daemon's log, if it doesn't become ready.
    pub async fn start(options: Options) -> Self {
        let database = TestDatabase::empty().await;
        let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
        let port = free_port();
        let config = configuration(options, port, &database, folder.path());
        fs::write(folder.path().join("signing.key"), SIGNING_KEY).expect("a new folder can be written to");
        // JSON is YAML, too.
        fs::write(folder.path().join("homeserver.yaml"), format!("{config:#}\n"))
            .expect("a new folder can be written to");
        let process = spawn(folder.path()).unwrap_or_else(|error| panic!("{error:#}"));
        let mut server =
            Self { process, api: Api::new(format!("http://127.0.0.1:{port}")), database, folder };
        server.wait_until_ready().await;

        server
    }

    /// Starts a homeserver that lets everyone register and limits no rates.
    pub async fn start_default() -> Self {
        Self::start(Options::default()).await
    }

    /// Runs `myelin-ctl` on the server's configuration: `command`, the `--config-path`, and the other arguments.
    ///
    /// # Panics
    ///
    /// If it can't be run.
    pub async fn control(&self, command: &str, arguments: &[&str]) -> Said {
        let program = program("myelin-ctl").unwrap_or_else(|error| panic!("{error:#}"));
        let config = self.folder.path().join("homeserver.yaml");
        let run =
            Command::new(program).arg(command).arg("--config-path").arg(config).args(arguments).output();
        let output = run.await.expect("a program that was built can be run");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();

        Said { success: output.status.success(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Its HTTP interface, for requests without a user.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The base URL that clients are given.
    pub fn url(&self) -> &str {
        self.api.base()
    }

    /// The database it runs on.
    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// The folder of its configuration and log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process, unless it has been ended.
    pub fn process_id(&self) -> Option<u32> {
        self.process.id()
    }

    /// What the daemon has written so far, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Registers a user; the password is the name.
    ///
    /// # Panics
    ///
    /// If the server doesn't let them.
    pub async fn register(&self, localpart: &str) -> User {
        User::register(&self.api, localpart).await
    }

    /// `kill -9`: it has no time to finish anything.
    pub async fn kill(&mut self) {
        self.process.kill().await.expect("a child of ours can be killed");
    }

    /// SIGTERM, and waits for it to end as a supervisor would.
    ///
    /// # Panics
    ///
    /// If it takes longer than a test waits.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM").await;
        match timeout(PATIENCE, self.process.wait()).await {
            Ok(status) => status.expect("a child of ours can be waited for"),
            Err(_) => panic!("the server did not stop within {PATIENCE:?}"),
        }
    }

    /// SIGSTOP: from now on it answers nothing, but holds all that it has.
    pub async fn pause(&self) {
        self.signal("STOP").await;
    }

    /// SIGCONT, after [`Server::pause`].
    pub async fn resume(&self) {
        self.signal("CONT").await;
    }

    /// Sends any signal by its name without `SIG`.
    ///
    /// # Panics
    ///
    /// If the process is gone.
    pub async fn signal(&self, name: &str) {
        let id = self.process.id().expect("the server is running");
        let sent = Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status().await;
        assert!(sent.is_ok_and(|status| status.success()), "signal {name} reached no process {id}");
    }

    /// Starts it again after [`Server::kill`] or [`Server::stop`], on the same port and database, and waits until it is
    /// ready.
    ///
    /// # Panics
    ///
    /// With the daemon's log, if it doesn't become ready.
    pub async fn start_again(&mut self) {
        self.process = spawn(self.folder.path()).unwrap_or_else(|error| panic!("{error:#}"));
        self.wait_until_ready().await;
    }

    async fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + 2 * PATIENCE;
        let mut tick = interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            let ready = self.api.try_request(reqwest::Method::GET, "/health/ready", None, None).await;
            if ready.is_ok_and(|answer| answer.status == 200) {
                return;
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                panic!("the server ended before it was ready, with {status}");
            }
            assert!(Instant::now() < deadline, "the server did not become ready in {:?}", 2 * PATIENCE);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            #[expect(clippy::print_stderr, reason = "cargo shows it under the test that failed")]
            {
                eprintln!(
                    "---- the last {} lines of the server's log ----\n{}",
                    shown.len(),
                    shown.join("\n")
                );
            }
        }
    }
}

/// Starts the daemon in its folder, output going to the log there.
/// What a run of `myelin-ctl` said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Whether it succeeded.
    pub success: bool,
    /// Its standard output, without the last line's end.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

fn spawn(folder: &Path) -> anyhow::Result<Child> {
    let log =
        fs::File::options().create(true).append(true).open(folder.join("log")).context("opening the log")?;
    let program = program("myelin-main")?;

    Command::new(&program)
        .arg("--config-path")
        .arg(folder.join("homeserver.yaml"))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("opening the log twice")?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))
}

/// A daemon that was built beforehand: in the folder `MYELIN_BIN_DIR`, or beside this program.
///
/// # Errors
///
/// If it is in neither.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let beside = env::current_exe().context("finding this program")?;
    let folders = match env::var_os("MYELIN_BIN_DIR") {
        Some(folder) => vec![PathBuf::from(folder)],
        // Tests are in target/<profile>/deps, programs one above.
        None => beside.ancestors().skip(1).take(2).map(Path::to_path_buf).collect(),
    };
    let found = folders.iter().map(|folder| folder.join(name)).find(|program| program.is_file());
    let Some(found) = found else {
        bail!("{name} is not built yet: cargo build --workspace --bins");
    };

    Ok(found)
}

/// The settings of a server under test, in Synapse's words.
fn configuration(options: Options, port: u16, database: &TestDatabase, folder: &Path) -> Value {
    let server = database.server();
    let unlimited = json!({ "per_second": 100_000, "burst_count": 100_000 });
    let mut settings = json!({
        "server_name": SERVER_NAME,
        "public_baseurl": format!("http://127.0.0.1:{port}/"),
        "report_stats": false,
        "pid_file": folder.join("main.pid"),
        "signing_key_path": folder.join("signing.key"),
        "media_store_path": folder.join("media"),
        "listeners": [{
            "port": port, "type": "http", "tls": false, "bind_addresses": ["127.0.0.1"],
            "resources": [{ "names": ["client"], "compress": false }],
        }],
        "database": {
            "name": "psycopg2",
            "args": {
                "host": server.host(), "port": server.port(), "user": server.user(), "password": server.password(),
                "dbname": database.name(), "cp_min": 1, "cp_max": 10,
            },
        },
        "macaroon_secret_key": "of no use outside of this test",
        "form_secret": "of no use outside of this test",
        "registration_shared_secret": "shared",
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "bcrypt_rounds": 4,
        "trusted_key_servers": [],
        "rc_message": unlimited,
        "rc_registration": unlimited,
        "rc_login": { "address": unlimited, "account": unlimited, "failed_attempts": unlimited },
        "rc_joins": { "local": unlimited, "remote": unlimited },
        "rc_joins_per_room": unlimited,
        "rc_invites": { "per_room": unlimited, "per_user": unlimited, "per_issuer": unlimited },
        "rc_room_creation": unlimited,
        "rc_key_requests": unlimited,
        "rc_presence": { "per_user": unlimited },
    });
    if let Some(settings) = settings.as_object_mut() {
        settings.extend(options.settings);
    }

    settings
}

/// A port on which nothing listens, outside of the range from which the system takes those of outgoing connections:
/// otherwise a client could take it between this look and the server's start, or while the server is down.
fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    const RANGE: std::ops::Range<u16> = 16_000..32_000;

    // Test processes that run at the same time start looking at different places.
    let start = usize::try_from(process::id()).expect("a process number fits");
    let skip = start % RANGE.len() + usize::from(TAKEN.fetch_add(1, Ordering::Relaxed));

    RANGE
        .cycle()
        .skip(skip % RANGE.len())
        .take(RANGE.len())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("not all of sixteen thousand ports are in use")
}
