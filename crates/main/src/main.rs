//! `myelin-main`: the main process, which serves everything that no worker was given.

use std::process::ExitCode;

use myelin_daemon::Arguments;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::from_command_line();
    match myelin_main::run(&arguments).await {
        Ok(()) => myelin_daemon::Exit::Stopped.into(),
        Err(failure) => failure.report().into(),
    }
}
