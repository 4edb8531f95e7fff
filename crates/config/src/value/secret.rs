//! Secrets, which are never printed.

use std::fmt;

use super::{Parse, mismatch};
use crate::{
    document::{Node, Value},
    fault::Findings,
    section::Shape,
};

/// A password, key or token from the configuration. It has no `Display`, and its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret that comes from elsewhere than a file.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself: for its one use, never for a log or an answer.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Parse for Secret {
    const FROM_FILE: bool = true;

    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        match &node.value {
            Value::Text(text) if !text.is_empty() => Some(Self(text.clone())),
            Value::Integer(number) => Some(Self(number.to_string())),
            _ => mismatch(node, findings),
        }
    }

    fn shape() -> Shape {
        Shape::Secret
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[secret]");
    }
}
