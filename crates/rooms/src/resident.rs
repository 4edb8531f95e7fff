//! A room in memory: all that building and authorizing its next event takes.

use std::{collections::HashSet, sync::Arc};

use myelin_events::{Pdu, PowerLevels, Rules, auth, member::MemberContent};
use myelin_push::Audience;
use myelin_replication::Lane;
use ruma::{
    OwnedEventId, OwnedRoomId, ServerName, UserId,
    events::{StateEventType, room::member::MembershipState},
};

use crate::{EventNid, EventRow, RoomError, RoomNid, StateChange, state::CurrentState, stream::StateBefore};

mod compose;
mod load;
mod pending;
mod recent;
mod transactions;

pub(crate) use compose::{Draft, flags_of};
pub(crate) use load::load;
pub(crate) use pending::Pending;
pub(crate) use recent::{Recent, RecentEvent};
pub(crate) use transactions::{TransactionKey, Transactions};

/// About what a member of this server takes beside the member event.
const MEMBER_BYTES: usize = 384;

/// A forward extremity.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub pdu: Arc<Pdu>,
    pub nid: EventNid,
}

impl Head {
    pub fn event_id(&self) -> &OwnedEventId {
        self.pdu.event_id()
    }
}

/// A room in memory, ahead of the database by what is being committed.
#[derive(Debug)]
pub(crate) struct Resident {
    pub nid: RoomNid,
    pub room_id: OwnedRoomId,
    pub rules: Rules,
    pub is_blocked: bool,
    pub state: CurrentState,
    /// Counts the changes of the current state since the room was loaded.
    pub state_version: u64,
    pub heads: Vec<Head>,
    /// The backward extremities: `prev_events` of events here that are not here themselves.
    pub gaps: HashSet<OwnedEventId>,
    /// `None` until there is an `m.room.create` event.
    pub power_levels: Option<Arc<PowerLevels>>,
    pub joined_members: usize,
    /// The joined members of this server.
    pub audience: Audience,
    pub transactions: Transactions,
    pub recent: Recent,
    pub lane: Lane,
    /// The last commit that was asked for: all before it are over when it is.
    pub latest: Option<Pending>,
}

impl Resident {
    /// A room that is about to be made.
    pub fn new(nid: RoomNid, room_id: OwnedRoomId, rules: Rules) -> Self {
        Self {
            nid,
            room_id,
            rules,
            is_blocked: false,
            state: CurrentState::default(),
            state_version: 0,
            heads: Vec::new(),
            gaps: HashSet::new(),
            power_levels: None,
            joined_members: 0,
            audience: Audience::new(),
            transactions: Transactions::default(),
            recent: Recent::default(),
            lane: Lane::new(),
            latest: None,
        }
    }

    pub fn pdu(&self, event_type: &StateEventType, state_key: &str) -> Option<&Arc<Pdu>> {
        self.state.pdu(event_type, state_key)
    }

    pub fn membership(&self, user_id: &UserId) -> MembershipState {
        let event = self.pdu(&StateEventType::RoomMember, user_id.as_str());
        myelin_events::member::membership_of(event.map(|event| &**event))
    }

    /// Refuses users who are not in the room.
    pub fn require_joined(&self, user_id: &UserId) -> Result<(), RoomError> {
        match self.membership(user_id) {
            MembershipState::Join => Ok(()),
            _ => Err(RoomError::NotJoined),
        }
    }

    /// The power levels; rooms have them from their first event on.
    pub fn power_levels(&self) -> Result<&PowerLevels, RoomError> {
        self.power_levels
            .as_deref()
            .ok_or_else(|| RoomError::InvalidRoomState("the room has no m.room.create event".to_owned()))
    }

