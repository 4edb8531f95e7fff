//! A Redis of a test's own, which may be killed.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::certificate;

/// How long Redis may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A Redis server on a unix socket. It keeps nothing: after a restart it is empty.
#[derive(Debug)]
pub struct TestRedis {
    process: Option<Child>,
    folder: TempDir,
    arguments: Vec<String>,
}

impl TestRedis {
    /// Starts a server.
    ///
    /// # Panics
    ///
    /// With a sentence that says what is missing, if there is no Redis to be had.
    pub fn start() -> Self {
        Self::start_with(Vec::new())
    }

    /// Starts a server that also speaks TLS on a port of `localhost`, with the tests' [certificate], and wants this password.
    ///
    /// # Panics
    ///
    /// As [`TestRedis::start`].
    pub fn start_with_tls(port: u16, password: &str) -> Self {
        let certificate = |name| certificate(name).display().to_string();
        let (port, authority) = (port.to_string(), certificate("ca.crt"));
        let (server, key) = (certificate("server.crt"), certificate("server.key"));
        let mut arguments =
            vec!["--requirepass", password, "--tls-port", &port, "--tls-ca-cert-file", &authority];
        arguments.extend(["--tls-cert-file", &server, "--tls-key-file", &key, "--tls-auth-clients", "no"]);
        Self::start_with(arguments.into_iter().map(str::to_owned).collect())
    }

    fn start_with(arguments: Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
        let mut redis = Self { process: None, folder, arguments };
        redis.start_again();
        redis
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// The process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Ends the server without a word to anybody.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Sends the server a signal by its name without `SIG`.
    ///
    /// # Panics
    ///
    /// If it doesn't run.
    pub fn signal(&self, name: &str) {
        let id = self.process_id().expect("the server is running");
        let sent = Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "signal {name} reached no process {id}");
    }

    /// Starts the server again, empty.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn start_again(&mut self) {
        self.kill();
        match spawn(self.folder.path(), &self.socket(), &self.arguments) {
            Ok(process) => self.process = Some(process),
            Err(error) => panic!("no Redis for this test: {error:#}"),
        }
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(folder: &Path, socket: &Path, arguments: &[String]) -> anyhow::Result<Child> {
    // What is left of one that was killed would look like one that is up.
    let _ = std::fs::remove_file(socket);
    let mut process = Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
        .arg(socket)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("redis-server can't be started: `make prepare` installs it")?;
    let start = Instant::now();
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        let ended = process.try_wait().context("waiting for redis-server")?;
        ensure!(ended.is_none(), "redis-server ended at once");
        ensure!(start.elapsed() < PATIENCE, "redis-server does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(process)
}
