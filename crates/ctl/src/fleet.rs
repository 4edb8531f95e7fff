//! The processes of a server as their files describe them.

pub(crate) mod check;
pub(crate) mod control;
pub(crate) mod process;
pub(crate) mod status;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use myelin_config::{Address, Config, Listener, ListenerKind, Process, ResourceName};
use myelin_daemon::Role;

/// A process and its files.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The shared file or files, and the worker's own.
    pub config_paths: Vec<PathBuf>,
    /// The worker's own file; the first shared one for main.
    pub file: PathBuf,
    pub config: Config,
    pub process: Process,
    /// What its configuration warns of.
    pub warnings: Vec<String>,
}

impl Member {
    fn load(shared: &[PathBuf], worker: Option<&Path>) -> Result<Self, String> {
        let mut config_paths = shared.to_vec();
        config_paths.extend(worker.map(Path::to_path_buf));
        let (config, warnings) = myelin_config::load(&config_paths).map_err(|faults| faults.to_string())?;
        let process = config.process();
        let file = worker.or(shared.first().map(PathBuf::as_path)).unwrap_or(Path::new("")).to_path_buf();
        let warnings = warnings.iter().map(ToString::to_string).collect();
        Ok(Self { config_paths, file, config, process, warnings })
    }

    /// The program that runs it.
    pub fn program(&self) -> String {
        self.role().program()
    }

    /// What it was made for.
    pub fn role(&self) -> Role {
        Role::of(self.process.app)
    }

    /// Where it writes its process id, if its configuration says so.
    pub fn pid_file(&self) -> Option<&Path> {
        self.config.server.pid_file.as_deref()
    }

    /// The address of its first listener with one of these resources, for a client on this machine.
    pub fn address(&self, resources: &[ResourceName]) -> Option<Address> {
        let serves = |listener: &&Listener| resources.iter().any(|resource| listener.serves(*resource));
        self.config.http.listeners.iter().find(serves).and_then(Listener::address)
    }

    /// The address of any listener: all of them tell whether the process is ready.
    pub fn health_address(&self) -> Option<Address> {
        let spoken = self.config.http.listeners.iter().filter(|listener| listener.kind == ListenerKind::Http);
        spoken.filter_map(Listener::address).next()
    }
}

/// All processes of a server: main, and the workers of a folder.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    pub members: Vec<Member>,
}

impl Fleet {
    /// Reads the shared files, and with each of the folder's files a worker's. Main comes first, workers by file name.
    pub fn load(shared: &[PathBuf], workers: Option<&Path>) -> anyhow::Result<Self> {
        let mut members = Vec::new();
        let mut faults = Vec::new();
        let files = workers.map(worker_files).transpose()?.unwrap_or_default();
        for worker in [None].into_iter().chain(files.iter().map(|file| Some(file.as_path()))) {
            match Member::load(shared, worker) {
                Ok(member) => members.push(member),
                // What is wrong with the shared file is wrong with every process.
                Err(fault) if faults.contains(&fault) => {}
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            bail!("{}", faults.join("\n"));
        }
        Ok(Self { members })
    }

    /// Reads the shared files and one worker's.
    pub fn load_one(shared: &[PathBuf], worker: &Path) -> anyhow::Result<Self> {
        let member = Member::load(shared, Some(worker)).map_err(anyhow::Error::msg)?;
        if member.process.is_main() {
            bail!("{} has no worker_app", worker.display());
        }
        Ok(Self { members: vec![member] })
    }
}

/// The `*.yaml` files of a folder, by name.
fn worker_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading the folder {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
