//! `config generate`, `config check` and `config reference`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use rand::{RngExt as _, distr::Alphanumeric};

use crate::{
    fleet::{self, Fleet},
    keys,
};

/// What to do with configuration files.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Writes a new homeserver.yaml and a signing key.
    Generate(Generate),
    /// Says what is wrong with the configuration of a process.
    Check {
        /// Takes warnings for errors.
        #[arg(long)]
        strict: bool,
        /// Checks a whole fleet: these files with each worker's file of the folder, and all of them against each other.
        #[arg(short, long, value_name = "DIR")]
        workers: Option<PathBuf>,
        /// Files and folders, as the process is given them.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Prints every option with its description and default.
    Reference,
}

/// What a new configuration says.
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// The server's name in user IDs; it can't be changed later.
    #[arg(long)]
    server_name: String,
    /// The port on loopback on which clients reach it.
    #[arg(long, default_value_t = 8008)]
    port: u16,
    /// PostgreSQL's host, or the folder of its unix socket.
    #[arg(long, default_value = "localhost")]
    database_host: String,
    /// PostgreSQL's user.
    #[arg(long, default_value = "myelin")]
    database_user: String,
    /// The name of the database.
    #[arg(long, default_value = "myelin")]
    database_name: String,
    /// The file to write; the signing key goes beside it.
    #[arg(long, default_value = "homeserver.yaml")]
    output: PathBuf,
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Generate(arguments) => generate(&arguments),
        Command::Check { strict, workers: Some(workers), paths } => check_fleet(strict, &paths, &workers),
        Command::Check { strict, workers: None, paths } => check(strict, &paths),
        Command::Reference => {
            #[expect(clippy::print_stdout, reason = "the reference is what was asked for")]
            {
                print!("{}", myelin_config::reference());
            }
            Ok(())
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command line program talks to its terminal")]
fn generate(arguments: &Generate) -> anyhow::Result<()> {
    let output = std::path::absolute(&arguments.output).context("finding the output file")?;
    if output.exists() {
        bail!("{} is there already, and is left as it is", output.display());
    }
    let key = output.with_file_name(format!("{}.signing.key", arguments.server_name));
    let text = format!(
        "# A homeserver for {name}. Every option is described in configs/homeserver.reference.yaml.\n\
         server_name: {name}\n\
         public_baseurl: \"http://localhost:{port}/\"\n\
         signing_key_path: {key}\n\
         registration_shared_secret: {secret}\n\
         trusted_key_servers: []\n\
         listeners:\n\
         \x20 - port: {port}\n\
         \x20   type: http\n\
         \x20   bind_addresses: [\"127.0.0.1\"]\n\
         \x20   resources:\n\
         \x20     - names: [client, metrics]\n\
         database:\n\
         \x20 name: psycopg2\n\
         \x20 args:\n\
         \x20   host: {host}\n\
         \x20   user: {user}\n\
         \x20   dbname: {dbname}\n",
        name = quoted(&arguments.server_name),
        port = arguments.port,
        key = quoted(&key.display().to_string()),
        secret = rand::rng().sample_iter(Alphanumeric).take(40).map(char::from).collect::<String>(),
        host = quoted(&arguments.database_host),
        user = quoted(&arguments.database_user),
        dbname = quoted(&arguments.database_name),
    );
    keys::write_secret(&output, &text)?;
    println!("Wrote {}.", output.display());
    if !key.exists() {
        keys::write_new_key(&key)?;
        println!("Wrote {}. Keep it: it is who your server is.", key.display());
    }
    check(false, &[output])
}

#[expect(clippy::print_stdout, reason = "a command line program talks to its terminal")]
fn check_fleet(strict: bool, paths: &[PathBuf], workers: &Path) -> anyhow::Result<()> {
    let fleet = Fleet::load(paths, Some(workers))?;
    // Each worker warns of the shared file again.
    let mut warnings: Vec<&String> = fleet.members.iter().flat_map(|member| &member.warnings).collect();
    warnings.sort();
    warnings.dedup();
    let findings = fleet::check::check(&fleet);
    let (others, faults): (Vec<_>, Vec<_>) = findings.iter().partition(|finding| finding.is_warning);
    warnings.iter().for_each(|warning| println!("{warning}"));
    others.iter().for_each(|warning| println!("{warning}"));
    if !faults.is_empty() {
        bail!("{}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    }
    let count = warnings.len() + others.len();
    if strict && count > 0 {
        bail!("{count} warnings, which --strict takes for errors");
    }
    println!("The {} processes have no faults and {count} warnings.", fleet.members.len());
    Ok(())
}

/// The configuration of these files and folders.
pub(crate) fn load(paths: &[PathBuf]) -> anyhow::Result<myelin_config::Config> {
    match myelin_config::load(paths) {
        Ok((config, _)) => Ok(config),
        Err(faults) => bail!("{faults}"),
    }
}

/// A YAML string, whatever is in it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[expect(clippy::print_stdout, reason = "a command line program talks to its terminal")]
fn check(strict: bool, paths: &[PathBuf]) -> anyhow::Result<()> {
    let warnings = match myelin_config::load(paths) {
        Ok((_, warnings)) => warnings,
        Err(faults) => bail!("{faults}"),
    };
    warnings.iter().for_each(|warning| println!("{warning}"));
    if strict && !warnings.is_empty() {
        bail!("{} warnings, which --strict takes for errors", warnings.len());
    }
    println!("The configuration has no faults and {} warnings.", warnings.len());
    Ok(())
}
