//! The engine over a real database, fed by the streams.

mod histories;
mod memory;
mod people;
mod responses;
mod sources;
mod speed;
mod waiting;
mod world;
