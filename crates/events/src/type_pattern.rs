//! The types of events that a filter names ([spec](https://spec.matrix.org/v1.19/client-server-api/#filtering)).

/// Whether a type matches a pattern, in which `*` stands for any characters
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#definition-filter)).
pub fn matches_type(pattern: &str, event_type: &str) -> bool {
    let Some((start, mut rest)) = pattern.split_once('*') else { return pattern == event_type };
    let Some(mut text) = event_type.strip_prefix(start) else { return false };
    // The first place where a middle part stands leaves most for the others.
    while let Some((part, after)) = rest.split_once('*') {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
        rest = after;
    }
    text.ends_with(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn patterns_match_as_a_naive_matcher_says(pattern in "[ab*.]{0,8}", text in "[ab.]{0,10}") {
            fn naive(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|at| naive(rest, &text[at..])),
                    Some((byte, rest)) => text.first() == Some(byte) && naive(rest, &text[1..]),
                }
            }
            prop_assert_eq!(matches_type(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
