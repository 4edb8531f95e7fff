//! The room engine on a real database.

mod create;
mod memberships;
mod read;
mod send;
mod state_store;
mod upgrade;
mod world;
