//! A user as this process follows them: their rooms, and what lately changed for them.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use myelin_ephemeral::ReceiptRow;
use myelin_events::Rules;
use myelin_rooms::RoomNid;
use myelin_storage::strings::StringId;
use myelin_types::{Position, StreamId, WriterId};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, events::room::member::MembershipState};
use tokio::sync::Notify;

use crate::{
    log::RecentLog,
    room::Room,
    sources::{AccountDatum, ToDeviceEvent},
    unread::{Marks, Unread},
};

/// Rows of each stream that are kept for a user at most.
const MAX_RECENT: usize = 64;

/// A user who syncs here, or did lately.
pub(crate) struct UserFeed {
    pub user_id: OwnedUserId,
    /// Syncs under way: those that look, and those that wait for something to happen.
    under_way: AtomicUsize,
    /// Those that wait.
    asleep: AtomicUsize,
    notify: Notify,
    /// When a sync last asked.
    pub used: AtomicU64,
    pub inner: Mutex<Inner>,
    /// Held by whoever reads the user's rooms from the database.
    pub loading: tokio::sync::Mutex<()>,
}

/// What is known of a user.
pub(crate) struct Inner {
    /// The number of the user id; set once the rooms are read.
    pub sid: Option<StringId>,
    /// Changes that came while the rooms were being read.
    pending: Vec<MembershipChange>,
    pub rooms: HashMap<RoomNid, UserRoom>,
    pub memberships: RecentLog<MembershipChange>,
    pub account_data: RecentLog<Arc<AccountDatum>>,
    pub push_rules: RecentLog<()>,
    pub to_device: RecentLog<Arc<ToDeviceEvent>>,
    pub ignored: Arc<HashSet<OwnedUserId>>,
}

/// Where everything that is told to a new [`UserFeed`] begins.
#[derive(Clone, Debug)]
pub(crate) struct Beginning {
    pub events: Position,
    pub account_data: Position,
    pub push_rules: Position,
    pub to_device: Position,
}

/// What a user has to do with a room.
#[derive(Clone, Debug)]
pub(crate) struct UserRoom {
    pub room_id: OwnedRoomId,
    pub rules: Rules,
    pub membership: MembershipState,
    /// The place of the event that says so.
    pub pos: StreamId,
    pub writer: WriterId,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// The place of the user's last coming or going, where it is known; else `pos`.
    pub changed: StreamId,
    /// The room, while the user is in it.
    pub room: Option<Arc<Room>>,
    /// How far the user has read; `None`: not asked yet.
    pub marks: Option<Marks>,
    /// What is unread; `None`: not counted yet.
    pub unread: Option<Unread>,
}

/// A member event of the user.
#[derive(Clone, Debug)]
pub(crate) struct MembershipChange {
    pub room_nid: RoomNid,
    pub room_id: OwnedRoomId,
    pub rules: Rules,
    pub before: MembershipState,
    pub after: MembershipState,
    pub sender: OwnedUserId,
    pub pos: StreamId,
    pub writer: WriterId,
    /// The room, if the user is in it now.
    pub room: Option<Arc<Room>>,
}

impl std::fmt::Debug for UserFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserFeed").field("user_id", &self.user_id).finish_non_exhaustive()
    }
}

