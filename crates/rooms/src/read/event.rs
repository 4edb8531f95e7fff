//! Single events ([spec](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid)).

use std::collections::HashMap;

use myelin_storage::{Client, room_reads};
use ruma::{EventId, RoomId};

use super::{NO_SUCH_EVENT, Result, RoomReader, Viewer, render::Shown, view::View};

impl RoomReader {
    /// An event as the user sees it, as JSON.
    ///
    /// # Errors
    /// [`ReadError::NotFound`](super::ReadError::NotFound) if the user may not see the event, or it isn't there.
    pub async fn event(&self, viewer: &Viewer, room_id: &RoomId, event_id: &EventId) -> Result<String> {
        let client = self.client().await?;
        let (event, view) = self.find_event(&client, viewer, room_id, event_id).await?;
        let mut views = HashMap::from([(view.room.nid.0, view)]);
        let details = self.details(&client, viewer, &mut views, &[&event]).await?;
        let mut json = String::new();
        self.write_event(&mut json, viewer, &event, &details);
        Ok(json)
    }

    /// An event of the timeline that the user may see.
    pub(super) async fn find_event(
        &self,
        client: &Client,
        viewer: &Viewer,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<(Shown, View)> {
        let room = self.room_with(client, room_id).await?.ok_or(NO_SUCH_EVENT)?;
        let nid = room.nid.0;
        let mut view = self.view_of(client, &viewer.user_id, room).await?;
        if view.require_history().is_err() {
            return Err(NO_SUCH_EVENT);
        }
        let rows = room_reads::list_timeline_by_id(client, nid, &[event_id.as_str()]).await?;
        let shown = self.show(client, viewer, &mut view, rows).await?;
        Ok((shown.into_iter().next().ok_or(NO_SUCH_EVENT)?, view))
    }
}
