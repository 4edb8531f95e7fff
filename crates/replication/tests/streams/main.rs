//! Streams on a real PostgreSQL, and over a real Redis.

mod lanes;
mod notices;
mod words;
mod writing;
