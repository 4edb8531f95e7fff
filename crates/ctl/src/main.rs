//! `myelin-ctl`: the control program. `myelin-ctl help` lists what it does.

mod config;
mod fleet;
mod keys;
mod password;
mod proxy_config;
mod up;
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
    /// Starts a whole homeserver in a folder, to try and to develop.
    Up(up::Up),
    /// Ends what `up` started.
    Down(up::Down),
    /// Starts main, or all processes, or one worker, and waits until they are ready.
    Start(fleet::control::Which),
    /// Ends them.
    Stop(fleet::control::Stop),
    /// Restarts one process after the other, each when the one before is ready.
    Restart(fleet::control::Stop),
    /// Tells how they are: ready, what they hold, how far they are behind.
    Status(fleet::status::Status),
    /// Prints the configuration of a reverse proxy in front of them.
    ProxyConfig(proxy_config::ProxyConfig),
    /// Makes a signing key.
    GenerateSigningKey(keys::Generate),
    /// Makes an account on a running server, by its shared secret.
    RegisterUser(users::Register),
    /// Hashes a password as the database has it.
    HashPassword(password::Hash),
}

fn main() -> ExitCode {
    // Fails only if a provider is installed already, which then is this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = match Arguments::parse().command {
        Command::Config(command) => config::run(command),
        Command::Up(arguments) => up::up(&arguments),
        Command::Down(arguments) => up::down(&arguments),
        Command::Start(which) => fleet::control::start(&which),
        Command::Stop(arguments) => fleet::control::stop(&arguments),
        Command::Restart(arguments) => fleet::control::restart(&arguments),
        Command::Status(arguments) => fleet::status::run(&arguments),
        Command::ProxyConfig(arguments) => proxy_config::run(&arguments),
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
