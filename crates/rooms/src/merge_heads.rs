//! Tying up forward extremities: each of them costs every later event a state resolution.

use myelin_events::EventTemplate;
use ruma::{RoomId, events::TimelineEventType};
use serde_json::{Map, value::RawValue};
use tracing::debug;

use crate::{RoomError, Rooms, membership::raw, resident::Draft};

/// Forward extremities that a room may have before we tie them up; any event of ours does that too.
const MAX_FORWARD_EXTREMITIES: usize = 10;

impl Rooms {
    /// Sends an event that means nothing to clients (`org.matrix.dummy_event`, as other servers do) behind the forward
    /// extremities of a room that has too many of them, if a user of this server is allowed to.
    pub(crate) async fn merge_forward_extremities(&self, room_id: &RoomId) -> Result<(), RoomError> {
        let mut room = self.enter(room_id).await?;
        if room.heads.len() <= MAX_FORWARD_EXTREMITIES {
            return Ok(());
        }
        let event_type = TimelineEventType::from("org.matrix.dummy_event");
        let levels = room.power_levels()?;
        let sender = room.audience.members().find(|user| levels.can_send(user, &event_type, false));
        let Some(sender) = sender.map(ToOwned::to_owned) else { return Ok(()) };
        let extremities = room.heads.len();
        let content: Box<RawValue> = raw(Map::new())?;
        let template = EventTemplate::message(sender, event_type, content);
        let draft = Draft::new(room.engine(), template).await?;
        let row = room.compose(draft).await?;
        debug!(%room_id, extremities, "tying up forward extremities");
        room.write(row).await?;
        Ok(())
    }
}
