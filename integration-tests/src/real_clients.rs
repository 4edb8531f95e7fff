//! Devices that run a client library which people use, each in a process of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempPath;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::Api;

/// How long a command may take: a bare second where both cores are free, but they seldom are.
const LIMIT: Duration = Duration::from_secs(60);

/// How much of a library's log is shown when a test fails.
const LOG_LINES_SHOWN: usize = 40;

/// A client library that tests drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// [matrix-js-sdk](https://github.com/matrix-org/matrix-js-sdk) with its rust-crypto, what Element Web is made of.
    MatrixJsSdk,
    /// [matrix-nio](https://github.com/matrix-nio/matrix-nio) with encryption, what many bots are made of.
    MatrixNio,
}

/// A device of a user.
#[derive(Debug)]
pub struct RealClient {
    library: Library,
    /// The full user ID.
    pub user_id: String,
    /// The device that the server gave out.
    pub device_id: String,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    log: TempPath,
    _process: Child,
}

impl RealClient {
    /// Registers a user, whose password is the name, and starts syncing.
    ///
    /// # Panics
    ///
    /// If the library is not installed, or fails.
    pub async fn register(library: Library, api: &Api, username: &str) -> Self {
        Self::start(library, api, "register", username).await
    }

    /// Logs a further device of a user in, and starts syncing.
    ///
    /// # Panics
    ///
    /// If the library is not installed, or fails.
    pub async fn log_in(library: Library, api: &Api, username: &str) -> Self {
        Self::start(library, api, "log_in", username).await
    }

    async fn start(library: Library, api: &Api, command: &str, username: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
        let (program, script) = match library {
            Library::MatrixJsSdk => ("node".into(), "matrix_js_sdk.mjs"),
            Library::MatrixNio => (python(), "matrix_nio.py"),
        };
        let installed = match library {
            Library::MatrixJsSdk => folder.join("node_modules"),
            Library::MatrixNio => program.clone(),
        };
        assert!(installed.exists(), "{library:?} is not installed in {}: make prepare", installed.display());

        let (log_file, log) =
            tempfile::NamedTempFile::new().expect("temporary files can be made").into_parts();
        let mut process = Command::new(&program)
            .arg(folder.join(script))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{} could not be started: {error}: make prepare", program.display())
            });
        let commands = process.stdin.take().expect("standard input is piped");
        let answers = BufReader::new(process.stdout.take().expect("standard output is piped")).lines();
        let (user_id, device_id) = Default::default();
        let mut client = Self { library, user_id, device_id, commands, answers, log, _process: process };

        let answer = client
            .call(command, json!({ "url": api.base(), "username": username, "password": username }))
            .await;
        let text = |key: &str| answer[key].as_str().expect("a device tells who it is").to_owned();
        (client.user_id, client.device_id) = (text("user_id"), text("device_id"));

        client
    }

    /// Has the device do something and waits for the outcome. `clients/` says which commands there are.
    ///
    /// # Panics
    ///
    /// If the device fails, or takes longer than a test waits.
    pub async fn call(&mut self, command: &str, parameters: Value) -> Value {
        let mut line = parameters;
        line["command"] = command.into();
        let exchange = async {
            self.commands.write_all(format!("{line}\n").as_bytes()).await?;
            self.answers.next_line().await
        };
        let answer = match timeout(LIMIT, exchange).await {
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => panic!("{:?} ended during {line}", self.library),
            Ok(Err(error)) => panic!("{:?} can't be reached for {line}: {error}", self.library),
            Err(_) => panic!("{:?} did not finish {line} in {LIMIT:?}", self.library),
        };
        let mut answer: Value = serde_json::from_str(&answer).expect("answers are JSON");
        assert!(answer.get("error").is_none(), "{:?} failed at {line}: {}", self.library, answer["error"]);

        answer["ok"].take()
    }
}

impl Drop for RealClient {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            #[expect(clippy::print_stderr, reason = "cargo shows it under the test that failed")]
            {
                eprintln!(
                    "---- {:?} of {}, its last words ----\n{}",
                    self.library,
                    self.user_id,
                    shown.join("\n")
                );
            }
        }
    }
}

/// The Python of the virtual environment that `make prepare` makes in the build folder.
fn python() -> PathBuf {
    let executable = env::current_exe().expect("this program has a path");
    let build_folder = executable.ancestors().find(|folder| folder.join(".rustc_info.json").exists());

    build_folder.unwrap_or(Path::new("target")).join("clients/venv/bin/python")
}
