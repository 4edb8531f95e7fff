//! HAProxy in front of a cluster, configured by `myelin-ctl proxy-config`.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Api,
    proxy::{Plan, Proxy, proxy_config},
};

/// A HAProxy of a test's own, ended when this is dropped.
#[derive(Debug)]
pub struct Haproxy(Proxy);

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
        let plan = Plan::new();
        let generated = plan.write("haproxy.cfg", proxy_config("haproxy", configs, plan.port));
        // What an administrator adds in a file beside it.
        let socket = socket(plan.folder.path());
        let own = format!("global\n    stats socket {} mode 600 level admin\n", socket.display());
        let own = plan.write("own.cfg", own);
        let mut command = Command::new("haproxy");
        // The number of connections that the generated file allows needs more files than a test may open.
        command.args(["-db", "-n", "1000", "-f"]).arg(generated).arg("-f").arg(own);
        Self(plan.start(&mut command))
    }

    /// Its HTTP interface.
    pub fn api(&self) -> &Api {
        self.0.api()
    }

    /// Who got how many requests so far; nothing of those who got none.
    ///
    /// # Panics
    ///
    /// If HAProxy does not tell.
    pub fn shares(&self) -> Vec<Share> {
        let mut socket = UnixStream::connect(socket(self.0.folder())).expect("haproxy listens there");
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

/// Where it tells and takes what administrators want.
fn socket(folder: &Path) -> PathBuf {
    folder.join("admin.sock")
}
