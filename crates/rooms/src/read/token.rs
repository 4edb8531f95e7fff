//! Places between the events of a timeline, as clients name them.

use std::{fmt, str::FromStr};

use myelin_types::Position;

/// A place between two events of a timeline: what is at its position or before comes before it
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#pagination)).
///
/// Written as `t` and the position. It can also be read from a token of `/sync`, which begins with how far the client
/// has seen the events stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaginationToken(pub i64);

/// Text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown pagination token")]
pub struct InvalidToken;

impl PaginationToken {
    /// The place just before an event at `pos`.
    pub(crate) fn before(pos: i64) -> Self {
        Self(pos.saturating_sub(1))
    }
}

impl fmt::Display for PaginationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl FromStr for PaginationToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(position) = text.strip_prefix('t') {
            return position.parse().map(Self).map_err(|_| InvalidToken);
        }
        let events = text.strip_prefix('s').and_then(|rest| rest.split('_').next()).ok_or(InvalidToken)?;
        // What the client has seen lies before the place, also where one writer is ahead of another.
        let position: Position = events.parse().map_err(|_| InvalidToken)?;
        Ok(Self(position.maximum().0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_of_sync_are_understood() {
        assert_eq!("s57_1_2_3".parse(), Ok(PaginationToken(57)));
        assert_eq!("s57~3.60_1_2".parse(), Ok(PaginationToken(60)));
    }

    #[test]
    fn nonsense_is_no_token() {
        for text in ["", "t", "s", "x5", "t5x", "5", "t99999999999999999999", "s_1"] {
            assert_eq!(text.parse::<PaginationToken>(), Err(InvalidToken), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(position: i64) {
            let token = PaginationToken(position);
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }
    }
}
