//! `myelin-federation-sender`: events and other news to other servers, for its share of the destinations.

use std::process::ExitCode;

use myelin_node::Role;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    myelin_node::main(Role::FederationSender).await
}