    /// Takes in a row that was handed over to be written.
    pub fn apply(&mut self, row: &EventRow, server_name: &ServerName) {
        for change in &row.state_changes {
            self.change_state(change, server_name);
        }
        let joins_heads = row.timeline || self.heads.is_empty();
        if joins_heads && row.timeline {
            let own = Head { pdu: row.pdu.clone(), nid: row.nid };
            match &row.writing.heads {
                None => self.heads = vec![own],
                Some(ids) => {
                    self.heads.retain(|head| ids.contains(head.event_id()));
                    if ids.contains(own.event_id()) && !self.heads.iter().any(|head| head.nid == own.nid) {
                        self.heads.push(own);
                    }
                }
            }
        }
        if let Some(redacted) = &row.redacts {
            self.redact_in_memory(&redacted.pdu);
        }
        if let Some((device_id, txn_id)) = &row.sent_by {
            let key = TransactionKey::new(row.writing.sender_sid, device_id.as_str(), txn_id.as_str());
            let sent_at = row.pdu.origin_server_ts().0.into();
            self.transactions.add(key, row.pdu.event_id().clone(), sent_at);
        }
        if !row.state_changes.is_empty() {
            self.state_version += 1;
        }
        self.gaps.extend(row.writing.missing_prevs.iter().cloned());
        self.gaps.remove(row.pdu.event_id());
        let state_after = self.is_current_after(row).then_some(self.state_version);
        self.recent.add(RecentEvent::of(row, state_after), self.lane.in_flight());
    }

    /// Whether the state after a row that was just taken in is the current state.
    fn is_current_after(&self, row: &EventRow) -> bool {
        if matches!(self.heads.as_slice(), [head] if head.nid == row.nid) {
            return true;
        }
        let is_own = |change: &StateChange| {
            change.event.as_ref().is_some_and(|event| event.event_id() == row.pdu.event_id())
        };
        let adds_itself = row.pdu.is_state() && !row.pdu.is_rejected();
        let is_only_change = match row.state_changes.as_slice() {
            [] => !adds_itself,
            [change] => is_own(change),
            _ => false,
        };
        matches!(row.writing.before, StateBefore::Current) && is_only_change
    }

    /// The events of the current state that are among those that authorize an event.
    pub fn authorizing(&self, pdu: &Pdu) -> Vec<Arc<Pdu>> {
        let content = ruma::state_res::Event::content(pdu);
        let keys = auth::auth_keys(pdu.event_type(), pdu.sender(), pdu.state_key(), content, self.rules);
        let create = (StateEventType::RoomCreate, String::new());
        let held = |key: &(StateEventType, String)| self.pdu(&key.0, &key.1).cloned();
        keys.unwrap_or_default().iter().chain([&create]).filter_map(held).collect()
    }

    fn change_state(&mut self, change: &StateChange, server_name: &ServerName) {
        self.state.change(change);
        match &change.event_type {
            StateEventType::RoomMember => self.change_member(change, server_name),
            StateEventType::RoomCreate | StateEventType::RoomPowerLevels => self.refresh_power_levels(),
            _ => {}
        }
    }

    fn change_member(&mut self, change: &StateChange, server_name: &ServerName) {
        let joined = |event: &Option<Arc<Pdu>>| {
            myelin_events::member::membership_of(event.as_deref()) == MembershipState::Join
        };
        match (joined(&change.replaced), joined(&change.event)) {
            (false, true) => self.joined_members += 1,
            (true, false) => self.joined_members = self.joined_members.saturating_sub(1),
            _ => {}
        }
        let Ok(user_id) = UserId::parse(&*change.state_key) else { return };
        if user_id.server_name() != server_name {
            return;
        }
        if joined(&change.event) {
            let content = change.event.as_deref().and_then(MemberContent::of);
            let name = content.and_then(|content| content.displayname);
            self.audience.set_member(&user_id, name.as_deref());
        } else {
            self.audience.remove_member(&user_id);
        }
    }

    fn refresh_power_levels(&mut self) {
        let create = self.pdu(&StateEventType::RoomCreate, "");
        let levels = self.pdu(&StateEventType::RoomPowerLevels, "").map(|event| &**event);
        self.power_levels = create.map(|create| Arc::new(PowerLevels::new(create, levels)));
    }

    /// Puts the redacted form in the place of an event that is part of the state.
    fn redact_in_memory(&mut self, redacted: &Arc<Pdu>) {
        self.recent.replace(redacted);
        let Some(state_key) = redacted.state_key() else { return };
        let event_type: StateEventType = redacted.event_type().to_string().into();
        let held = self.state.get(&event_type, state_key);
        let Some(held) = held.filter(|held| held.pdu.event_id() == redacted.event_id()) else { return };
        let numbers = held.numbers;
        self.state.set(crate::state::Held { pdu: redacted.clone(), numbers });
        self.refresh_power_levels();
    }

    /// About how much memory the room takes.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + self.state.size_bytes()
            + self.recent.size_bytes()
            + self.transactions.size_bytes()
            + self.audience.len() * MEMBER_BYTES
    }
}
