//! Durations as Synapse writes them: `5m`, `1h`, a plain number for milliseconds.

use std::time::Duration;

use super::{Parse, mismatch};
use crate::{
    document::{Node, Value},
    fault::Findings,
    section::Shape,
};

const SECOND: u64 = 1000;
const DAY: u64 = 24 * 60 * 60 * SECOND;

/// Longer than any sensible option, and short enough that adding it to a time can't overflow.
const LONGEST_MS: u64 = 1000 * 365 * DAY;

/// Reads a duration; `None` if `text` is none.
fn parse_text(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit.trim() {
        "" | "ms" => 1,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 60 * 60 * SECOND,
        "d" => DAY,
        "w" => 7 * DAY,
        "y" => 365 * DAY,
        _ => return None,
    };
    let ms = number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
    (ms <= LONGEST_MS).then(|| Duration::from_millis(ms))
}

impl Parse for Duration {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        let duration = match &node.value {
            Value::Integer(ms) => {
                u64::try_from(*ms).ok().filter(|ms| *ms <= LONGEST_MS).map(Self::from_millis)
            }
            Value::Text(text) => parse_text(text),
            _ => None,
        };
        duration.or_else(|| mismatch(node, findings))
    }

    /// Lifetimes without an end are written as `infinity` too.
    fn is_absent(node: &Node) -> bool {
        node.is_null() || node.as_text() == Some("infinity")
    }

    fn shape() -> Shape {
        Shape::Value("a duration such as `30s`, `5m`, `1h`, `7d` or a number of milliseconds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected_ms: Option<u64>) {
        assert_eq!(parse_text(text), expected_ms.map(Duration::from_millis), "{text}");
    }

    #[test]
    fn durations_are_read_as_synapse_writes_them() {
        check("1500", Some(1500));
        check("30s", Some(30_000));
        check("5m", Some(300_000));
        check("1h", Some(3_600_000));
        check("28d", Some(28 * DAY));
        check("1w", Some(7 * DAY));
        check("2y", Some(730 * DAY));
        check("5 m", Some(300_000));
        check("m", None);
        check("-5s", None);
        check("5 minutes", None);
        check("1.5h", None);
        check("99999999999999999999y", None);
        check("2000y", None);
    }
}
