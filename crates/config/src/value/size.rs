//! Sizes as Synapse writes them: `50M`, `10K`, a plain number for bytes.

use std::fmt;

use super::{Parse, mismatch};
use crate::{
    document::{Node, Value},
    fault::Findings,
    section::Shape,
};

/// A number of bytes. `K`, `M`, `G` and `T` in the file count in steps of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The size in bytes.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 4] = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        for (shift, unit) in UNITS {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// Reads a size; `None` if `text` is none.
fn parse_text(text: &str) -> Option<ByteSize> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "K" | "KB" | "KiB" => 1 << 10,
        "M" | "MB" | "MiB" => 1 << 20,
        "G" | "GB" | "GiB" => 1 << 30,
        "T" | "TB" | "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).map(ByteSize)
}

impl Parse for ByteSize {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        let size = match &node.value {
            Value::Integer(bytes) => u64::try_from(*bytes).ok().map(Self),
            Value::Text(text) => parse_text(text),
            _ => None,
        };
        size.or_else(|| mismatch(node, findings))
    }

    fn shape() -> Shape {
        Shape::Value("a size such as `10K`, `50M`, `2G` or a number of bytes")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(parse_text(text), expected.map(ByteSize), "{text}");
    }

    #[test]
    fn sizes_are_read_as_synapse_writes_them() {
        check("0", Some(0));
        check("87K", Some(89_088));
        check("50M", Some(50 << 20));
        check("500MiB", Some(500 << 20));
        check("2G", Some(2 << 30));
        check("10X", None);
        check("M", None);
        check("-1", None);
        check("99999999999999T", None);
    }

    proptest! {
        #[test]
        fn a_size_that_is_shown_can_be_read_again(bytes: u64) {
            prop_assert_eq!(parse_text(&ByteSize(bytes).to_string()), Some(ByteSize(bytes)));
        }
    }
}
