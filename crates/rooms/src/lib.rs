//! The room engine: one writer per room, group commit, state store.
