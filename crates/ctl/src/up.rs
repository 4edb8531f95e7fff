//! `up` and `down`: a whole homeserver in a folder, to try and to develop.

mod files;
mod nginx;

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, ValueEnum};

use crate::fleet::{Fleet, control};

/// Which processes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topology {
    /// Main, two workers, two writers of rooms and one of each other daemon, behind nginx.
    Cluster,
    /// Main alone, without nginx and Redis.
    Single,
}

/// Starts a whole homeserver in a folder; writes its configuration if there is none.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// The folder of its configuration, logs, pid files and sockets.
    #[arg(short, long, default_value = "var")]
    directory: PathBuf,
    /// Which processes there are, when the configuration is first written. Default: cluster.
    #[arg(short, long)]
    topology: Option<Topology>,
    /// The port on loopback on which clients reach it, when the configuration is first written.
    #[arg(long, default_value_t = 8008)]
    port: u16,
    /// The server's name in user IDs, when the configuration is first written.
    #[arg(long, default_value = "localhost")]
    server_name: String,
    /// PostgreSQL's host, or the folder of its unix socket.
    #[arg(long, default_value = "localhost")]
    database_host: String,
    /// PostgreSQL's user.
    #[arg(long, default_value = "myelin")]
    database_user: String,
    /// The name of the database.
    #[arg(long, default_value = "myelin")]
    database_name: String,
    /// The unix socket of Redis; without it, localhost and its usual port.
    #[arg(long)]
    redis_socket: Option<PathBuf>,
}

/// Ends what `up` started.
#[derive(Debug, Args)]
pub(crate) struct Down {
    /// The folder.
    #[arg(short, long, default_value = "var")]
    directory: PathBuf,
}

/// The files of a folder.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new(directory: &std::path::Path) -> anyhow::Result<Self> {
        Ok(Self(std::path::absolute(directory)?))
    }

    fn shared_file(&self) -> PathBuf {
        self.0.join("homeserver.yaml")
    }

    fn workers(&self) -> PathBuf {
        self.0.join("workers")
    }

    /// The topology of the configuration that is there.
    fn topology(&self) -> Option<Topology> {
        let is_cluster = self.workers().is_dir();
        self.shared_file().exists().then_some(if is_cluster { Topology::Cluster } else { Topology::Single })
    }

    fn fleet(&self) -> anyhow::Result<Fleet> {
        let workers = self.workers();
        Fleet::load(&[self.shared_file()], workers.is_dir().then_some(workers.as_path()))
    }
}

pub(crate) fn up(arguments: &Up) -> anyhow::Result<()> {
    let folder = Folder::new(&arguments.directory)?;
    let topology = match (folder.topology(), arguments.topology) {
        (Some(there), Some(wanted)) if there != wanted => bail!(
            "{} is the configuration of another topology: remove it, or choose another folder",
            folder.shared_file().display()
        ),
        (Some(there), _) => there,
        (None, wanted) => {
            let wanted = wanted.unwrap_or(Topology::Cluster);
            files::write(&folder, arguments, wanted)?;
            wanted
        }
    };
    let fleet = folder.fleet()?;
    control::start_fleet(&fleet)?;
    match topology {
        Topology::Cluster => nginx::start(&folder.0, &fleet),
        Topology::Single => Ok(()),
    }
}

pub(crate) fn down(arguments: &Down) -> anyhow::Result<()> {
    let folder = Folder::new(&arguments.directory)?;
    if folder.topology() == Some(Topology::Cluster) {
        nginx::stop(&folder.0)?;
    }
    control::stop_fleet(&folder.fleet()?, false)
}
