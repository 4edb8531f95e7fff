//! Who is where: what receipts, typing and presence have to know of rooms, in a query or two.

use std::sync::Arc;

use myelin_events::relations::RelatesTo;
use myelin_storage::{events, room_reads};
use myelin_types::StreamId;
use ruma::{EventId, OwnedEventId, RoomId, UserId, events::receipt::ReceiptThread};

use super::{NO_SUCH_EVENT, NOT_A_MEMBER, ReadError, Result, RoomReader, room::RoomInfo, view::StatePoint};
use crate::stream::stored;

/// Relations that are followed from an event to the root of its thread
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts)).
const MAX_HOPS: usize = 3;
const OTHER_THREAD: &str = "The event is not in the thread `thread_id`";

/// Where an event stands in its room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPlace {
    /// Its place in the timeline.
    pub pos: StreamId,
    /// The root of the thread that it is part of, directly or by what it relates to.
    pub thread: Option<OwnedEventId>,
}

impl RoomReader {
    /// The room, if the user is in it now.
    ///
    /// # Errors
    /// [`ReadError::Forbidden`] if not, or if there is no such room.
    pub async fn joined_room(&self, user_id: &UserId, room_id: &RoomId) -> Result<Arc<RoomInfo>> {
        if let Some(room) = self.known_to_be_joined(user_id, room_id) {
            return Ok(room);
        }
        let client = self.client().await?;
        let room = self.room_with(&client, room_id).await?.ok_or(NOT_A_MEMBER)?;
        let view = self.view_of(&client, user_id, room.clone()).await?;
        if view.is_joined() { Ok(room) } else { Err(NOT_A_MEMBER) }
    }

    /// Where an event stands in a room.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] if it is not in the room's timeline.
    pub async fn event_place(&self, room: &RoomInfo, event_id: &EventId) -> Result<Arc<EventPlace>> {
        if let Some(place) = self.0.caches.place(room.nid, event_id) {
            return Ok(place);
        }
        let client = self.client().await?;
        let reading = self.0.caches.begin(room.nid);
        let place = room_reads::get_event_place(&client, room.nid.0, event_id.as_str()).await?;
        let place = place.ok_or(NO_SUCH_EVENT)?;
        let thread = place.thread_id.and_then(|root| EventId::parse(root).ok());
        let place = Arc::new(EventPlace { pos: StreamId(place.pos), thread });
        self.0.caches.keep_place(room.nid, event_id, reading, place.clone());
        Ok(place)
    }

    /// Where an event stands, if a receipt of `thread` may be about it: the main timeline has what is in no thread, a
    /// thread its root, its events and what points at one of these
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts)).
    ///
    /// # Errors
    /// [`ReadError::NotFound`] if the event is not in the room's timeline, [`ReadError::InvalidParam`] if it is not in
    /// the thread.
    pub async fn place_for_receipt(
        &self,
        room: &RoomInfo,
        event_id: &EventId,
        thread: &ReceiptThread,
    ) -> Result<Arc<EventPlace>> {
        let place = self.event_place(room, event_id).await?;
        let is_related = match thread {
            ReceiptThread::Unthreaded => true,
            ReceiptThread::Main => place.thread.is_none(),
            ReceiptThread::Thread(root) => self.is_of_thread(room, event_id, &place, root).await?,
            _ => false,
        };
        if is_related { Ok(place) } else { Err(ReadError::InvalidParam(OTHER_THREAD)) }
    }

    /// Whether an event is in a thread, is its root, or points at something that is.
    async fn is_of_thread(
        &self,
        room: &RoomInfo,
        event_id: &EventId,
        place: &EventPlace,
        root: &EventId,
    ) -> Result<bool> {
        if place.thread.as_deref() == Some(root) || event_id == root {
            return Ok(true);
        }
        let client = self.client().await?;
        let mut event_id = event_id.to_owned();
        for _ in 0..MAX_HOPS {
            let rows = events::list_events_by_id(&client, room.nid.0, &[event_id.as_str()]).await?;
            let Some(row) = rows.first() else { return Ok(false) };
            let pdu = stored(&room.room_id, room.rules, row)?;
            let Some(relation) = RelatesTo::of(&pdu).relation else { return Ok(false) };
            if relation.event_id == root {
                return Ok(true);
            }
            event_id = relation.event_id;
        }
        Ok(false)
    }

    /// Whether two users are in a room together. Everybody is together with themselves.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn share_a_room(&self, one: &UserId, other: &UserId) -> Result<bool> {
        if one == other {
            return Ok(true);
        }
        let client = self.client().await?;
        let strings = &self.0.strings;
        let one = strings.find(&client, one.as_str()).await?;
        let other = strings.find(&client, other.as_str()).await?;
        let Some((one, other)) = one.zip(other) else { return Ok(false) };
        Ok(room_reads::share_a_room(&client, one, other).await?)
    }

    /// Refuses those who may not see how the room is now: who are not in it, unless anybody may look.
    ///
    /// # Errors
    /// [`ReadError::Forbidden`].
    pub async fn require_present(&self, user_id: &UserId, room_id: &RoomId) -> Result<()> {
        let client = self.client().await?;
        let room = self.room_with(&client, room_id).await?.ok_or(NOT_A_MEMBER)?;
        match self.view_of(&client, user_id, room).await?.state_point()? {
            StatePoint::Current => Ok(()),
            StatePoint::At(_) => Err(NOT_A_MEMBER),
        }
    }
}
