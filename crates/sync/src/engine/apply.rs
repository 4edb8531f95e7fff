//! How rows of the streams reach the rooms and users that are followed, and whom they wake.

use std::sync::Arc;

use myelin_ephemeral::{PresenceRow, ReceiptKind, ReceiptRow, TypingChange};
use myelin_replication::Stamped;
use myelin_rooms::{EventRow, RoomNid};
use myelin_types::{Position, StreamId, WriterId};
use ruma::{
    OwnedUserId, UserId,
    events::{StateEventType, room::member::MembershipState},
};

use super::{Engine, Sync};
use crate::{
    room::Room,
    sources::{AccountDatum, ToDeviceEvent},
    user::{MembershipChange, UserFeed, UserRoom},
};

/// A row's place and the user whom it concerns.
pub type Concerning<T> = (WriterId, StreamId, OwnedUserId, T);

impl Sync {
    /// Takes in rows of the account data stream. `ignored` is whom a user ignores from now on, where the row says so.
    pub fn apply_account_data(
        &self,
        rows: impl IntoIterator<Item = Concerning<AccountDatum>>,
        position: &Position,
    ) {
        let engine = &self.0;
        let gate = engine.gate.lock();
        let mut wake = Vec::new();
        for (writer, id, user_id, datum) in rows {
            let Some(user) = engine.followed(&user_id) else { continue };
            let mut inner = user.inner.lock();
            if datum.is_ignored_users() {
                inner.ignored = Arc::new(crate::sources::ignored_users(datum.content.get()));
            }
            inner.account_data.push(writer, id, Arc::new(datum));
            drop(inner);
            wake.push(user);
        }
        engine.advance(|token| token.account_data = position.clone());
        drop(gate);
        wake_all(&wake);
    }

    /// Takes in whose push rules changed.
    pub fn apply_push_rules(&self, rows: impl IntoIterator<Item = Concerning<()>>, position: &Position) {
        let engine = &self.0;
        let gate = engine.gate.lock();
        let mut wake = Vec::new();
        for (writer, id, user_id, ()) in rows {
            let Some(user) = engine.followed(&user_id) else { continue };
            user.inner.lock().push_rules.push(writer, id, ());
            wake.push(user);
        }
        engine.advance(|token| token.push_rules = position.clone());
        drop(gate);
        wake_all(&wake);
    }

    /// Takes in messages to devices.
    pub fn apply_to_device(
        &self,
        rows: impl IntoIterator<Item = Concerning<ToDeviceEvent>>,
        position: &Position,
    ) {
        let engine = &self.0;
        let gate = engine.gate.lock();
        let mut wake = Vec::new();
        for (writer, id, user_id, message) in rows {
            let Some(user) = engine.followed(&user_id) else { continue };
            user.inner.lock().to_device.push(writer, id, Arc::new(message));
            wake.push(user);
        }
        engine.advance(|token| token.to_device = position.clone());
        drop(gate);
        wake_all(&wake);
    }

    /// Takes in whose devices or keys changed, and wakes who shares a room with them: the sources tell the rest. A
    /// change that only one user sees comes with that user.
    pub fn apply_device_lists(
        &self,
        rows: impl IntoIterator<Item = Concerning<Option<OwnedUserId>>>,
        position: &Position,
    ) {
        let engine = &self.0;
        let gate = engine.gate.lock();
        let mut wake = Vec::new();
        let mut strangers = Vec::new();
        for (_, _, user_id, seen_by) in rows {
            if let Some(only) = seen_by {
                wake.extend(engine.followed(&only));
                continue;
            }
            match engine.followed(&user_id) {
                Some(user) => engine.collect_contacts(&user, &mut wake),
                None => strangers.push(user_id),
            }
        }
        engine.advance(|token| token.device_lists = position.clone());
        drop(gate);
        wake_all(&wake);
        for user_id in strangers {
            tokio::spawn(wake_contacts(engine.clone(), user_id));
        }
    }
}

impl Engine {
    pub(super) fn apply_events(&self, rows: &[Stamped<EventRow>], position: &Position) {
        let gate = self.gate.lock();
        let mut wake = Vec::new();
        for stamped in rows {
            self.apply_event(stamped, &mut wake);
        }
        self.advance(|token| token.events = position.clone());
        drop(gate);
        wake_all(&wake);
    }

    fn apply_event(&self, stamped: &Stamped<EventRow>, wake: &mut Vec<Arc<UserFeed>>) {
        let row = &stamped.row;
        for change in
            row.state_changes.iter().filter(|change| change.event_type == StateEventType::RoomMember)
        {
            let Ok(user_id) = <&UserId>::try_from(&*change.state_key) else { continue };
            let Some(user) = self.followed(user_id) else { continue };
            let before = myelin_events::member::membership_of(change.replaced.as_deref());
            let after = myelin_events::member::membership_of(change.event.as_deref());
            self.apply_membership(&user, stamped, change.event.as_deref(), before, after);
            wake.push(user);
        }
        let Some(room) = self.followed_room(row.room_nid) else { return };
        let grown = room.apply(stamped);
        self.grew(grown);
        room.for_each_watcher(|user| {
            if user.is_asleep() {
                wake.push(user.clone());
            }
        });
    }

