//! The room engine on a real database.

mod create;
mod crowds;
mod handover;
mod memberships;
mod orders;
mod read;
mod receive;
mod remote;
mod residency;
mod send;
mod state_store;
mod upgrade;
mod world;
