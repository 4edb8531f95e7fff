//! Patterns with `*` and `?`, as `alias_creation_rules` has them.

use super::{Parse, mismatch};
use crate::{document::Node, fault::Findings, section::Shape};

/// A pattern where `*` stands for any number of characters and `?` for one; the case counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Makes a pattern of `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern covers the whole of `text`.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let pattern: Vec<char> = self.0.chars().collect();
        let text: Vec<char> = text.chars().collect();
        let (mut p, mut t) = (0, 0);
        // Where to go on when a later part fails: behind the last `*`, with one more character taken by it.
        let mut retry: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some('*') => {
                    retry = Some((p + 1, t));
                    p += 1;
                }
                Some(c) if *c == '?' || *c == text[t] => {
                    p += 1;
                    t += 1;
                }
                _ => {
                    let Some((after_star, taken)) = retry else { return false };
                    retry = Some((after_star, taken + 1));
                    p = after_star;
                    t = taken + 1;
                }
            }
        }
        pattern[p..].iter().all(|c| *c == '*')
    }
}

impl Parse for Glob {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        node.as_text().map(Self::new).or_else(|| mismatch(node, findings))
    }

    fn shape() -> Shape {
        Shape::Value("a pattern with `*` and `?`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, text: &str, expected: bool) {
        assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} {text}");
    }

    #[test]
    fn patterns_cover_whole_texts() {
        check("*", "", true);
        check("*", "anything", true);
        check("a", "a", true);
        check("a", "ab", false);
        check("@*:example.com", "@alice:example.com", true);
        check("@*:example.com", "@alice:example.org", false);
        check("#?oom:*", "#room:x", true);
        check("#?oom:*", "#oom:x", false);
        check("a*b*c", "a123b45b6c", true);
        check("a*b*c", "a123b45b6", false);
        check("*a*a*a*a*b", &"a".repeat(200), false);
    }
}
