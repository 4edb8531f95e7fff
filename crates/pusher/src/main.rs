//! `myelin-pusher`: push notifications, for its share of the users.

use std::process::ExitCode;

use myelin_node::Role;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    myelin_node::main(Role::Pusher).await
}
