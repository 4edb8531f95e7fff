//! What push rules make of an event.

use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

/// What an event does to a member's unread counts
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications)), as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PushBits(pub i16);

impl PushBits {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// It counts in `notification_count`.
    pub const NOTIFY: Self = Self(1);
    /// It counts in `notification_count` and in `highlight_count`.
    pub const HIGHLIGHT: Self = Self(3);

    /// Whether it counts in `notification_count`.
    pub fn notifies(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether it counts in `highlight_count`.
    pub fn highlights(self) -> bool {
        self.0 & 2 != 0
    }
}

/// What push rules make of an event for every member: the `notify` action and the `highlight` tweak
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#actions)), as far as they count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushOutcome {
    /// For every member who is not listed below. Never applies to the sender.
    pub default: PushBits,
    /// Members with another outcome, ordered by user id: mentioned, muted, with rules of their own.
    pub exceptions: Box<[(OwnedUserId, PushBits)]>,
}

impl PushOutcome {
    /// What the event is for `user`, who did not send it.
    pub fn for_user(&self, user: &UserId) -> PushBits {
        match self.exceptions.binary_search_by(|(exception, _)| exception.as_str().cmp(user.as_str())) {
            Ok(index) => self.exceptions[index].1,
            Err(_) => self.default,
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::owned_user_id;

    use super::*;

    #[test]
    fn exceptions_win_over_the_default() {
        let outcome = PushOutcome {
            default: PushBits::NOTIFY,
            exceptions: Box::new([
                (owned_user_id!("@amy:a"), PushBits::HIGHLIGHT),
                (owned_user_id!("@mute:a"), PushBits::NONE),
            ]),
        };
        assert!(outcome.for_user(ruma::user_id!("@amy:a")).highlights());
        assert!(!outcome.for_user(ruma::user_id!("@mute:a")).notifies());
        let other = outcome.for_user(ruma::user_id!("@zoe:a"));
        assert!(other.notifies() && !other.highlights());
    }
}
