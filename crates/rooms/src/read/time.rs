//! Events by the time at which they were sent
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event)).

use myelin_storage::room_reads::{self, Page};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, api::Direction};

use super::{ReadError, Result, RoomReader, Viewer};

/// Events on both sides of the place where the timeline passes a time, among which the closest is looked for.
const AROUND: i64 = 500;
/// The closest of these that the user may see is told.
const CANDIDATES: i64 = 20;

/// An event and when it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventAtTime {
    /// The event.
    pub event_id: OwnedEventId,
    /// When it was sent.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
}

impl RoomReader {
    /// The event that was sent closest to a time, at or after it or at or before it.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] if there is none that the user may see.
    pub async fn event_at_time(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        time: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<EventAtTime> {
        let missing = ReadError::NotFound("Unable to find an event at that time in that direction");
        let client = self.client().await?;
        let mut view = self.view(&client, viewer, room_id).await?;
        view.require_history()?;
        let (after, upto) = view.visible_range().unwrap_or((0, 0));
        let is_backward = direction == Direction::Backward;
        let page = Page { room_nid: view.room.nid.0, after, upto, is_backward, limit: CANDIDATES };
        let time = ruma::Int::from(time.0).into();
        let found = room_reads::find_event_by_time(&client, &page, time, AROUND).await?;
        let ids: Vec<&str> = found.iter().map(|event| event.event_id.as_str()).collect();
        let rows = room_reads::list_timeline_by_id(&client, view.room.nid.0, &ids).await?;
        let shown = self.show(&client, viewer, &mut view, rows).await?;
        let closest = found
            .iter()
            .find_map(|event| shown.iter().find(|shown| *shown.pdu.event_id() == *event.event_id));
        closest.map_or(Err(missing), |event| {
            Ok(EventAtTime {
                event_id: event.pdu.event_id().clone(),
                origin_server_ts: event.pdu.origin_server_ts(),
            })
        })
    }
}
