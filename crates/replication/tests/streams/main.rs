//! Streams on a real PostgreSQL, and over a real Redis.

mod lanes;
mod lost_answers;
mod notices;
mod words;
mod writing;
