//! Events as one user sees them, with all that `unsigned` tells.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use myelin_events::{ClientEvent, Pdu, Unsigned, redact::redact};
use myelin_storage::{
    Client, StorageError,
    events::flags,
    room_reads::{self, EventRef, TimelineEvent},
};
use ruma::{OwnedEventId, OwnedUserId, events::room::member::MembershipState};

use super::{JsonArray, Result, RoomReader, Viewer, view::View};
use crate::{RoomNid, stream::stored};

/// An event that a user may see.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub row: TimelineEvent,
    pub pdu: Arc<Pdu>,
    /// The user's membership at the event.
    pub membership: MembershipState,
}

impl Shown {
    pub fn pos(&self) -> i64 {
        self.row.event.pos.unwrap_or_default()
    }

    /// The event and its room's number, if others point at it. Aggregations of state are not told.
    fn parent(&self) -> Option<(RoomNid, &Arc<Pdu>)> {
        let is_parent = self.row.has_relations && !self.pdu.is_state();
        is_parent.then_some((RoomNid(self.row.room_nid), &self.pdu))
    }
}

/// What is told of events beside themselves.
#[derive(Debug, Default)]
pub(super) struct Details {
    /// What state events took the place of, by room and place.
    replaced: HashMap<(i64, i64), Arc<Pdu>>,
    /// Redactions in client format, by room and number.
    redactions: HashMap<(i64, i64), String>,
    /// `m.relations`, by event.
    pub bundles: HashMap<OwnedEventId, String>,
}

impl RoomReader {
    /// Those of the events of one room that the user may see, in their order.
    pub(super) async fn show(
        &self,
        client: &Client,
        viewer: &Viewer,
        view: &mut View,
        rows: Vec<TimelineEvent>,
    ) -> Result<Vec<Shown>> {
        view.learn_forks(client, &rows).await?;
        let mut shown = Vec::with_capacity(rows.len());
        for row in rows {
            let pdu = stored(&view.room.room_id, view.room.rules, &row.event)?;
            let is_unwanted = !pdu.is_state() && viewer.ignores(pdu.sender());
            if is_unwanted || !view.may_see(&row, &pdu) {
                continue;
            }
            let membership = view.membership_at(&row, &pdu);
            shown.push(Shown { row, pdu, membership });
        }
        self.hide_erased(client, &mut shown).await?;
        Ok(shown)
    }

    /// Users who had themselves erased are only read by those who were in the room with them.
    pub(super) async fn hide_erased(&self, client: &Client, shown: &mut [Shown]) -> Result<()> {
        let was_absent =
            |shown: &&mut Shown| shown.membership != MembershipState::Join && !shown.pdu.is_state();
        let senders: HashSet<&OwnedUserId> = shown
            .iter()
            .filter(|shown| shown.membership != MembershipState::Join && !shown.pdu.is_state())
            .map(|shown| shown.pdu.sender())
            .collect();
        if senders.is_empty() {
            return Ok(());
        }
        let senders: Vec<&str> = senders.into_iter().map(|sender| sender.as_str()).collect();
        let erased: HashSet<String> =
            room_reads::list_erased_users(client, &senders).await?.into_iter().collect();
        for shown in shown.iter_mut().filter(was_absent) {
            if erased.contains(shown.pdu.sender().as_str()) {
                let redacted = redact(&shown.pdu)
                    .map_err(|error| StorageError::Inconsistent(format!("an event: {error}")))?;
                shown.pdu = Arc::new(redacted);
            }
        }
        Ok(())
    }

    /// Reads what is told of some events beside themselves, whatever rooms they are of.
    pub(super) async fn details(
        &self,
        client: &Client,
        viewer: &Viewer,
        views: &mut HashMap<i64, View>,
        shown: &[&Shown],
    ) -> Result<Details> {
        let mut details = self.origins(client, views, shown).await?;
        let parents: Vec<(RoomNid, &Arc<Pdu>)> = shown.iter().filter_map(|shown| shown.parent()).collect();
        details.bundles = self.bundle_with(client, viewer, views, &parents).await?;
        Ok(details)
    }

