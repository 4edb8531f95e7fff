//! `myelin-appservice-sender`: events and other news to application services, for its share of them.

use std::process::ExitCode;

use myelin_node::Role;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    myelin_node::main(Role::AppserviceSender).await
}
