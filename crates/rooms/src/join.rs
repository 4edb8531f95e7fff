//! Joining rooms of other servers: what the resident server answers is written as the room's beginning here
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#joining-rooms)).

use std::sync::Arc;

use myelin_events::{MemberContent, Pdu, ReceivedPdu, rules};
use myelin_storage::{
    rooms,
    state::{Delta, StateRow},
    strings::StringId,
};
use ruma::{
    OwnedEventId, RoomVersionId,
    events::{StateEventType, room::member::MembershipState},
};
use serde::Deserialize;

use crate::{
    EventRow, RoomError, RoomNid, Rooms,
    history::{Difference, History, Known},
    receive::{self, Outliers, Received},
    resident::{Resident, flags_of},
    rooms::InRoom,
    stream::{Base, DeltaRef, NewRoom, StateBefore, Writing},
};

/// What a resident server answered to
/// [`send_join`](https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid), with
/// all signatures and hashes checked.
#[derive(Debug)]
pub struct JoinAnswer {
    /// The room's version, as `make_join` told it.
    pub room_version: RoomVersionId,
    /// The member event of a user of this server.
    pub event: ReceivedPdu,
    /// The room's state before the event.
    pub state: Vec<ReceivedPdu>,
    /// What authorizes that state.
    pub auth_chain: Vec<ReceivedPdu>,
}

impl Rooms {
    /// Takes a room in as another server tells it, and the join of our user with it. Where users of this server are in
    /// the room already, the told state counts like that of any branch of its history; else it is the current state.
    ///
    /// # Errors
    /// [`RoomError::InvalidRoomState`] if the answer contradicts itself, [`RoomError::Forbidden`] if its state does not
    /// allow the join.
    pub async fn accept_join(&self, answer: JoinAnswer) -> Result<OwnedEventId, RoomError> {
        let JoinAnswer { room_version, event, state, auth_chain } = answer;
        let event_id = event.pdu.event_id().clone();
        self.check_join(&event.pdu, &room_version)?;
        let (mut room, is_new) = self.enter_or_found(&event.pdu).await?;
        if room.is_here(&event_id) {
            return room.already(event_id).await;
        }
        room.quiet().await?;
        let engine = room.engine().clone();
        let state_ids: Vec<OwnedEventId> =
            state.iter().map(|received| received.pdu.event_id().clone()).collect();
        let of_room = |received: &ReceivedPdu| *received.pdu.room_id() == room.room_id;
        let told = auth_chain.into_iter().chain(state).filter(of_room).collect();
        let history = History { engine: &engine, room: &room };
        let mut outliers = Outliers::check(history, told).await?;
        let before = told_state(history, &outliers, &state_ids, &room_version)?;
        let pdu = Arc::new(event.pdu);
        let mut row = join_row(history, &outliers, &pdu, before).await?;
        room.complete(&engine, &mut row).await?;
        let mut rows = std::mem::take(&mut outliers.rows);
        rows.push(row);
        if is_new && let Some(first) = rows.first_mut() {
            let new = NewRoom { room_version, is_public: false, alias: None, request: None };
            first.writing.new_room = Some(Box::new(new));
        }
        room.hand_over_all(rows)?.committed().await?;
        Ok(event_id)
    }

    fn check_join(&self, pdu: &Pdu, room_version: &RoomVersionId) -> Result<(), RoomError> {
        let membership = MemberContent::of(pdu).map(|content| content.membership);
        let is_join = pdu.state_key() == Some(pdu.sender().as_str())
            && pdu.sender().server_name() == self.server_name()
            && membership == Some(MembershipState::Join);
        match rules(room_version) {
            None => Err(RoomError::UnsupportedVersion(room_version.clone())),
            Some(rules) if is_join && std::ptr::eq(rules, pdu.rules()) => Ok(()),
            Some(_) => Err(RoomError::InvalidRoomState("this is no join of a user of ours".to_owned())),
        }
    }

    /// A turn at the room of an event, and whether the room is new here.
    async fn enter_or_found(&self, pdu: &Pdu) -> Result<(InRoom, bool), RoomError> {
        match self.enter(pdu.room_id()).await {
            Ok(room) if room.is_blocked => Err(RoomError::Blocked),
            Ok(room) => Ok((room, false)),
            Err(RoomError::UnknownRoom) => {
                let room_nid = rooms::take_room_nid(&self.0.database.get().await?).await?;
                let room_id = pdu.room_id().clone();
                let resident = Resident::new(RoomNid(room_nid), room_id, pdu.rules());
                Ok((self.found(resident).await?, true))
            }
            Err(error) => Err(error),
        }
    }
}

