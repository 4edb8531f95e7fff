//! nginx in front of a cluster, configured by `myelin-ctl proxy-config`.

use std::{fs, path::Path, process::Command};

use myelin_routing::proxy::nginx_main;

use crate::{
    Api,
    proxy::{Plan, Proxy, proxy_config},
};

/// An nginx of a test's own, ended when this is dropped.
#[derive(Debug)]
pub struct Nginx(Proxy);

impl Nginx {
    /// Starts nginx in front of the processes whose configuration is in `configs`: `homeserver.yaml` and the folder `workers`.
    ///
    /// # Panics
    ///
    /// If `myelin-ctl` has nothing to say about them, or nginx does not take it.
    pub fn start(configs: &Path) -> Self {
        let plan = Plan::new();
        let folder = plan.folder.path();
        plan.write("myelin.conf", proxy_config("nginx", configs, plan.port));
        let main = plan.write("nginx.conf", nginx_main(folder, &logging(folder)));
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(main).args(["-g", "daemon off;"]);
        Self(plan.start(&mut command))
    }

    /// Its HTTP interface.
    pub fn api(&self) -> &Api {
        self.0.api()
    }

    /// Its processes: the master and its workers.
    pub fn process_ids(&self) -> Vec<u32> {
        let master = self.0.process_id();
        let children =
            fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|id| id.parse().ok()).chain([master]).collect()
    }

    /// The requests that it has passed on so far: method, path and query, the address that answered last, the status.
    pub fn log(&self) -> Vec<[String; 4]> {
        let log = fs::read_to_string(self.0.folder().join("access.log")).unwrap_or_default();
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

/// Has nginx write down where it passed each request on, which [`Nginx::log`] reads.
fn logging(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "    log_format upstreams '$request_method\\t$request_uri\\t$upstream_addr\\t$status';
    access_log {folder}/access.log upstreams;
    keepalive_requests 10000000;"
    )
}
