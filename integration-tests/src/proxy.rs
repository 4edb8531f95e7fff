//! What the proxies of tests have in common: what `myelin-ctl` generates for them, and a process that listens.

use std::{
    fs::{self, File},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use myelin_testing::free_port;
use tempfile::TempDir;

use crate::{Api, program};

/// How long a proxy may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a proxy is started from: a folder of its own, and the port that it shall listen on.
#[derive(Debug)]
pub(crate) struct Plan {
    pub folder: TempDir,
    pub port: u16,
}

/// A proxy that listens, ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    process: Child,
    api: Api,
    folder: TempDir,
}

impl Plan {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
        Self { folder, port: free_port() }
    }

    /// Writes a file of the folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).expect("a new folder can be written to");
        path
    }

    /// Starts the program, which must stay in the foreground, and waits until it listens.
    pub fn start(self, command: &mut Command) -> Proxy {
        let complaints = self.folder.path().join("complaints.log");
        let log = File::create(&complaints).expect("a new folder can be written to");
        let Self { folder, port } = self;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().unwrap_or_else(|error| {
            panic!("{:?} can't be run ({error}): `make prepare` installs it", command.get_program())
        });
        let mut proxy = Proxy { process, api: Api::new(format!("http://127.0.0.1:{port}")), folder };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = proxy.process.try_wait().expect("it is our child").is_some();
            if ended || Instant::now() > deadline {
                let complaints = fs::read_to_string(&complaints).unwrap_or_default();
                panic!("{command:?} does not listen: {complaints}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        proxy
    }
}

impl Proxy {
    pub fn api(&self) -> &Api {
        &self.api
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM ends the workers of a master as well, which SIGKILL would not.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// What `myelin-ctl proxy-config` prints for the processes whose configuration is in `configs`.
///
/// # Panics
///
/// If it fails.
pub fn proxy_config(kind: &str, configs: &Path, port: u16) -> Vec<u8> {
    let output = Command::new(program("myelin-ctl").unwrap_or_else(|error| panic!("{error:#}")))
        .args(["proxy-config", kind, "--listen", &format!("127.0.0.1:{port}"), "--config-path"])
        .arg(configs.join("homeserver.yaml"))
        .arg("--workers")
        .arg(configs.join("workers"))
        .output()
        .expect("a program that was built can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "no such option")]
    fn a_proxy_that_ends_at_once_says_why() {
        Plan::new().start(Command::new("sh").args(["-c", "echo no such option >&2; exit 1"]));
    }
}
