//! The engine: which users and rooms are followed, and how the streams reach them.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use myelin_ephemeral::{Presence, PresenceRow, ReceiptStream, Typing};
use myelin_replication::Feed;
use myelin_rooms::{EventStream, RoomNid};
use myelin_storage::{Database, strings::Strings};
use myelin_types::{Clock, Position};
use parking_lot::{Mutex, RwLock};
use ruma::{OwnedUserId, UserId, presence::PresenceState};
use tokio::sync::Semaphore;

use crate::{
    SyncToken,
    lazy::LazyMembers,
    log::RecentLog,
    room::Room,
    sources::{Aggregations, Devices, Progress, UserData},
    user::{Beginning, SyncUnderWay, UserFeed},
};

mod apply;
mod select;

/// Changes of presence and of devices that are kept at most.
const MAX_GLOBAL: usize = 4096;
/// Look-ups at once of whom a user who is not followed shares rooms with, so as to wake them.
const MAX_CONTACT_LOOKUPS: usize = 16;

/// How much the engine may use.
#[derive(Clone, Copy, Debug)]
pub struct SyncOptions {
    /// Events of a room's timeline, where the filter does not say.
    pub default_timeline_limit: usize,
    /// Events of a room's timeline at most, whatever the filter says (`filter_timeline_limit`).
    pub max_timeline_limit: usize,
    /// Users who are followed at most, besides those who are syncing.
    pub max_users: usize,
    /// What the rooms' events and states may take.
    pub max_cache_bytes: usize,
    /// Members of a room that are read together with the rest of its state, even where only some are needed: looking for these one
    /// by one would take longer, and so would counting them.
    pub few_members: usize,
    /// Initial syncs at once.
    pub max_initial_syncs: usize,
    /// How far behind another process this one may be: for so long a sync waits for what its token has seen.
    pub max_lag: Duration,
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self {
            default_timeline_limit: 10,
            max_timeline_limit: 100,
            max_users: 10_000,
            max_cache_bytes: 64 << 20,
            few_members: 32,
            max_initial_syncs: 4,
            max_lag: Duration::from_secs(5),
        }
    }
}

/// What a [`Sync`] is made of.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "the sources have nothing to show")]
pub struct SyncParts {
    /// How much it may use.
    pub options: SyncOptions,
    /// The time.
    pub clock: Clock,
    /// The database.
    pub database: Database,
    /// Interned strings.
    pub strings: Strings,
    /// The events stream, to which the engine subscribes.
    pub events: Feed<EventStream>,
    /// The account data stream; its rows come through [`Sync::apply_account_data`].
    pub account_data: Arc<dyn Progress>,
    /// The push rules stream; its rows come through [`Sync::apply_push_rules`].
    pub push_rules: Arc<dyn Progress>,
    /// The stream of messages to devices; its rows come through [`Sync::apply_to_device`].
    pub to_device: Arc<dyn Progress>,
    /// The stream of changes of devices; its rows come through [`Sync::apply_device_lists`].
    pub device_lists: Arc<dyn Progress>,
    /// The receipts stream, likewise.
    pub receipts: Feed<ReceiptStream>,
    /// Who is typing.
    pub typing: Typing,
    /// Who is here.
    pub presence: Presence,
    /// Account data and push rules.
    pub user_data: Arc<dyn UserData>,
    /// Devices.
    pub devices: Arc<dyn Devices>,
    /// Relations of events.
    pub aggregations: Arc<dyn Aggregations>,
}

/// The sync engine of a process. Clones are the same engine.
#[derive(Clone)]
pub struct Sync(pub(crate) Arc<Engine>);

impl std::fmt::Debug for Sync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sync")
            .field("users", &self.0.users.read().len())
            .field("rooms", &self.0.rooms.read().len())
            .finish_non_exhaustive()
    }
}

