//! Numbers that canonical JSON forbids, in events of room versions 1 to 5.
//!
//! Servers "SHOULD be capable of handling" them ([spec](https://spec.matrix.org/v1.19/appendices/#canonical-json)),
//! but how they are hashed is not said. The events that exist were hashed by servers which print integers of any size
//! in full and floats in the shortest form that reads back the same, so that is what we do.
//!
//! Such a number travels through ruma's canonical JSON as a string that starts with a Unicode noncharacter.

/// Begins the strings that stand for numbers. No character, and so in no text anyone writes.
const MARK: char = '\u{FDD0}';

/// The longest number we carry, in digits.
const MAX_DIGITS: usize = 400;

/// Replaces every odd number in a JSON text by its marked string.
pub(super) fn mark(json: &str) -> Result<String, String> {
    let escaped_mark = |text: &str| text.to_ascii_lowercase().contains("\\ufdd0");
    if json.contains(MARK) || escaped_mark(json) {
        return Err("a noncharacter next to numbers that canonical JSON forbids".to_owned());
    }
    let mut marked = String::with_capacity(json.len() + 32);
    let mut rest = json;
    while let Some(start) = rest.find(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
        marked.push_str(&rest[..start]);
        rest = &rest[start..];
        let length = if rest.starts_with('"') {
            string_length(rest)
        } else {
            rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')).unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at(length);
        if token.starts_with('"') {
            marked.push_str(token)
        } else {
            mark_number(token, &mut marked)?
        }
        rest = after;
    }
    marked.push_str(rest);
    Ok(marked)
}

/// The length of the string literal that `json` starts with; all of `json` if it is not closed.
fn string_length(json: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in json.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    json.len()
}

fn mark_number(token: &str, out: &mut String) -> Result<(), String> {
    serde_json::from_str::<serde::de::IgnoredAny>(token)
        .map_err(|_| format!("`{token:.40}` is not a number"))?;
    if token.len() > MAX_DIGITS {
        return Err("a number of too many digits".to_owned());
    }
    if token == "-0" {
        out.push('0');
    } else if token.contains(['.', 'e', 'E']) {
        let value: f64 = token.parse().map_err(|_| format!("`{token:.40}` is not a number"))?;
        if !value.is_finite() {
            return Err(format!("`{token:.40}` is larger than a double can hold"));
        }
        push_marked(&shortest_float(value), out);
    } else if token.parse::<ruma::Int>().is_ok() {
        out.push_str(token);
    } else {
        push_marked(token, out);
    }
    Ok(())
}

fn push_marked(number: &str, out: &mut String) {
    out.push('"');
    out.push(MARK);
    out.push_str(number);
    out.push('"');
}

/// The shortest text that reads back as `value`, always recognizable as a float: `1.0`, `0.0001`, `1e-05`, `1e+16`.
fn shortest_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("`{:e}` prints an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` prints an integer exponent");
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    // Within these bounds `{:?}` would switch to exponents at other places, `{}` never does.
    let plain = format!("{value}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

/// Whether a string of a parsed object stands for a number.
pub(super) fn is_marked(text: &str) -> bool {
    text.starts_with(MARK)
}

/// The number that a marked string stands for.
pub(super) fn unmark(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// Puts the numbers back into a serialized object.
pub(super) fn unmark_all(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut pieces = json.split(MARK);
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        // Before each mark there is the quote that opens the string, and after the number the one that closes it.
        out.pop();
        match piece.split_once('"') {
            Some((number, after)) => {
                out.push_str(number);
                out.push_str(after);
            }
            None => out.push_str(piece),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn floats_are_printed_as_the_servers_that_made_them_did() {
        for (value, expected) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (51146.98, "51146.98"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (123456789012345680.0, "1.2345678901234568e+17"),
        ] {
            assert_eq!(shortest_float(value), expected);
        }
    }

    #[test]
    fn digits_in_strings_are_left_alone() {
        assert_eq!(mark(r#"{"1.5":"2.5\"3.5","x":4}"#).unwrap(), r#"{"1.5":"2.5\"3.5","x":4}"#);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for json in ["[01]", "[1.]", "[-]", "[1e400]", "[1.5,\"\\uFDD0\"]", "[1.5,\"\u{FDD0}\"]"] {
            mark(json).expect_err(json);
        }
    }

    proptest! {
        #[test]
        fn a_printed_float_reads_back_as_itself(value in any::<f64>().prop_filter("JSON has no other", |value| value.is_finite())) {
            prop_assert_eq!(shortest_float(value).parse(), Ok(value));
        }

        #[test]
        fn marking_and_unmarking_changes_nothing_but_the_form_of_floats(
            floats in proptest::collection::vec((-1e30f64..1e30).prop_map(shortest_float), 0..8),
            integers in proptest::collection::vec("-?[1-9][0-9]{0,30}", 0..8),
            text in any::<String>().prop_filter("reserved", |text| !text.contains(MARK) && !text.contains("ufdd0")),
        ) {
            let text = serde_json::to_string(&text).unwrap();
            let json = format!("[{}]", [floats, integers, vec![text]].concat().join(","));
            prop_assert_eq!(unmark_all(&mark(&json).unwrap()), json);
        }
    }
}
