//! [Glob patterns](https://spec.matrix.org/v1.19/appendices/#glob-style-matching), on whole values and on words.
//!
//! Patterns are users' and values are anybody's, so the time that matching takes is bounded by the product of their
//! lengths, whatever they are.

/// Characters of a pattern at most; a longer one matches nothing.
const MAX_PATTERN: usize = 1024;

/// A pattern that was read once. Values are given in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// No wildcards: this text, in lower case.
    Literal(Box<str>),
    /// With wildcards.
    Glob(Box<[Token]>),
    /// Too long.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Any,
}

impl Pattern {
    pub fn new(pattern: &str) -> Self {
        let lower = pattern.to_lowercase();
        if lower.chars().count() > MAX_PATTERN {
            return Self::Never;
        }
        if !lower.contains(['*', '?']) {
            return Self::Literal(lower.into());
        }
        let mut tokens: Vec<Token> = lower
            .chars()
            .map(|char| match char {
                '*' => Token::Any,
                '?' => Token::One,
                char => Token::Char(char),
            })
            .collect();
        tokens.dedup_by(|next, token| *next == Token::Any && *token == Token::Any);
        Self::Glob(tokens.into())
    }

    /// Whether the pattern matches the whole value.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *value,
            Self::Glob(tokens) => matches_whole(tokens, value),
            Self::Never => false,
        }
    }

    /// Whether the pattern matches a part of the value that starts and ends at a
    /// [word boundary](https://spec.matrix.org/v1.19/client-server-api/#push-rules).
    pub fn matches_words(&self, value: &str) -> bool {
        match self {
            Self::Literal(literal) => contains_words(value, literal),
            Self::Glob(tokens) => matches_part(tokens, value),
            Self::Never => false,
        }
    }
}

/// Whether `words` are in `value`, with word boundaries around them.
pub(crate) fn contains_words(value: &str, words: &str) -> bool {
    if words.is_empty() {
        return false;
    }
    let mut from = 0;
    while let Some(found) = value[from..].find(words) {
        let (start, end) = (from + found, from + found + words.len());
        let before = value[..start].chars().next_back();
        let after = value[end..].chars().next();
        if !before.is_some_and(is_word_char) && !after.is_some_and(is_word_char) {
            return true;
        }
        from = start + value[start..].chars().next().map_or(1, char::len_utf8);
    }
    false
}

/// Characters that are part of words; all others are boundaries.
pub(crate) fn is_word_char(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

fn matches_whole(tokens: &[Token], value: &str) -> bool {
    let mut states = States::new(tokens);
    states.start();
    for char in value.chars() {
        states.step(char);
        if states.is_dead() {
            return false;
        }
    }
    states.at_end()
}

fn matches_part(tokens: &[Token], value: &str) -> bool {
    let mut states = States::new(tokens);
    let mut at_boundary = true;
    for char in value.chars() {
        if at_boundary {
            states.start();
        }
        let ends_word = !is_word_char(char);
        // The part may end before this character if that is a boundary …
        if ends_word && states.at_end_of_part() {
            return true;
        }
        states.step(char);
        at_boundary = ends_word;
    }
    // … or at the end.
    states.at_end_of_part()
}

/// The places in the pattern that the characters read so far may have led to.
struct States<'t> {
    tokens: &'t [Token],
    /// One per token, and one for the end.
    active: Vec<bool>,
    next: Vec<bool>,
    /// Something was matched: an empty part is none.
    stepped: bool,
}

impl<'t> States<'t> {
    fn new(tokens: &'t [Token]) -> Self {
        let places = tokens.len() + 1;
        Self { tokens, active: vec![false; places], next: vec![false; places], stepped: false }
    }

    fn start(&mut self) {
        enter(self.tokens, &mut self.active, 0);
    }

