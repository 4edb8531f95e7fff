//! `myelin-ctl`: the control program. `myelin-ctl help` lists what it does.

mod config;
mod keys;
mod password;
mod users;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Controls a Myelin homeserver.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes, checks and explains configuration files.
    #[command(subcommand)]
    Config(config::Command),
    /// Makes a signing key.
    GenerateSigningKey(keys::Generate),
    /// Makes an account on a running server, by its shared secret.
    RegisterUser(users::Register),
    /// Hashes a password as the database has it.
    HashPassword(password::Hash),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Config(command) => config::run(command),
        Command::GenerateSigningKey(arguments) => keys::generate(&arguments),
        Command::RegisterUser(arguments) => users::register(&arguments),
        Command::HashPassword(arguments) => password::hash(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a command line program talks to its terminal")]
            {
                eprintln!("myelin-ctl: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
