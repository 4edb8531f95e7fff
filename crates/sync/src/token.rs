//! Sync tokens: how far a client has seen each stream.

use std::{fmt, str::FromStr};

use myelin_types::{ParsePositionError, Position};

/// How far a client has seen every stream: `next_batch` of one `/sync`, and `since` of the next
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync)).
///
/// Written as `s` and the eight positions, separated by `_`. Clients treat it as opaque, and we treat what they send
/// as a claim that need not be true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SyncToken {
    /// Events of rooms.
    pub events: Position,
    /// Account data, global and of rooms.
    pub account_data: Position,
    /// Receipts.
    pub receipts: Position,
    /// Typing notifications.
    pub typing: Position,
    /// Presence.
    pub presence: Position,
    /// Push rules.
    pub push_rules: Position,
    /// Messages to devices.
    pub to_device: Position,
    /// Changes of users' devices and keys.
    pub device_lists: Position,
}

impl SyncToken {
    fn positions(&self) -> [&Position; 8] {
        [
            &self.events,
            &self.account_data,
            &self.receipts,
            &self.typing,
            &self.presence,
            &self.push_rules,
            &self.to_device,
            &self.device_lists,
        ]
    }

    fn positions_mut(&mut self) -> [&mut Position; 8] {
        [
            &mut self.events,
            &mut self.account_data,
            &mut self.receipts,
            &mut self.typing,
            &mut self.presence,
            &mut self.push_rules,
            &mut self.to_device,
            &mut self.device_lists,
        ]
    }
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, position) in self.positions().into_iter().enumerate() {
            write!(f, "{}{position}", if index == 0 { 's' } else { '_' })?;
        }
        Ok(())
    }
}

impl FromStr for SyncToken {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.strip_prefix('s').ok_or(ParsePositionError)?.split('_');
        let mut token = Self::default();
        for position in token.positions_mut() {
            *position = parts.next().ok_or(ParsePositionError)?.parse()?;
        }
        match parts.next() {
            None => Ok(token),
            Some(_) => Err(ParsePositionError),
        }
    }
}

#[cfg(test)]
mod tests {
    use myelin_types::{StreamId, WriterId};
    use proptest::prelude::*;

    use super::*;

    fn position() -> impl Strategy<Value = Position> {
        (0..10_000i64, proptest::collection::vec((0..8i16, 0..20_000i64), 0..3)).prop_map(
            |(minimum, writers)| {
                let mut position = Position::at(StreamId(minimum));
                for (writer, id) in writers {
                    position.advance(WriterId(writer), StreamId(id));
                }
                position
            },
        )
    }

    proptest! {
        #[test]
        fn a_token_survives_being_written_and_read(positions in proptest::array::uniform8(position())) {
            let mut token = SyncToken::default();
            for (slot, position) in token.positions_mut().into_iter().zip(positions) {
                *slot = position;
            }
            let text = token.to_string();
            prop_assert_eq!(text.parse::<SyncToken>().unwrap(), token);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_~.".contains(&byte)));
        }

        #[test]
        fn any_text_is_read_without_harm(text: String) {
            if let Ok(token) = text.parse::<SyncToken>() {
                prop_assert_eq!(token.to_string().parse::<SyncToken>().unwrap(), token);
            }
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "",
            "s",
            "s1",
            "t1",
            "1_2_3_4_5_6_7_8",
            "s1_2_3_4_5_6_7",
            "s1_2_3_4_5_6_7_8_9",
            "s1_2_3_4_5_6_7_x",
            "s1_2_3_4_5_6_7_8 ",
            "s1_2_3_4_5_6_7_-8",
        ] {
            assert!(text.parse::<SyncToken>().is_err(), "{text:?}");
        }
    }
}
