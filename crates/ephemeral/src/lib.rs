//! Receipts, typing and presence.
