//! The engine over a real database, fed by the streams.

mod histories;
mod key_changes;
mod memory;
mod people;
mod responses;
mod selecting;
mod sources;
mod speed;
mod truth;
mod waiting;
mod world;
