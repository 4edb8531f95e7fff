//! Randomness for identifiers and secrets.

use rand::{RngExt as _, distr::Alphanumeric};

/// `len` letters and digits from the operating system's seeded generator: about 5.95 bits each.
pub fn random_alphanumeric(len: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(len).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_strings_have_the_length_asked_for_and_differ() {
        let (one, other) = (random_alphanumeric(24), random_alphanumeric(24));
        assert_eq!(one.len(), 24);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_ne!(one, other);
    }
}
