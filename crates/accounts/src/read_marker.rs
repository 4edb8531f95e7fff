//! Read markers: one `m.fully_read` per room
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#read-and-unread-markers)).

use ruma::{EventId, OwnedEventId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::{AccountData, AccountDataError, AccountDataEvent};

const EVENT_TYPE: &str = "m.fully_read";

/// The content of `m.fully_read`.
#[derive(Serialize, Deserialize)]
struct FullyRead {
    event_id: OwnedEventId,
}

impl AccountData {
    /// Moves a user's read marker in a room to an event, and gives whether it did: the marker only goes forward, since an
    /// older device must not take back what a newer one has done.
    ///
    /// `place` is where the event stands in the room's timeline. `place_of` tells it of the event that is marked now; if
    /// it does not know, the marker moves.
    ///
    /// # Errors
    /// See [`AccountDataError`].
    pub async fn move_read_marker<P: Ord>(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        event_id: &EventId,
        place: P,
        place_of: impl AsyncFnOnce(&EventId) -> Option<P>,
    ) -> Result<bool, AccountDataError> {
        if let Some(former) = self.read_marker(user_id, room_id).await?
            && place_of(&former).await.is_some_and(|former| former >= place)
        {
            return Ok(false);
        }
        let content = FullyRead { event_id: event_id.to_owned() };
        let content = serde_json::value::to_raw_value(&content).expect("an event id is JSON");
        self.set(AccountDataEvent {
            user_id: user_id.to_owned(),
            room_id: Some(room_id.to_owned()),
            event_type: EVENT_TYPE.to_owned(),
            content: content.into(),
        })
        .await?;
        Ok(true)
    }

    async fn read_marker(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
    ) -> Result<Option<OwnedEventId>, AccountDataError> {
        let data = self.of(user_id).await?;
        let content = data.get(Some(room_id), EVENT_TYPE);
        let content = content.and_then(|content| serde_json::from_str::<FullyRead>(content.get()).ok());
        Ok(content.map(|content| content.event_id))
    }
}

#[cfg(test)]
mod tests {
    use ruma::{event_id, room_id};

    use super::*;
    use crate::{account_data::tests::Fixture, testing::alice};

    /// The places of events that are named by them.
    async fn place_of(event_id: &EventId) -> Option<u32> {
        event_id.as_str().strip_prefix('$')?.parse().ok()
    }

    #[tokio::test]
    async fn a_read_marker_goes_forward_in_its_room() {
        let fixture = Fixture::new().await;
        let data = &fixture.account_data;
        let (room, other) = (room_id!("!room:example.org"), room_id!("!other:example.org"));
        let check = async |room: &RoomId, to: &str, place: u32, moves: bool, marked: &str| {
            let to = EventId::parse(to).unwrap();
            let moved = data.move_read_marker(alice(), room, &to, place, place_of).await.unwrap();
            let now = data.read_marker(alice(), room).await.unwrap();
            assert_eq!((moved, now), (moves, Some(EventId::parse(marked).unwrap())), "{to}");
        };
        check(room, "$5", 5, true, "$5").await;
        check(room, "$4", 4, false, "$5").await;
        check(room, "$5", 5, false, "$5").await;
        check(room, "$6", 6, true, "$6").await;
        check(other, "$3", 3, true, "$3").await;
        check(room, "$6", 6, false, "$6").await;
    }

    #[tokio::test]
    async fn a_read_marker_at_nothing_that_is_known_moves_anywhere() {
        let fixture = Fixture::new().await;
        let data = &fixture.account_data;
        let room = room_id!("!room:example.org");
        for content in [r#"{"event_id":"$gone"}"#, r#"{"event_id":7}"#, "{}"] {
            fixture.set(Some(room), EVENT_TYPE, content).await;
            let moved = data.move_read_marker(alice(), room, event_id!("$1"), 1, place_of).await.unwrap();
            assert!(moved, "{content}");
        }
    }
}
