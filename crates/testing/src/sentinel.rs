//! A Redis with a replica and a Sentinel, which may fail over.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::free_port;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// After how long without a word an answer is taken for complete; what was cut off is asked for again.
const SILENCE: Duration = Duration::from_millis(200);

/// A master, its replica, and a Sentinel that makes the replica the master once the master is gone; all want a password.
#[derive(Debug)]
pub struct TestSentinel {
    master: Child,
    others: Vec<Child>,
    port: u16,
    _folder: TempDir,
}

impl TestSentinel {
    /// The name under which the Sentinel knows the master.
    pub const MASTER: &'static str = "myelin";
    /// The password of both servers.
    pub const PASSWORD: &'static str = "of no use outside of this test";

    /// Starts all three.
    ///
    /// # Panics
    ///
    /// If there is no Redis to be had.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
        let (master_port, replica_port, port) = (free_port(), free_port(), free_port());
        let master = server(folder.path(), master_port, "");
        let replica = server(folder.path(), replica_port, &format!("replicaof 127.0.0.1 {master_port}\n"));
        let (name, password) = (Self::MASTER, Self::PASSWORD);
        let sentinel = format!(
            "port {port}
bind 127.0.0.1
dir {}
sentinel monitor {name} 127.0.0.1 {master_port} 1
sentinel auth-pass {name} \"{password}\"
sentinel down-after-milliseconds {name} 500
sentinel failover-timeout {name} 3000
",
            folder.path().display()
        );
        // The Sentinel asks the master for its replicas once in ten seconds: one that comes later, or whose master is killed before,
        // is not known to it and never takes over.
        let authenticate = format!("AUTH \"{password}\"\r\nINFO replication\r\n");
        until_told(replica_port, &authenticate, "master_link_status:up");
        let sentinel = start(folder.path(), port, &sentinel, &["--sentinel"]);
        until_told(port, &format!("SENTINEL replicas {name}\r\n"), &replica_port.to_string());
        Self { master, others: vec![replica, sentinel], port, _folder: folder }
    }

    /// The Sentinel's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the master. The Sentinel sees to the rest.
    pub fn kill_master(&mut self) {
        // It may have ended by itself.
        let _ = self.master.kill();
        let _ = self.master.wait();
    }
}

impl Drop for TestSentinel {
    fn drop(&mut self) {
        self.kill_master();
        for process in &mut self.others {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Asks a server until its answer holds what is wanted.
fn until_told(port: u16, commands: &str, wanted: &str) {
    let latest = Instant::now() + 3 * PATIENCE;
    loop {
        let answer = ask(port, commands).unwrap_or_default();
        if answer.contains(wanted) {
            return;
        }
        assert!(Instant::now() < latest, "{port} does not tell {wanted}, but {answer}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ask(port: u16, commands: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(SILENCE))?;
    connection.write_all(commands.as_bytes())?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    // A Sentinel knows no QUIT, so the answer ends when nothing more comes.
    while let Ok(length @ 1..) = connection.read(&mut part) {
        answer.extend_from_slice(&part[..length]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn server(folder: &Path, port: u16, more: &str) -> Child {
    let password = TestSentinel::PASSWORD;
    let config = format!(
        "port {port}
bind 127.0.0.1
dir {}
dbfilename {port}.rdb
save \"\"
requirepass \"{password}\"
masterauth \"{password}\"
repl-diskless-sync-delay 0
{more}",
        folder.display()
    );
    start(folder, port, &config, &[])
}

fn start(folder: &Path, port: u16, config: &str, arguments: &[&str]) -> Child {
    let path = folder.join(format!("{port}.conf"));
    fs::write(&path, config).expect("a new folder can be written to");
    let process = Command::new("redis-server")
        .arg(path)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server can be started: `make prepare` installs it");
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < PATIENCE, "redis-server does not listen on port {port}");
        std::thread::sleep(Duration::from_millis(10));
    }
    process
}
