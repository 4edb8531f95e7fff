//! The table of what is measured. A new scenario is a function in the file of its family and a line here.

mod accounts;
pub mod ephemeral;
mod fan_out;
mod idle;
mod initial_sync;
mod keys;
mod mixed;
mod presence;
mod reading;
mod restart;
mod rooms;
mod send;
mod sync;
mod to_device;

use futures_util::future::LocalBoxFuture;

use crate::{
    homeserver::Topology::{self, Cluster, Single},
    run::Run,
};

/// Something that is measured.
pub struct Scenario {
    /// How it is called on the command line.
    pub name: &'static str,
    /// What an operation is.
    pub about: &'static str,
    /// Where it runs unless the command line says otherwise.
    pub topologies: &'static [Topology],
    /// Prepares, loads and measures.
    pub run: for<'a> fn(&'a mut Run) -> LocalBoxFuture<'a, anyhow::Result<()>>,
}

const SINGLE: &[Topology] = &[Single];
const BOTH: &[Topology] = &[Single, Cluster];
const CLUSTER: &[Topology] = &[Cluster];

const fn scenario(
    name: &'static str,
    topologies: &'static [Topology],
    about: &'static str,
    run: for<'a> fn(&'a mut Run) -> LocalBoxFuture<'a, anyhow::Result<()>>,
) -> Scenario {
    Scenario { name, about, topologies, run }
}

/// All scenarios, in the order in which they run.
#[rustfmt::skip]
pub const SCENARIOS: &[Scenario] = &[
    scenario("idle", BOTH, "a second with nobody there, each daemon by its name", |run| Box::pin(idle::idle(run))),
    scenario("idle_worker_40", CLUSTER, "a second of worker2, which serves nobody, at 40 messages/s elsewhere", |run| Box::pin(idle::worker(run, 40))),
    scenario("idle_worker_400", CLUSTER, "the same at 400 messages/s", |run| Box::pin(idle::worker(run, 400))),
    scenario("start", SINGLE, "a start, until it is ready", |run| Box::pin(restart::start(run))),
    scenario("restart", SINGLE, "after a start, the first answer to one of 200 devices that wait for it", |run| Box::pin(restart::with_waiting(run))),
    scenario("register", SINGLE, "a registration with a password, 8 at once", |run| Box::pin(accounts::register(run))),
    scenario("login", SINGLE, "a login with a password, 8 at once", |run| Box::pin(accounts::login(run))),
    scenario("whoami", BOTH, "whose token it is, 8 connections as the empty handler has", |run| Box::pin(accounts::whoami(run))),
    scenario("create_room", SINGLE, "a new room, 8 at once", |run| Box::pin(rooms::create(run))),
    scenario("invites_and_joins", BOTH, "a new room, 10 invites and 10 joins, one request each, 8 rooms at once", |run| Box::pin(rooms::invites_and_joins(run))),
    scenario("membership_500", SINGLE, "one of 500 times leaving or coming to a room of 500, 8 at once", |run| Box::pin(rooms::membership_changes(run))),
    scenario("send_1", SINGLE, "a message by one sender, in 200 rooms of 20", |run| Box::pin(send::many_rooms(run, 1))),
    scenario("send_8", SINGLE, "the same by 8 at once", |run| Box::pin(send::many_rooms(run, 8))),
    scenario("send_64", BOTH, "the same by 64 at once", |run| Box::pin(send::many_rooms(run, 64))),
    scenario("send_256", SINGLE, "the same by 256 at once", |run| Box::pin(send::many_rooms(run, 256))),
    scenario("send_big_room", SINGLE, "a message to a room of 2,000, by 8 senders at once", |run| Box::pin(send::big_room(run))),
    scenario("fan_out", BOTH, "one of 200 waiting members having a message, one message after the other", |run| Box::pin(fan_out::one_by_one(run))),
    scenario("fan_out_20", BOTH, "the same at 20 messages/s", |run| Box::pin(fan_out::paced_messages(run))),
    scenario("sync_noop", BOTH, "a sync with no news, 64 users in 10 rooms each", |run| Box::pin(sync::no_news(run))),
    scenario("initial_sync", SINGLE, "the first sync of 300 rooms x 20 members x 50 events: cold, warm; the same lazy with 20 events a room", |run| Box::pin(initial_sync::initial_sync(run))),
    scenario("messages", BOTH, "a page of 50 of a room with 1,000 events, 8 readers", |run| Box::pin(reading::messages(run))),
    scenario("members_2000", SINGLE, "the members of a room of 2,000", |run| Box::pin(reading::members(run))),
    scenario("keys_upload", SINGLE, "an upload of 10 one-time keys, 8 at once", |run| Box::pin(keys::upload(run))),
    scenario("keys_query", SINGLE, "a query of 20 users' keys, 8 at once", |run| Box::pin(keys::query(run))),
    scenario("keys_claim", SINGLE, "a claim of a one-time key, 8 at once", |run| Box::pin(keys::claim(run))),
    scenario("to_device", BOTH, "a message to a device that waits for it, and having it, 8 pairs", |run| Box::pin(to_device::to_device(run))),
    scenario("receipts", BOTH, "a read receipt, 8 at once", |run| Box::pin(ephemeral::receipts(run))),
    scenario("typing", SINGLE, "beginning or ending to type, 8 at once", |run| Box::pin(ephemeral::typing(run))),
    scenario("ephemeral_storm", BOTH, "one of 20/s receipts and typing in a room where 10 members wait", |run| Box::pin(ephemeral::storm(run))),
    scenario("presence", SINGLE, "one of 500 waiting users having a change of presence, at 5/s", |run| Box::pin(presence::changes(run))),
    scenario("mixed", BOTH, "one of 40/s actions (send, receipt, typing, messages) in 10 rooms where 60 clients wait", |run| Box::pin(mixed::mixed(run))),
];
