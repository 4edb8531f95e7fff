//! The tokens' form: `syt_<localpart>_<random>_<checksum>`.
//!
//! The localpart (unpadded URL-safe base64) lets a reverse proxy balance by user; the checksum lets anything that finds
//! such a string tell that it is one, and us refuse a mistyped token without asking the database.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
pub use myelin_storage::accounts::TokenHash;
use myelin_types::random_alphanumeric;
use ruma::UserId;
use sha2::{Digest as _, Sha256};

/// About 119 bits.
const RANDOM_LEN: usize = 20;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Access,
    Refresh,
    Login,
    OpenId,
}

impl TokenKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Access => "syt",
            Self::Refresh => "syr",
            Self::Login => "syl",
            Self::OpenId => "syo",
        }
    }
}

/// A new token of a user.
pub fn generate(kind: TokenKind, user: &UserId) -> String {
    let localpart = URL_SAFE_NO_PAD.encode(user.localpart());
    let token = format!("{}_{localpart}_{}", kind.prefix(), random_alphanumeric(RANDOM_LEN));
    let checksum = checksum(&token);
    format!("{token}_{checksum}")
}

/// The hash under which the database knows the token.
pub fn hash(token: &str) -> TokenHash {
    TokenHash(Sha256::digest(token).into())
}

/// Whether the token can't be one of ours: it has our form, but not its checksum.
pub fn is_mistyped(token: &str) -> bool {
    let prefixed = token.strip_prefix("sy").is_some_and(|rest| rest.as_bytes().get(1) == Some(&b'_'));
    match token.rsplit_once('_') {
        Some((body, found)) if prefixed => checksum(body) != found,
        _ => false,
    }
}

/// The CRC-32 in base 62, at least six digits.
fn checksum(text: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut number = crc32fast::hash(text.as_bytes()) as usize;
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[number % 62];
        number /= 62;
    }
    // 62⁶ is more than 2³², so that six digits always do.
    digits.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::user_id;

    use super::*;

    #[test]
    fn a_token_carries_the_localpart_and_a_checksum() {
        let token = generate(TokenKind::Access, user_id!("@alice:example.org"));
        assert!(token.starts_with("syt_YWxpY2U_"), "{token}");
        assert_eq!(token.len(), "syt_YWxpY2U_".len() + 20 + 1 + 6);
        assert!(!is_mistyped(&token));
        assert_ne!(token, generate(TokenKind::Access, user_id!("@alice:example.org")));
    }

    #[test]
    fn the_checksum_is_the_one_that_synapse_writes() {
        // crc32(b"123456789") is 0xcbf43926, by every table of test vectors.
        assert_eq!(checksum("123456789"), "3Jzrme");
        assert_eq!(checksum(""), "000000");
    }

    #[test]
    fn other_peoples_tokens_are_not_called_mistyped() {
        for token in ["", "secret", "MDAxabc", "syt", "system_token"] {
            assert!(!is_mistyped(token), "{token:?}");
        }
        assert!(is_mistyped("syt_YWxpY2U_abc_000000"));
        assert!(is_mistyped("syr__"));
    }

    proptest! {
        #[test]
        fn a_wrong_letter_is_noticed(index in 4..39usize, letter in "[a-zA-Z0-9]") {
            let token = generate(TokenKind::Access, user_id!("@alice:example.org"));
            let mut changed = token.clone();
            changed.replace_range(index..=index, &letter);
            prop_assert_eq!(is_mistyped(&changed), changed != token);
        }
    }
}