    fn apply_membership(
        &self,
        user: &Arc<UserFeed>,
        stamped: &Stamped<EventRow>,
        event: Option<&myelin_events::Pdu>,
        before: MembershipState,
        after: MembershipState,
    ) {
        let row = &stamped.row;
        let mut change = MembershipChange {
            room_nid: row.room_nid,
            room_id: row.pdu.room_id().clone(),
            rules: row.pdu.rules(),
            before,
            after,
            sender: event.unwrap_or(&row.pdu).sender().clone(),
            pos: stamped.id,
            writer: stamped.writer,
            room: None,
        };
        if change.after == MembershipState::Join {
            let room = self.room(change.room_nid, &UserRoom::from(&change));
            room.watch(user);
            change.room = Some(room);
        } else if let Some(room) = self.followed_room(change.room_nid) {
            self.unwatch(&room, user);
        }
        user.inner.lock().apply(change);
    }

    pub(super) fn apply_receipts(&self, rows: &[Stamped<ReceiptRow>], position: &Position) {
        let gate = self.gate.lock();
        let mut wake = Vec::new();
        for stamped in rows {
            let row = &stamped.row;
            let reader = self.followed(&row.user_id);
            if let Some(reader) = &reader {
                reader.inner.lock().apply_receipt(row);
            }
            let Some(room) = self.followed_room(RoomNid(row.room_nid)) else { continue };
            room.apply_receipt(stamped);
            match row.kind {
                ReceiptKind::ReadPrivate => wake.extend(reader),
                ReceiptKind::Read => collect_waiting(&room, &mut wake),
            }
        }
        self.advance(|token| token.receipts = position.clone());
        drop(gate);
        wake_all(&wake);
    }

    /// Takes in who is here now, and wakes who shares a room with them, also with those who sync at another process or not at all.
    pub(super) fn apply_presence(self: &Arc<Self>, rows: &[Stamped<PresenceRow>], position: &Position) {
        let gate = self.gate.lock();
        let (mut wake, mut strangers) = (Vec::new(), Vec::new());
        for stamped in rows {
            self.presence_log.lock().push(stamped.writer, stamped.id, stamped.row.clone());
            match self.followed(&stamped.row.user_id) {
                Some(user) => self.collect_contacts(&user, &mut wake),
                None => strangers.push(stamped.row.user_id.clone()),
            }
        }
        self.advance(|token| token.presence = position.clone());
        drop(gate);
        wake_all(&wake);
        for user_id in strangers {
            tokio::spawn(wake_contacts(self.clone(), user_id));
        }
    }

    pub(super) fn apply_typing(&self, change: TypingChange) {
        let gate = self.gate.lock();
        let mut wake = Vec::new();
        if let Some(room) = self.followed_room(RoomNid(change.room_nid)) {
            room.somebody_types(change.writer, change.id);
            collect_waiting(&room, &mut wake);
        }
        self.advance(|token| token.typing.advance(change.writer, change.id));
        drop(gate);
        wake_all(&wake);
    }

    fn followed_room(&self, room_nid: RoomNid) -> Option<Arc<Room>> {
        self.rooms.read().get(&room_nid).cloned()
    }

    /// Everybody who waits and shares a room with the user, and the user.
    fn collect_contacts(&self, user: &Arc<UserFeed>, wake: &mut Vec<Arc<UserFeed>>) {
        let rooms: Vec<Arc<Room>> =
            user.inner.lock().joined().filter_map(|(_, room)| room.room.clone()).collect();
        wake.push(user.clone());
        rooms.iter().for_each(|room| collect_waiting(room, wake));
        // Whoever shares several rooms is woken once.
        wake.sort_unstable_by_key(|user| Arc::as_ptr(user).addr());
        wake.dedup_by(|one, other| Arc::ptr_eq(one, other));
    }
}

fn collect_waiting(room: &Room, wake: &mut Vec<Arc<UserFeed>>) {
    room.for_each_watcher(|user| {
        if user.is_asleep() {
            wake.push(user.clone());
        }
    });
}

fn wake_all(users: &[Arc<UserFeed>]) {
    users.iter().for_each(|user| user.wake());
}

/// Wakes those who share a room with a user who is not followed here.
async fn wake_contacts(engine: Arc<Engine>, user_id: OwnedUserId) {
    // With too many at once those concerned learn of it with the next thing that wakes them.
    let Ok(_permit) = engine.contact_lookups.try_acquire() else { return };
    let (user, _under_way) = engine.enter(&user_id);
    if let Err(error) = engine.load_user(&user).await {
        tracing::warn!(%user_id, %error, "could not look up who shares rooms with a user");
        return;
    }
    let mut wake = Vec::new();
    engine.collect_contacts(&user, &mut wake);
    wake_all(&wake);
}

impl From<&MembershipChange> for UserRoom {
    fn from(change: &MembershipChange) -> Self {
        Self {
            room_id: change.room_id.clone(),
            rules: change.rules,
            membership: change.after.clone(),
            pos: change.pos,
            writer: change.writer,
            sender: change.sender.clone(),
            changed: change.pos,
            room: change.room.clone(),
            marks: None,
            unread: None,
        }
    }
}
