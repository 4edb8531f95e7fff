//! The reference of all options.

/// The text of `configs/homeserver.reference.yaml`.
#[must_use]
pub fn reference() -> String {
    String::new()
}
