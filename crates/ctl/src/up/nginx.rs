//! The nginx in front of a homeserver to try.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, bail};
use myelin_routing::proxy::nginx_main;

use crate::{fleet::Fleet, proxy_config};

/// Starts nginx in front of the processes, or has it read its configuration again if it runs.
pub(super) fn start(folder: &Path, fleet: &Fleet) -> anyhow::Result<()> {
    let port = fleet.members.first().and_then(|main| main.config.server.public_baseurl.as_ref()?.port());
    let Some(port) = port else { bail!("public_baseurl names no port for nginx to listen on") };
    let plan = proxy_config::plan(fleet, ([127, 0, 0, 1], port).into(), None, None)?;
    let write = |name: &str, text: String| {
        let path = folder.join("run").join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    write("myelin.conf", plan.nginx())?;
    write("nginx.conf", nginx_main(&folder.join("run"), "    access_log off;"))?;
    let is_running = is_running(folder);
    run(folder, if is_running { &["-s", "reload"] } else { &[] })
}

/// Ends nginx, if it runs.
pub(super) fn stop(folder: &Path) -> anyhow::Result<()> {
    match is_running(folder) {
        true => run(folder, &["-s", "quit"]),
        false => Ok(()),
    }
}

fn is_running(folder: &Path) -> bool {
    let pid = fs::read_to_string(folder.join("run/nginx.pid")).unwrap_or_default();
    let name = fs::read_to_string(format!("/proc/{}/comm", pid.trim())).unwrap_or_default();
    !pid.is_empty() && name.trim() == "nginx"
}

fn run(folder: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let run = folder.join("run");
    // Debian has it where only root looks.
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("nginx");
    command.env("PATH", path).arg("-p").arg(&run).arg("-c").arg(run.join("nginx.conf")).args(arguments);
    let output = command.output().context("starting nginx")?;
    if !output.status.success() {
        bail!("nginx: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