/// The state that was told, without what the rules reject.
fn told_state(
    history: History<'_>,
    outliers: &Outliers,
    state: &[OwnedEventId],
    room_version: &RoomVersionId,
) -> Result<Difference, RoomError> {
    #[derive(Deserialize)]
    struct Create {
        #[serde(default = "first_version")]
        room_version: RoomVersionId,
    }
    fn first_version() -> RoomVersionId {
        RoomVersionId::V1
    }
    let mut difference = receive::nothing(history.room);
    for known in state.iter().filter_map(|id| outliers.known.get(id)) {
        if !known.pdu.is_rejected() {
            difference.apply(&history.room.state, known);
        }
    }
    let create = difference.get(&history.room.state, &StateEventType::RoomCreate, "");
    let version = create.and_then(|create| create.pdu.content_as::<Create>().ok());
    match version {
        Some(create) if create.room_version == *room_version => Ok(difference),
        Some(_) => Err(RoomError::InvalidRoomState("the room has another version".to_owned())),
        None => Err(RoomError::InvalidRoomState("the state has no m.room.create event".to_owned())),
    }
}

async fn join_row(
    history: History<'_>,
    outliers: &Outliers,
    pdu: &Arc<Pdu>,
    before: Difference,
) -> Result<EventRow, RoomError> {
    let engine = history.engine;
    let fetch = |event_id: &ruma::EventId| outliers.known.get(event_id).map(|known| known.pdu.clone());
    if let Received::Rejected(reason) = receive::authorize_by_past(history.room, pdu, &before, fetch) {
        return Err(RoomError::Forbidden(reason));
    }
    let here = history.list_entries(pdu.prev_events()).await?;
    let is_missing = |id: &&OwnedEventId| !here.get(*id).is_some_and(|entry| entry.has_state());
    let missing_prevs: Vec<OwnedEventId> = pdu.prev_events().iter().filter(is_missing).cloned().collect();
    let strings = receive::strings_of(pdu);
    let [sender_sid, type_sid, key_sid] =
        engine.numbers.strings([&strings[0], &strings[1], &strings[2]]).await?;
    let stored = history.list_entries(std::slice::from_ref(pdu.event_id())).await?;
    let stored = stored.get(pdu.event_id()).map(|entry| entry.event.nid);
    let nid = match stored {
        Some(nid) => nid,
        None => engine.numbers.event_nid().await?,
    };
    let event = Known { pdu: pdu.clone(), nid };
    let moved = match history.room.audience.is_empty() {
        // Nothing of what we knew counts any more: we have not been told of what happened since.
        true => receive::only_head(history, &event, &before),
        false => {
            let entries: Vec<_> = here.into_values().collect();
            receive::heads_after(history, &event, &before, &entries).await?
        }
    };
    let mut row = EventRow::new(history.room.nid, nid, pdu.clone());
    row.writing = Writing {
        sender_sid,
        type_sid,
        key_sid: Some(key_sid),
        flags: flags_of(pdu, engine),
        before: match &moved.ids {
            None => before_join(history, &event, [type_sid, key_sid], &before),
            Some(_) => receive::stored_before(history, &before).await?,
        },
        is_promoted: stored.is_some(),
        closes_gap: history.room.gaps.contains(pdu.event_id()),
        missing_prevs,
        ..Writing::default()
    };
    receive::apply_heads(history, &mut row, moved).await?;
    Ok(row)
}

/// The state before a join that becomes the only forward extremity: what is then current, without the join.
fn before_join(
    history: History<'_>,
    event: &Known,
    [type_sid, key_sid]: [StringId; 2],
    before: &Difference,
) -> StateBefore {
    let state_key = event.pdu.state_key().unwrap_or_default();
    let held = before.get(&history.room.state, &StateEventType::RoomMember, state_key);
    let mut delta = Delta::default();
    delta.push(StateRow { type_sid, key_sid, event_nid: held.map_or(0, |held| held.nid.0) });
    StateBefore::Mainline { base: Base::Row, delta: Some(DeltaRef::New(Arc::new(delta))) }
}
