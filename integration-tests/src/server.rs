//! The real `myelin-main` as a child process, on a database of its own.

use std::{fs, path::Path, process::ExitStatus};

use myelin_testing::{TestDatabase, free_port};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    Api, User,
    daemon::{Daemon, Invocation, program},
};

/// The name of every server under test.
const SERVER_NAME: &str = "myelin.test";

/// A signing key in Synapse's format. It protects nothing.
pub(crate) const SIGNING_KEY: &str = "ed25519 a_test bXllbGluIGludGVncmF0aW9uIHRlc3RzIHNpZ25pbmc\n";

/// How often passwords are hashed, as a power of two: as few as bcrypt has.
pub const BCRYPT_ROUNDS: u32 = 4;

/// What a test wants to be different in `homeserver.yaml`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(crate) settings: Map<String, Value>,
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
    daemon: Daemon,
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
        let config_path = folder.path().join("homeserver.yaml");
        fs::write(folder.path().join("signing.key"), SIGNING_KEY).expect("a new folder can be written to");
        // JSON is YAML, too.
        fs::write(&config_path, format!("{config:#}\n")).expect("a new folder can be written to");
        let daemon = Daemon::start(Invocation {
            program: "myelin-main",
            name: "main".to_owned(),
            config_paths: vec![config_path],
            folder: folder.path().to_owned(),
            port,
            environment: Vec::new(),
            programs: None,
        });
        let mut server = Self { daemon, database, folder };
        server.daemon.wait_until_ready().await;

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

        Said::new(&output)
    }

    /// Its HTTP interface, for requests without a user.
    pub fn api(&self) -> &Api {
        self.daemon.api()
    }

    /// The base URL that clients are given.
    pub fn url(&self) -> &str {
        self.api().base()
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
        self.daemon.process_id()
    }

    /// What the daemon has written so far, over all its lives.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Registers a user; the password is the name.
    ///
    /// # Panics
    ///
    /// If the server doesn't let them.
    pub async fn register(&self, localpart: &str) -> User {
        User::register(self.api(), localpart).await
    }

    /// `kill -9`: it has no time to finish anything.
    pub async fn kill(&mut self) {
        self.daemon.kill().await;
    }

    /// SIGTERM, and waits for it to end as a supervisor would.
    pub async fn stop(&mut self) -> ExitStatus {
        self.daemon.stop().await
    }

    /// SIGSTOP: from now on it answers nothing, but holds all that it has.
    pub async fn pause(&self) {
        self.daemon.pause().await;
    }

    /// SIGCONT, after [`Server::pause`].
    pub async fn resume(&self) {
        self.daemon.resume().await;
    }

    /// Sends any signal by its name without `SIG`.
    pub async fn signal(&self, name: &str) {
        self.daemon.signal(name).await;
    }

    /// Starts it again after [`Server::kill`] or [`Server::stop`], on the same port and database, and waits until it is
    /// ready.
    ///
    /// # Panics
    ///
    /// With the daemon's log, if it doesn't become ready.
    pub async fn start_again(&mut self) {
        self.daemon.start_again().await;
    }
}

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

impl Said {
    pub(crate) fn new(output: &std::process::Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        Self { success: output.status.success(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// The settings of a server under test, in Synapse's words.
pub(crate) fn configuration(options: Options, port: u16, database: &TestDatabase, folder: &Path) -> Value {
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
        "bcrypt_rounds": BCRYPT_ROUNDS,
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
