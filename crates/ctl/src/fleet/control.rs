//! `start`, `stop` and `restart`, as synctl has them.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;

use super::{Fleet, Member, process, status::Client};

/// How long a process may take until it is ready: PostgreSQL is waited for a minute.
const READY_PATIENCE: Duration = Duration::from_secs(75);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Which processes.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The shared configuration: files or folders.
    #[arg(default_value = "homeserver.yaml", value_name = "CONFIG")]
    shared: Vec<PathBuf>,
    /// Main, and a worker for each *.yaml file of this folder. Without it, main alone.
    #[arg(short = 'a', long = "all-processes", value_name = "DIR", conflicts_with = "worker")]
    all_processes: Option<PathBuf>,
    /// The worker of this file alone.
    #[arg(short = 'w', long, value_name = "FILE")]
    worker: Option<PathBuf>,
}

impl Which {
    pub fn load(&self) -> anyhow::Result<Fleet> {
        match &self.worker {
            Some(worker) => Fleet::load_one(&self.shared, worker),
            None => Fleet::load(&self.shared, self.all_processes.as_deref()),
        }
    }
}

/// Ends processes.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[command(flatten)]
    pub which: Which,
    /// Ends processes that do not end by themselves.
    #[arg(long)]
    pub kill: bool,
}

/// Starts what does not run: main first, which brings the database up to date, then the workers.
pub(crate) fn start(which: &Which) -> anyhow::Result<()> {
    start_fleet(&which.load()?)
}

/// Starts those of the processes that do not run.
pub(crate) fn start_fleet(fleet: &Fleet) -> anyhow::Result<()> {
    for member in &fleet.members {
        match process::find(member) {
            Some(pid) => {
                say(&format!("{} runs already, as process {}", member.process.name, pid.as_raw_nonzero()))
            }
            None => start_one(member)?,
        }
    }
    Ok(())
}

/// Ends what runs: workers first, main last.
pub(crate) fn stop(arguments: &Stop) -> anyhow::Result<()> {
    stop_fleet(&arguments.which.load()?, arguments.kill)
}

/// Ends those of the processes that run; with `kill`, in any case.
pub(crate) fn stop_fleet(fleet: &Fleet, kill: bool) -> anyhow::Result<()> {
    let mut failures = Vec::new();
    for member in fleet.members.iter().rev() {
        match process::find(member) {
            None => say(&format!("{} does not run", member.process.name)),
            Some(pid) => match process::end(member, pid, kill) {
                Ok(()) => say(&format!("{} stopped", member.process.name)),
                Err(error) => failures.push(format!("{error:#}")),
            },
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

/// Restarts one process after the other, each when the one before is ready again: main first, so that the database is what
/// the new workers expect (older ones do with it as well), then the workers.
pub(crate) fn restart(arguments: &Stop) -> anyhow::Result<()> {
    let fleet = arguments.which.load()?;
    for member in &fleet.members {
        if let Some(pid) = process::find(member) {
            process::end(member, pid, arguments.kill)?;
        }
        start_one(member)?;
    }
    Ok(())
}

fn start_one(member: &Member) -> anyhow::Result<()> {
    let name = &member.process.name;
    let mut child = process::spawn(member)?;
    let client = Client::new(member)?;
    let deadline = Instant::now() + READY_PATIENCE;
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("waiting for {name}"))? {
            bail!("{name} ended before it was ready, with {status}:\n{}", process::last_words(member));
        }
        let is_ready = match &client {
            Some(client) => client.is_ready(),
            // Who listens nowhere is ready once it has written its id.
            None => process::find(member).is_some(),
        };
        if is_ready {
            say(&format!("{name} is ready, as process {}", child.id()));
            return Ok(());
        }
        if Instant::now() >= deadline {
            let patience = READY_PATIENCE.as_secs();
            bail!("{name} is not ready after {patience} seconds:\n{}", process::last_words(member));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[expect(clippy::print_stdout, reason = "a command line program talks to its terminal")]
fn say(text: &str) {
    println!("{text}");
}
