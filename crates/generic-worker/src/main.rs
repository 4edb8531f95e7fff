//! `myelin-generic-worker`: requests of clients, and any duty that the shared configuration gives it by name.

use std::process::ExitCode;

use myelin_node::Role;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    myelin_node::main(Role::GenericWorker).await
}
