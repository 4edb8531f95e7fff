//! HAProxy in front of a cluster, configured by `myelin-ctl proxy-config`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use myelin_testing::free_port;
use tempfile::TempDir;

use crate::{Api, nginx::proxy_config};

/// How long HAProxy may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A HAProxy of a test's own, ended when this is dropped.
#[derive(Debug)]
pub struct Haproxy {
    process: Child,
    api: Api,
    folder: TempDir,
}

/// How many requests of a backend a server has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The backend's name.
    pub backend: String,
    /// Where the server listens.
    pub address: String,
    /// How many requests it has got.
    pub requests: u64,
}

impl Haproxy {
    /// Starts HAProxy in front of the processes whose configuration is in `configs`: `homeserver.yaml` and the folder `workers`.
    ///
    /// # Panics
    ///
    /// If `myelin-ctl` has nothing to say about them, or HAProxy does not take it.
    pub fn start(configs: &Path) -> Self {
        let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
        let port = free_port();
        let write = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, content).expect("a new folder can be written to");
            path
        };
        let generated = write("haproxy.cfg", &proxy_config("haproxy", configs, port));
        // What an administrator adds in a file beside it.
        let socket = folder.path().join("admin.sock");
        let own = format!("global\n    stats socket {} mode 600 level admin\n", socket.display());
        let own = write("own.cfg", own.as_bytes());
        let mut command = Command::new("haproxy");
        // The number of connections that the generated file allows needs more files than a test may open.
        command.args(["-db", "-n", "1000", "-f"]).arg(generated).arg("-f").arg(own);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().expect("haproxy can be run: `make prepare` installs it");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = process.try_wait().expect("it is our child");
            assert!(ended.is_none(), "haproxy has ended: {ended:?}");
            assert!(Instant::now() < deadline, "haproxy does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { process, api: Api::new(format!("http://127.0.0.1:{port}")), folder }
    }

    /// Its HTTP interface.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Who got how many requests so far; nothing of those who got none.
    ///
    /// # Panics
    ///
    /// If HAProxy does not tell.
    pub fn shares(&self) -> Vec<Share> {
        let mut socket =
            UnixStream::connect(self.folder.path().join("admin.sock")).expect("haproxy listens there");
        socket.write_all(b"show stat\n").expect("it reads what it is asked");
        let mut table = String::new();
        socket.read_to_string(&mut table).expect("it answers, and closes");
        let mut lines = table.lines();
        let heads: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
        let column =
            |name: &str| heads.iter().position(|head| *head == name).expect("haproxy has such a column");
        let [backend, address, requests] = ["pxname", "addr", "stot"].map(column);
        let share = |line: &str| {
            let cells: Vec<&str> = line.split(',').collect();
            let share = Share {
                backend: (*cells.get(backend)?).to_owned(),
                address: (*cells.get(address)?).to_owned(),
                requests: cells.get(requests)?.parse().ok()?,
            };
            // Frontends and whole backends have no address.
            (!share.address.is_empty() && share.requests > 0).then_some(share)
        };
        lines.filter_map(share).collect()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // It is one process.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
