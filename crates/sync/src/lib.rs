//! The sync engine: what changed for a user since a position.