impl UserFeed {
    /// A user of whom nothing is known but what comes after `beginning`.
    pub fn new(user_id: OwnedUserId, beginning: Beginning) -> Self {
        Self {
            user_id,
            under_way: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            notify: Notify::new(),
            used: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                sid: None,
                pending: Vec::new(),
                rooms: HashMap::new(),
                memberships: RecentLog::new(beginning.events, MAX_RECENT),
                account_data: RecentLog::new(beginning.account_data, MAX_RECENT),
                push_rules: RecentLog::new(beginning.push_rules, MAX_RECENT),
                to_device: RecentLog::new(beginning.to_device, MAX_RECENT),
                ignored: Arc::default(),
            }),
            loading: tokio::sync::Mutex::new(()),
        }
    }

    /// Notes that a sync is there, until the guard is dropped.
    pub fn sync_begins(self: &Arc<Self>) -> SyncUnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        SyncUnderWay(self.clone())
    }

    /// Whether a sync is under way.
    pub fn is_syncing(&self) -> bool {
        self.under_way.load(Ordering::Acquire) > 0
    }

    /// Whether a sync waits.
    pub fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Acquire) > 0
    }

    /// Notes that a sync waits, or is about to, until the guard is dropped.
    pub fn fall_asleep(&self) -> Asleep<'_> {
        self.asleep.fetch_add(1, Ordering::AcqRel);
        Asleep(self)
    }

    /// Wakes all waiting syncs.
    pub fn wake(&self) {
        if self.is_asleep() {
            self.notify.notify_waiters();
        }
    }

    /// Ends with the next [`wake`](Self::wake) after it was enabled or polled.
    pub fn woken(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

/// A sync of a user, counted.
pub(crate) struct SyncUnderWay(Arc<UserFeed>);

impl Drop for SyncUnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A sync that waits, counted.
pub(crate) struct Asleep<'a>(&'a UserFeed);

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.0.asleep.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Inner {
    /// Takes over the rooms that were read, and what changed meanwhile.
    pub fn learn_rooms(&mut self, sid: StringId, rooms: HashMap<RoomNid, UserRoom>) {
        self.rooms = rooms;
        self.sid = Some(sid);
        for change in std::mem::take(&mut self.pending) {
            self.settle(change);
        }
    }

    /// Takes in a member event.
    pub fn apply(&mut self, change: MembershipChange) {
        self.memberships.push(change.writer, change.pos, change.clone());
        match self.sid {
            Some(_) => self.settle(change),
            None => self.pending.push(change),
        }
    }

    fn settle(&mut self, change: MembershipChange) {
        let known = self.rooms.get(&change.room_nid);
        if known.is_some_and(|known| known.pos > change.pos) {
            return;
        }
        let stays = known.filter(|known| known.membership == change.after && change.before == change.after);
        let room = UserRoom {
            changed: stays.map_or(change.pos, |known| known.changed),
            marks: stays.and_then(|known| known.marks.clone()),
            unread: stays.and_then(|known| known.unread.clone()),
            room_id: change.room_id,
            rules: change.rules,
            membership: change.after,
            pos: change.pos,
            writer: change.writer,
            sender: change.sender,
            room: change.room,
        };
        self.rooms.insert(change.room_nid, room);
    }

    /// Takes in a receipt of the user: what it is about is counted again, now or by the next answer.
    pub fn apply_receipt(&mut self, row: &ReceiptRow) {
        let Some(room) = self.rooms.get_mut(&RoomNid(row.room_nid)) else { return };
        let (Some(marks), Some(pos)) = (&mut room.marks, row.event_pos) else {
            room.unread = None;
            return;
        };
        marks.advance(&row.thread, pos);
        let (Some(unread), Some(handle)) = (&mut room.unread, &room.room) else { return };
        if !unread.read(&row.thread, &handle.inner.read(), &row.user_id, marks, room.changed) {
            room.unread = None;
        }
    }

    /// What the user was in a room at a position; `None` if that is too long ago to be known here.
    pub fn membership_at(&self, room_nid: RoomNid, at: &Position) -> Option<MembershipState> {
        let room = self.rooms.get(&room_nid);
        if let Some(room) = room
            && at.covers(room.writer, room.pos)
        {
            return Some(room.membership.clone());
        }
        let first_after = self
            .memberships
            .iter()
            .find(|(writer, pos, change)| change.room_nid == room_nid && !at.covers(*writer, *pos));
        match first_after {
            _ if !self.memberships.reaches_back_to(at) => None,
            Some((.., change)) => Some(change.before.clone()),
            None => Some(room.map_or(MembershipState::Leave, |room| room.membership.clone())),
        }
    }

    /// Whether the user came into a room between two positions, as far as is known.
    pub fn joined_between(&self, room_nid: RoomNid, since: &Position, upto: &Position) -> bool {
        self.memberships.iter().any(|(writer, pos, change)| {
            change.room_nid == room_nid
                && !since.covers(*writer, *pos)
                && upto.covers(*writer, *pos)
                && change.after == MembershipState::Join
                && change.before != MembershipState::Join
        })
    }

    /// The numbers of the rooms that the user is in.
    pub fn joined(&self) -> impl Iterator<Item = (&RoomNid, &UserRoom)> {
        self.rooms.iter().filter(|(_, room)| room.membership == MembershipState::Join)
    }
}
