//! The harness of the black-box tests: private servers, real daemons, and clients that only speak HTTP.
//!
//! Nothing here calls the homeserver's code. A test starts [`Server`]s, makes [`User`]s on them, and awaits what it expects to
//! see in a [`Sync`]; it never sleeps. Tests that break things (kill -9, SIGSTOP) run a [`load`](load::Load) meanwhile
//! and hand what all clients saw to the [`invariants`].
//!
//! ```no_run
//! # async fn example() {
//! use myelin_integration_tests::Server;
//!
//! let server = Server::start_default().await;
//! let alice = server.register("alice").await;
//! let room = alice.create_room(serde_json::json!({ "preset": "public_chat" })).await;
//! let event_id = alice.send_text(&room, "hello").await;
//! alice.sync_until(|sync| sync.has(&event_id)).await;
//! # }
//! ```
//!
//! Start reading at [`Server`]; [`invariants`] says what must hold whatever happens.

mod api;
mod cluster;
mod daemon;
pub mod haproxy;
pub mod invariants;
pub mod load;
pub mod nginx;
pub mod proxy;
pub mod real_clients;
pub mod report;
mod server;
mod sync;
mod timeline;
mod user;
pub mod wire;

pub use api::{Answer, Api, PATIENCE};
pub use cluster::{Cluster, Topology, resident_bytes};
pub use daemon::{Daemon, program};
pub use server::{BCRYPT_ROUNDS, Options, Said, Server};
pub use sync::{Sync, Syncer};
pub use timeline::Timelines;
pub use user::{User, path_segment};
