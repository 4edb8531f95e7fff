//! nginx in front of a cluster, configured by `myelin-ctl proxy-config`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use myelin_routing::proxy::nginx_main;
use myelin_testing::free_port;
use tempfile::TempDir;

use crate::{Api, program};

/// How long nginx may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// An nginx of a test's own, ended when this is dropped.
#[derive(Debug)]
pub struct Nginx {
    process: Child,
    api: Api,
    folder: TempDir,
}

impl Nginx {
    /// Starts nginx in front of the processes whose configuration is in `configs`: `homeserver.yaml` and the folder `workers`.
    ///
    /// # Panics
    ///
    /// If `myelin-ctl` has nothing to say about them, or nginx does not take it.
    pub fn start(configs: &Path) -> Self {
        let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
        let port = free_port();
        let generated = proxy_config("nginx", configs, port);
        fs::write(folder.path().join("myelin.conf"), generated).expect("a new folder can be written to");
        let main = folder.path().join("nginx.conf");
        fs::write(&main, nginx_main(folder.path(), &logging(folder.path())))
            .expect("a new folder can be written to");
        let check = nginx(folder.path(), &main)
            .arg("-t")
            .output()
            .expect("nginx can be run: `make prepare` installs it");
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
        let process =
            nginx(folder.path(), &main).args(["-g", "daemon off;"]).spawn().expect("it ran just before");
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { process, api: Api::new(format!("http://127.0.0.1:{port}")), folder }
    }

    /// Its HTTP interface.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Its processes: the master and its workers.
    pub fn process_ids(&self) -> Vec<u32> {
        let master = self.process.id();
        let children =
            fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|id| id.parse().ok()).chain([master]).collect()
    }

    /// The requests that it has passed on so far: method, path and query, the address that answered last, the status.
    pub fn log(&self) -> Vec<[String; 4]> {
        let log = fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.split('\t').map(str::to_owned);
            let [method, path, upstream, status] = std::array::from_fn(|_| words.next().unwrap_or_default());
            // Of several that were tried, the last one answered.
            let upstream = upstream.rsplit(", ").next().unwrap_or_default().to_owned();
            [method, path, upstream, status]
        };
        log.lines().map(line).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM ends the workers as well, which SIGKILL would not.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// What `myelin-ctl proxy-config` prints.
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

fn nginx(folder: &Path, main: &PathBuf) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(main).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null());
    command
}

/// Has nginx write down where it passed each request on, which [`Nginx::log`] reads.
fn logging(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "    log_format upstreams '$request_method\\t$request_uri\\t$upstream_addr\\t$status';
    access_log {folder}/access.log upstreams;
    keepalive_requests 10000000;"
    )
}
