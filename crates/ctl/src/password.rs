//! `hash-password`, and asking for passwords.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _},
    path::PathBuf,
};

use anyhow::{Context as _, ensure};
use clap::Args;
use myelin_accounts::hash_password;

use crate::config;

/// Where a password comes from: the command line, a file, or whoever sits at the terminal.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// The password. Others on this machine can see it while the command runs.
    #[arg(short, long, conflicts_with = "password_file")]
    password: Option<String>,
    /// A file with the password in its first line; `-` is the standard input.
    #[arg(long)]
    password_file: Option<PathBuf>,
}

impl Source {
    /// The password, which is asked for if it was not given.
    pub(crate) fn read(&self) -> anyhow::Result<String> {
        let password = match (&self.password, &self.password_file) {
            (Some(password), _) => password.clone(),
            (None, Some(path)) if path.as_os_str() == "-" => first_line(&read_line()?),
            (None, Some(path)) => {
                let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
                first_line(&text)
            }
            (None, None) if io::stdin().is_terminal() => ask()?,
            (None, None) => first_line(&read_line()?),
        };
        ensure!(!password.is_empty(), "the password is empty");
        Ok(password)
    }
}

fn ask() -> anyhow::Result<String> {
    let password = rpassword::prompt_password("Password: ")?;
    let again = rpassword::prompt_password("Again: ")?;
    ensure!(password == again, "the passwords are not the same");
    Ok(password)
}

fn read_line() -> anyhow::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("reading the standard input")?;
    Ok(line)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// What to hash, and how.
#[derive(Debug, Args)]
pub(crate) struct Hash {
    /// Files and folders of the configuration, whose `bcrypt_rounds` and `password_config.pepper` count.
    #[arg(short, long = "config-path", visible_alias = "config")]
    config_path: Vec<PathBuf>,
    #[command(flatten)]
    password: Source,
}

/// Prints what the database has to hold for a password.
#[expect(clippy::print_stdout, reason = "the hash is what was asked for")]
pub(crate) fn hash(arguments: &Hash) -> anyhow::Result<()> {
    let (pepper, rounds) = match arguments.config_path.as_slice() {
        [] => (String::new(), DEFAULT_ROUNDS),
        paths => {
            let auth = config::load(paths)?.auth;
            let pepper = auth.password_config.pepper.map(|pepper| pepper.expose().to_owned());
            (pepper.unwrap_or_default(), auth.bcrypt_rounds)
        }
    };
    println!("{}", hash_password(&arguments.password.read()?, &pepper, rounds));
    Ok(())
}

/// `bcrypt_rounds` where nothing is configured.
const DEFAULT_ROUNDS: u32 = 12;