    fn step(&mut self, char: char) {
        self.stepped = true;
        self.next.fill(false);
        for place in 0..self.tokens.len() {
            if !self.active[place] {
                continue;
            }
            match self.tokens[place] {
                Token::Any => enter(self.tokens, &mut self.next, place),
                Token::One => enter(self.tokens, &mut self.next, place + 1),
                Token::Char(wanted) if wanted == char => enter(self.tokens, &mut self.next, place + 1),
                Token::Char(_) => {}
            }
        }
        std::mem::swap(&mut self.active, &mut self.next);
    }

    fn is_dead(&self) -> bool {
        !self.active.contains(&true)
    }

    fn at_end(&self) -> bool {
        self.active.last().copied().unwrap_or_default()
    }

    fn at_end_of_part(&self) -> bool {
        self.stepped && self.at_end()
    }
}

/// Goes to a place, and on past `*`, which matches nothing too.
fn enter(tokens: &[Token], states: &mut [bool], place: usize) {
    states[place] = true;
    if tokens.get(place) == Some(&Token::Any) {
        states[place + 1] = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_whole_value_matches() {
        let cases = [
            ("lunc?*", "lunch plans", true),
            ("LUNC?*", "lunch", true),
            ("lunc?*", " lunch", false),
            ("lunc?*", "lunc", false),
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("*", "", true),
            ("**", "x", true),
            ("?", "", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("", "", true),
        ];
        for (pattern, value, expected) in cases {
            assert_eq!(Pattern::new(pattern).matches(value), expected, "{pattern:?} on {value:?}");
        }
    }

    #[test]
    fn a_part_matches_between_word_boundaries() {
        let cases = [
            ("ex*ple", "an example event.", true),
            ("ex*ple", "exple", true),
            ("ex*ple", "an exciting triple-whammy", true),
            ("ex*ple", "an examples", false),
            ("cake", "i like cake!", true),
            ("cake", "cakes", false),
            ("cake", "a cheesecake", false),
            ("cake", "pancake cake", true),
            ("cake lie", "the cake lie", true),
            ("ca?e", "the cave is dark", true),
            ("ca?e", "caves", false),
            ("*ake", "a cake", true),
            ("@room", "hello @room!", true),
            ("@room", "me@room", false),
            ("日本", "こんにちは日本です", true),
            ("zoë", "hi zoë, zoe", true),
            ("x", "éxé", true),
            ("", "anything", false),
            ("*", "", false),
            ("aa", "aaa aa", true),
        ];
        for (pattern, value, expected) in cases {
            assert_eq!(Pattern::new(pattern).matches_words(value), expected, "{pattern:?} on {value:?}");
        }
    }

    #[test]
    fn a_pattern_that_is_too_long_matches_nothing() {
        assert!(!Pattern::new(&"*".repeat(MAX_PATTERN + 1)).matches("x"));
    }

    proptest! {
        #[test]
        fn wildcards_agree_with_a_plain_reading_of_the_rules(pattern in "[ab *?]{0,6}", value in "[ab ]{0,8}") {
            let tokens: Vec<char> = pattern.chars().collect();
            let chars: Vec<char> = value.chars().collect();
            prop_assert_eq!(Pattern::new(&pattern).matches(&value), slow_match(&tokens, &chars));
            let part = (0..=chars.len()).any(|start| (start + 1..=chars.len()).any(|end| {
                let starts = start == 0 || !is_word_char(chars[start - 1]);
                let ends = end == chars.len() || !is_word_char(chars[end]);
                starts && ends && slow_match(&tokens, &chars[start..end])
            }));
            prop_assert_eq!(Pattern::new(&pattern).matches_words(&value), part);
        }
    }

    fn slow_match(pattern: &[char], value: &[char]) -> bool {
        match pattern.split_first() {
            None => value.is_empty(),
            Some(('*', rest)) => (0..=value.len()).any(|skipped| slow_match(rest, &value[skipped..])),
            Some(('?', rest)) => !value.is_empty() && slow_match(rest, &value[1..]),
            Some((wanted, rest)) => value.first() == Some(wanted) && slow_match(rest, &value[1..]),
        }
    }
}