    /// What is told of some events beside themselves, but for what points at them.
    pub(super) async fn origins(
        &self,
        client: &Client,
        views: &HashMap<i64, View>,
        shown: &[&Shown],
    ) -> Result<Details> {
        let (mut room_nids, mut types, mut keys, mut at) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut redacted_in, mut redactions) = (Vec::new(), Vec::new());
        for Shown { row, .. } in shown {
            if let Some((key_sid, pos)) = row.key_sid.zip(row.event.pos)
                && row.event.flags & flags::CURRENT_STATE != 0
            {
                room_nids.push(row.room_nid);
                types.push(row.type_sid);
                keys.push(key_sid);
                at.push(pos);
            }
            if let Some(redaction) = row.event.redacted_by {
                redacted_in.push(row.room_nid);
                redactions.push(redaction);
            }
        }
        let mut details = Details::default();
        let parse = |row: &TimelineEvent| -> Result<Arc<Pdu>> {
            let view = views.get(&row.room_nid);
            let room = &view.ok_or_else(|| StorageError::Inconsistent("a room is gone".to_owned()))?.room;
            Ok(stored(&room.room_id, room.rules, &row.event)?)
        };
        if !at.is_empty() {
            let replaced = room_reads::list_replaced_events(client, &room_nids, &types, &keys, &at).await?;
            for (pos, row) in replaced {
                details.replaced.insert((row.room_nid, pos), parse(&row)?);
            }
        }
        if !redactions.is_empty() {
            let rows = room_reads::list_timeline_by_nid(client, &redacted_in, &redactions).await?;
            for row in rows {
                let pdu = parse(&row)?;
                let json = ClientEvent::new(&pdu).to_json(Some(pdu.room_id()), &Unsigned::default());
                details.redactions.insert((row.room_nid, row.event.event_nid), json);
            }
        }
        Ok(details)
    }

    /// Appends an event as the user sees it.
    pub(super) fn write_event(&self, out: &mut String, viewer: &Viewer, shown: &Shown, details: &Details) {
        let Shown { row, pdu, membership } = shown;
        let replaced = details.replaced.get(&(row.room_nid, shown.pos()));
        let is_own = *pdu.sender() == viewer.user_id
            && row.device_id.as_deref() == viewer.device_id.as_ref().map(|device_id| device_id.as_str());
        let redaction = row.event.redacted_by.and_then(|nid| details.redactions.get(&(row.room_nid, nid)));
        let unsigned = Unsigned {
            age: Some(Unsigned::age_of(pdu, self.0.clock.now())),
            transaction_id: row.txn_id.as_deref().filter(|_| is_own),
            membership: Some(membership.as_str()),
            prev_content: replaced.map(|replaced| replaced.content()),
            prev_sender: replaced.map(|replaced| replaced.sender().as_str()),
            replaces_state: replaced.map(|replaced| &**replaced.event_id()),
            redacted_because: redaction.map(String::as_str),
            relations: details.bundles.get(pdu.event_id()).map(String::as_str),
            ..Unsigned::default()
        };
        ClientEvent::new(pdu).write(out, Some(pdu.room_id()), &unsigned);
    }

    /// Events of one room as an array, with all details.
    pub(super) async fn render(
        &self,
        client: &Client,
        viewer: &Viewer,
        view: View,
        shown: &[Shown],
    ) -> Result<JsonArray> {
        let references: Vec<&Shown> = shown.iter().collect();
        let mut views = HashMap::from([(view.room.nid.0, view)]);
        let details = self.details(client, viewer, &mut views, &references).await?;
        Ok(self.write_events(viewer, shown, &details))
    }

    pub(super) fn write_events(&self, viewer: &Viewer, shown: &[Shown], details: &Details) -> JsonArray {
        let bytes: usize = shown.iter().map(|shown| shown.pdu.content().len() + 500).sum();
        let mut events = JsonArray::with_capacity(bytes);
        for shown in shown {
            events.push(|out| self.write_event(out, viewer, shown, details));
        }
        events
    }
}

/// Some events as parameters of a statement.
pub(super) fn event_refs<'a>(events: impl IntoIterator<Item = (RoomNid, &'a Arc<Pdu>)>) -> EventRef<'a> {
    let mut refs = EventRef::default();
    for (room, pdu) in events {
        refs.push(room.0, pdu.event_id().as_str());
    }
    refs
}
