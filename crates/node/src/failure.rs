//! How the process ends early, and what it says then.

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
};

use myelin_config::Warning;
use myelin_daemon::Exit;

use crate::Role;

/// The process can't go on.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// The configuration is wrong.
    pub(crate) fn configuration(wrong: impl Display) -> Self {
        Self { exit: Exit::Configuration, message: wrong.to_string() }
    }

    /// Makes a failure with this exit code of any error.
    pub(crate) fn of<E: Into<anyhow::Error>>(exit: Exit) -> impl FnOnce(E) -> Self {
        move |error| Self { exit, message: format!("{:#}", error.into()) }
    }

    /// Another process took over.
    pub(crate) fn replaced() -> Self {
        Self { exit: Exit::Replaced, message: "another process took this one's place".to_owned() }
    }

    /// Says on standard error what was wrong, and gives the exit code.
    pub fn report(&self, role: Role) -> Exit {
        #[expect(
            clippy::print_stderr,
            reason = "logs may not be set up, and an operator must see this in any case"
        )]
        {
            eprintln!("{}: {}", role.program(), self.message);
        }
        self.exit
    }
}

/// What `--check-config` says of a configuration without faults.
#[expect(clippy::print_stdout, reason = "it is the answer of --check-config")]
#[expect(clippy::unnecessary_wraps, reason = "it is how `run` ends")]
pub(crate) fn print_warnings(warnings: &[Warning], log_config: &[String]) -> Result<(), Failure> {
    warnings.iter().for_each(|warning| println!("{warning}"));
    log_config.iter().for_each(|warning| println!("warning: log_config: {warning}"));
    let count = warnings.len() + log_config.len();
    println!("The configuration has no faults and {count} warnings.");
    Ok(())
}

/// The file with our process id, for as long as we run.
#[derive(Debug)]
pub(crate) struct PidFile(Option<PathBuf>);

impl PidFile {
    /// Writes the file, if one is wanted.
    pub(crate) fn write(path: Option<&Path>) -> io::Result<Self> {
        if let Some(path) = path {
            std::fs::write(path, format!("{}\n", std::process::id()))?;
        }
        Ok(Self(path.map(Path::to_path_buf)))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It may be gone already; nobody needs it any more.
            let _ = std::fs::remove_file(path);
        }
    }
}
