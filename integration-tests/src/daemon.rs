//! One daemon as a child process.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    process::{Child, Command},
    time::{Instant, interval, timeout},
};

use crate::{Api, PATIENCE};

/// How much of the log is shown when a test fails.
const LOG_LINES_SHOWN: usize = 200;

/// How a daemon is started.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The program's name.
    pub program: &'static str,
    /// What its log and its process are called in messages.
    pub name: String,
    /// Its `--config-path`s.
    pub config_paths: Vec<PathBuf>,
    /// The folder that it runs in and leaves its log in.
    pub folder: PathBuf,
    /// The port of its listener for clients, which also tells whether it is ready.
    pub port: u16,
    /// What is added to its environment.
    pub environment: Vec<(String, OsString)>,
    /// Where its program is, if not where all are.
    pub programs: Option<PathBuf>,
}

/// A daemon under test. The process is ended when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    invocation: Invocation,
    process: Child,
    api: Api,
}

impl Daemon {
    /// Starts the daemon; it may not be ready yet.
    ///
    /// # Panics
    ///
    /// If there is no such program.
    pub fn start(invocation: Invocation) -> Self {
        let process = spawn(&invocation).unwrap_or_else(|error| panic!("{error:#}"));
        let api = Api::new(format!("http://127.0.0.1:{}", invocation.port));
        Self { invocation, process, api }
    }

    /// Its HTTP interface, for requests without a user.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.invocation.name
    }

    /// The process, unless it has been ended.
    pub fn process_id(&self) -> Option<u32> {
        self.process.id()
    }

    /// What the daemon has written so far, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.invocation.log_file()).unwrap_or_default()
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
        self.ended().await
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    ///
    /// If it takes longer than a test waits.
    pub async fn ended(&mut self) -> ExitStatus {
        match timeout(PATIENCE, self.process.wait()).await {
            Ok(status) => status.expect("a child of ours can be waited for"),
            Err(_) => panic!("{} did not stop within {PATIENCE:?}", self.name()),
        }
    }

    /// SIGSTOP: from now on it answers nothing, but holds all that it has.
    pub async fn pause(&self) {
        self.signal("STOP").await;
    }

    /// SIGCONT, after [`Daemon::pause`].
    pub async fn resume(&self) {
        self.signal("CONT").await;
    }

    /// Sends any signal by its name without `SIG`.
    ///
    /// # Panics
    ///
    /// If the process is gone.
    pub async fn signal(&self, name: &str) {
        let id = self.process.id().expect("the daemon is running");
        let sent = Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status().await;
        assert!(sent.is_ok_and(|status| status.success()), "signal {name} reached no process {id}");
    }

    /// Starts it again after [`Daemon::kill`] or [`Daemon::stop`], and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it doesn't become ready.
    pub async fn start_again(&mut self) {
        self.process = spawn(&self.invocation).unwrap_or_else(|error| panic!("{error:#}"));
        self.wait_until_ready().await;
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it doesn't become ready.
    pub async fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + 2 * PATIENCE;
        let mut tick = interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            let ready = self.api.try_request(reqwest::Method::GET, "/health/ready", None, None).await;
            if ready.is_ok_and(|answer| answer.status == 200) {
                return;
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                panic!("{} ended before it was ready, with {status}", self.name());
            }
            assert!(Instant::now() < deadline, "{} did not become ready in {:?}", self.name(), 2 * PATIENCE);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            #[expect(clippy::print_stderr, reason = "cargo shows it under the test that failed")]
            {
                eprintln!(
                    "---- the last {} lines of the log of {} ----\n{}",
                    shown.len(),
                    self.name(),
                    shown.join("\n")
                );
            }
        }
    }
}

impl Invocation {
    fn log_file(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }
}

/// Starts the daemon in its folder, output going to the log there.
fn spawn(invocation: &Invocation) -> anyhow::Result<Child> {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(invocation.log_file())
        .context("opening the log")?;
    let program = match &invocation.programs {
        Some(folder) => folder.join(invocation.program),
        None => program(invocation.program)?,
    };
    let config_paths = invocation.config_paths.iter().flat_map(|path| [Path::new("--config-path"), path]);

    Command::new(&program)
        .args(config_paths)
        .env_remove("MYELIN_CHAOS_REPORT")
        .envs(invocation.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&invocation.folder)
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