pub(crate) struct Engine {
    pub parts: SyncParts,
    pub lazy: LazyMembers,
    pub initial_syncs: Semaphore,
    /// Held while rows are taken in and while something new is to be followed: whatever begins to be followed is told
    /// of every row that `seen` does not cover.
    gate: Mutex<()>,
    /// Held while it is settled which rows are wanted and these are taken in, and while rooms begin to be followed. Taken before
    /// the gate.
    selecting: Mutex<()>,
    seen: RwLock<Arc<Seen>>,
    users: RwLock<HashMap<OwnedUserId, Arc<UserFeed>>>,
    rooms: RwLock<HashMap<RoomNid, Arc<Room>>>,
    pub presence_log: Mutex<RecentLog<PresenceRow>>,
    contact_lookups: Semaphore,
    /// About what the rooms took when it was last added up, and what was added since.
    cache_bytes: AtomicUsize,
}

/// Up to where the caches here have taken in the streams. It may be ahead of the feeds' positions for a moment: the
/// engine is one of their subscribers.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub token: SyncToken,
    text: OnceLock<Box<str>>,
}

impl Seen {
    /// The token as text, made once for all who are told.
    pub fn text(&self) -> &str {
        self.text.get_or_init(|| self.token.to_string().into())
    }
}

impl Sync {
    /// An engine that follows nobody yet. Whoever composes the process subscribes its `apply_…` functions to their
    /// streams right after this, before anything is written.
    pub fn new(parts: SyncParts) -> Self {
        let token = SyncToken {
            events: (*parts.events.position()).clone(),
            account_data: (*parts.account_data.position()).clone(),
            receipts: (*parts.receipts.position()).clone(),
            typing: parts.typing.position(),
            presence: (*parts.presence.feed().position()).clone(),
            push_rules: (*parts.push_rules.position()).clone(),
            to_device: (*parts.to_device.position()).clone(),
            device_lists: (*parts.device_lists.position()).clone(),
        };
        let engine = Arc::new(Engine {
            lazy: LazyMembers::new(),
            initial_syncs: Semaphore::new(parts.options.max_initial_syncs),
            gate: Mutex::default(),
            selecting: Mutex::default(),
            presence_log: Mutex::new(RecentLog::new(token.presence.clone(), MAX_GLOBAL)),
            seen: RwLock::new(Arc::new(Seen { token, text: OnceLock::new() })),
            users: RwLock::default(),
            rooms: RwLock::default(),
            contact_lookups: Semaphore::new(MAX_CONTACT_LOOKUPS),
            cache_bytes: AtomicUsize::new(0),
            parts,
        });
        let follower = Arc::downgrade(&engine);
        engine.parts.events.subscribe(move |batch| {
            if let Some(engine) = follower.upgrade() {
                engine.apply_events(batch.rows, batch.position);
            }
        });
        engine.parts.events.select_by(select::FollowedRooms(Arc::downgrade(&engine)));
        let follower = Arc::downgrade(&engine);
        engine.parts.receipts.subscribe(move |batch| {
            if let Some(engine) = follower.upgrade() {
                engine.apply_receipts(batch.rows, batch.position);
            }
        });
        let follower = Arc::downgrade(&engine);
        engine.parts.presence.feed().subscribe(move |batch| {
            if let Some(engine) = follower.upgrade() {
                engine.apply_presence(batch.rows, batch.position);
            }
        });
        let follower = Arc::downgrade(&engine);
        engine.parts.typing.subscribe(move |change| {
            if let Some(engine) = follower.upgrade() {
                engine.apply_typing(change);
            }
        });
        Self(engine)
    }

    /// The token of a client that has seen everything that this process has.
    pub fn current_token(&self) -> SyncToken {
        self.0.seen().token.clone()
    }
}

impl Engine {
    /// Up to where the caches have taken in the streams.
    pub fn seen(&self) -> Arc<Seen> {
        self.seen.read().clone()
    }

