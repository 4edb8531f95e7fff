//! `myelin-main`: the main process, which serves everything that no worker was given.

use std::process::ExitCode;

use myelin_node::Role;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    myelin_node::main(Role::Main).await
}
