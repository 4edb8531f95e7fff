//! A Redis of a test's own, which may be killed.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

/// How long Redis may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A Redis server on a unix socket. It keeps nothing: after a restart it is empty.
#[derive(Debug)]
pub struct TestRedis {
    process: Option<Child>,
    folder: TempDir,
}

impl TestRedis {
    /// Starts a server.
    ///
    /// # Panics
    ///
    /// With a sentence that says what is missing, if there is no Redis to be had.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
        let mut redis = Self { process: None, folder };
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

    /// Starts the server again, empty.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn start_again(&mut self) {
        self.kill();
        match spawn(self.folder.path(), &self.socket()) {
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

fn spawn(folder: &Path, socket: &Path) -> anyhow::Result<Child> {
    // What is left of one that was killed would look like one that is up.
    let _ = std::fs::remove_file(socket);
    let mut process = Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
        .arg(socket)
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