    /// The streams that can be waited for, each with two tokens' positions in it.
    pub fn streams<'a>(
        &'a self,
        one: &'a SyncToken,
        other: &'a SyncToken,
    ) -> [(&'a dyn Progress, &'a Position, &'a Position); 7] {
        let parts = &self.parts;
        [
            (&parts.events, &one.events, &other.events),
            (&*parts.account_data, &one.account_data, &other.account_data),
            (&parts.receipts, &one.receipts, &other.receipts),
            (parts.presence.feed(), &one.presence, &other.presence),
            (&*parts.push_rules, &one.push_rules, &other.push_rules),
            (&*parts.to_device, &one.to_device, &other.to_device),
            (&*parts.device_lists, &one.device_lists, &other.device_lists),
        ]
    }

    /// Moves `seen` to where the feeds stand: they also move when there is nothing to tell.
    pub fn catch_up_seen(&self) {
        let seen = self.seen();
        let token = &seen.token;
        let is_behind =
            |(stream, ours, _): (&dyn Progress, &Position, &Position)| !ours.covers_all(&stream.position());
        if !self.streams(token, token).into_iter().any(is_behind) {
            return;
        }
        let _gate = self.gate.lock();
        let mut token = self.seen().token.clone();
        let parts = &self.parts;
        let positions = [
            (&mut token.events, parts.events.position()),
            (&mut token.account_data, parts.account_data.position()),
            (&mut token.receipts, parts.receipts.position()),
            (&mut token.presence, parts.presence.feed().position()),
            (&mut token.push_rules, parts.push_rules.position()),
            (&mut token.to_device, parts.to_device.position()),
            (&mut token.device_lists, parts.device_lists.position()),
        ];
        for (ours, theirs) in positions {
            // Behind us it is only for the moment until all its subscribers have seen a batch.
            if theirs.covers_all(ours) {
                *ours = (*theirs).clone();
            }
        }
        *self.seen.write() = Arc::new(Seen { token, text: OnceLock::new() });
    }

    /// Moves `seen`; the caller holds the gate.
    fn advance(&self, advance: impl FnOnce(&mut SyncToken)) {
        let mut token = self.seen().token.clone();
        advance(&mut token);
        *self.seen.write() = Arc::new(Seen { token, text: OnceLock::new() });
    }

    /// A user who is about to sync: followed from now on, if not before, and not forgotten before the answer is
    /// dropped.
    pub fn enter(&self, user_id: &UserId) -> (Arc<UserFeed>, SyncUnderWay) {
        let now = self.parts.clock.now();
        let known = self.users.read().get(user_id).map(|user| (user.clone(), user.sync_begins()));
        let (user, under_way) = known.unwrap_or_else(|| self.follow(user_id));
        user.used.store(now, Ordering::Relaxed);
        (user, under_way)
    }

    /// The user, if followed.
    pub fn followed(&self, user_id: &UserId) -> Option<Arc<UserFeed>> {
        self.users.read().get(user_id).cloned()
    }

    fn follow(&self, user_id: &UserId) -> (Arc<UserFeed>, SyncUnderWay) {
        let _gate = self.gate.lock();
        let mut users = self.users.write();
        if let Some(user) = users.get(user_id) {
            return (user.clone(), user.sync_begins());
        }
        let token = &self.seen().token;
        let beginning = Beginning {
            events: token.events.clone(),
            account_data: token.account_data.clone(),
            push_rules: token.push_rules.clone(),
            to_device: token.to_device.clone(),
        };
        let user = Arc::new(UserFeed::new(user_id.to_owned(), beginning));
        // Begun while nobody can be forgotten: a user who is forgotten in the middle of a sync would not be woken.
        let under_way = user.sync_begins();
        users.insert(user_id.to_owned(), user.clone());
        if users.len() > self.parts.options.max_users {
            let forgotten = idle_users(&mut users);
            drop(users);
            forgotten.iter().for_each(|user| self.leave_all_rooms(user));
        }
        (user, under_way)
    }

    /// Takes over a user's rooms as the database has them, and gives those of which nothing is known yet.
    pub fn settle(
        &self,
        user: &Arc<UserFeed>,
        sid: i64,
        rows: Vec<crate::load::UserRoomFound>,
    ) -> Vec<Arc<Room>> {
        let _selecting = self.selecting.lock();
        let _gate = self.gate.lock();
        let mut rooms = HashMap::with_capacity(rows.len());
        let (mut watched, mut unknown) = (Vec::new(), Vec::new());
        for found in rows {
            let mut room = found.room;
            if room.membership == ruma::events::room::member::MembershipState::Join {
                let handle = self.room(found.room_nid, &room);
                if handle.is_unknown() {
                    unknown.push(handle.clone());
                }
                handle.watch(user);
                watched.push(handle.clone());
                room.room = Some(handle);
            }
            rooms.insert(found.room_nid, room);
        }
        let left: Vec<Arc<Room>> = {
            let mut inner = user.inner.lock();
            inner.learn_rooms(sid, rooms);
            let is_in =
                |room: &Arc<Room>| inner.rooms.get(&room.nid).is_some_and(|known| known.room.is_some());
            watched.into_iter().filter(|room| !is_in(room)).collect()
        };
        left.iter().for_each(|room| self.unwatch(room, user));
        unknown
    }

    /// The room, which is followed from now on; the caller holds the gate and adds somebody who watches it.
    fn room(&self, room_nid: RoomNid, known: &crate::user::UserRoom) -> Arc<Room> {
        let mut rooms = self.rooms.write();
        let room = rooms.entry(room_nid).or_insert_with(|| {
            let seen = self.seen();
            Arc::new(Room::new(room_nid, known.room_id.clone(), known.rules, &seen.token))
        });
        room.clone()
    }

    fn unwatch(&self, room: &Arc<Room>, user: &UserFeed) {
        if !room.unwatch(user) {
            self.rooms.write().remove(&room.nid);
        }
    }

    fn leave_all_rooms(&self, user: &UserFeed) {
        let rooms: Vec<Arc<Room>> =
            user.inner.lock().rooms.values().filter_map(|room| room.room.clone()).collect();
        rooms.iter().for_each(|room| self.unwatch(room, user));
    }

    /// Notes that rooms grew by about so much; forgets the ones that were used longest ago if it is too much.
    pub fn grew(&self, bytes: usize) {
        let max = self.parts.options.max_cache_bytes;
        if self.cache_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= max {
            return;
        }
        let mut total = self.size_bytes();
        let mut rooms: Vec<Arc<Room>> = self.rooms.read().values().cloned().collect();
        rooms.sort_unstable_by_key(|room| room.used.load(Ordering::Relaxed));
        for room in rooms {
            // Down to three quarters, so that it is not done for every room anew.
            if total <= max / 4 * 3 {
                break;
            }
            total = total.saturating_sub(room.shrink());
        }
        self.cache_bytes.store(total, Ordering::Relaxed);
    }

    /// About what the rooms take.
    pub fn size_bytes(&self) -> usize {
        self.rooms.read().values().map(|room| room.inner.read().size_bytes()).sum()
    }

    /// How many users and rooms are followed.
    #[cfg(test)]
    pub fn follows(&self) -> (usize, usize) {
        (self.users.read().len(), self.rooms.read().len())
    }

    /// The presence that is told of a user.
    pub fn write_presence(&self, out: &mut String, row: &PresenceRow, now: u64) {
        let mut event = myelin_events::raw_json::ObjectWriter::new(out);
        event.string("type", "m.presence");
        event.string("sender", row.user_id.as_str());
        let mut content = event.object("content");
        content.string("presence", row.presence.as_str());
        if row.presence == PresenceState::Online {
            content.boolean("currently_active", self.parts.presence.is_currently_active(row));
        }
        if row.last_active_ts > 0 {
            let ago = now.saturating_sub(row.last_active_ts);
            content.integer("last_active_ago", i64::try_from(ago).unwrap_or(i64::MAX));
        }
        if let Some(status_msg) = &row.status_msg {
            content.string("status_msg", status_msg);
        }
        content.end();
        event.end();
    }
}

/// Takes an eighth of the users out who are not syncing, those of the longest ago.
fn idle_users(users: &mut HashMap<OwnedUserId, Arc<UserFeed>>) -> Vec<Arc<UserFeed>> {
    let mut idle: Vec<Arc<UserFeed>> = users.values().filter(|user| !user.is_syncing()).cloned().collect();
    idle.sort_unstable_by_key(|user| user.used.load(Ordering::Relaxed));
    idle.truncate((users.len() / 8).max(1));
    for user in &idle {
        users.remove(&user.user_id);
    }
    idle
}
