//! [`Rooms`]: the handle, and the rooms that are in memory.

use std::{
    collections::HashMap,
    ops::DerefMut,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use myelin_leases::{Assignment, Holder, LeaseError, Session, Share};
use myelin_replication::StreamWriter;
use myelin_storage::{Database, strings::Strings};
use parking_lot::Mutex;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, RoomId, UInt};
use tokio::sync::watch;

use crate::{
    EventRow, EventStream, OtherWriters, Profiles, PushEvaluator, RoomError, RoomsOptions,
    create::Makers,
    heavy::Heavy,
    numbers::Numbers,
    resident::{self, Draft, Pending, Resident},
    shards::{DUTY, SHARDS, shard_of},
};

mod handover;
mod residency;

use residency::{Residency, Turn};

/// Tasks that may wait for one room at a time; more are refused.
const MAX_WAITING: usize = 1024;

/// All changes of rooms go through this. Clones are the same engine.
#[derive(Clone)]
pub struct Rooms(pub(crate) Arc<Engine>);

impl std::fmt::Debug for Rooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rooms").field("resident", &self.0.residency).finish_non_exhaustive()
    }
}

/// What the operations work with.
pub(crate) struct Engine {
    pub database: Database,
    pub options: RoomsOptions,
    pub numbers: Numbers,
    pub writer: StreamWriter<EventStream>,
    pub profiles: Arc<dyn Profiles>,
    pub push: Arc<dyn PushEvaluator>,
    /// For what would hold a thread for long.
    pub heavy: Heavy,
    /// The users whose profiles are on their way into rooms; whether they changed again meanwhile.
    pub profile_changes: Mutex<HashMap<OwnedUserId, bool>>,
    /// When the last room was made, see [`Engine::creation_time`].
    last_creation: AtomicU64,
    pub makers: Makers,
    /// By shard, whether this process writes it.
    held: Box<[AtomicBool]>,
    share: OnceLock<Share>,
    pub other_writers: OnceLock<Arc<dyn OtherWriters>>,
    pub(crate) residency: Residency,
}

impl Engine {
    /// The present moment.
    pub fn now(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::try_from(self.options.clock.now()).unwrap_or(UInt::MAX))
    }

    /// The present moment, or a little later: no two rooms are made at the same, since from room version 12 on two
    /// rooms of one user that begin with the same event are the same room.
    pub fn creation_time(&self) -> MilliSecondsSinceUnixEpoch {
        let now = self.options.clock.now();
        let later = |last: u64| Some(now.max(last + 1));
        let last = self.last_creation.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        let time = now.max(last.unwrap_or_default() + 1);
        MilliSecondsSinceUnixEpoch(UInt::try_from(time).unwrap_or(UInt::MAX))
    }
}

impl Rooms {
    /// Starts the engine. `writer` is this process's writer of the events stream, started under `session`. If
    /// `options.takes_part`, the process takes its share of the rooms; rooms of shards that others hold answer
    /// [`RoomError::NotHere`].
    ///
    /// # Errors
    /// If the leases can't be asked for.
    pub async fn start(
        database: Database,
        session: &Session,
        writer: StreamWriter<EventStream>,
        strings: Strings,
        options: RoomsOptions,
        profiles: Arc<dyn Profiles>,
        push: Arc<dyn PushEvaluator>,
    ) -> Result<Self, LeaseError> {
        let residency = Residency::new(options.max_resident_rooms, options.max_resident_bytes);
        let takes_part = options.takes_part;
        let engine = Arc::new(Engine {
            numbers: Numbers::new(database.clone(), strings),
            heavy: Heavy::new(),
            database,
            options,
            writer,
            profiles,
            push,
            profile_changes: Mutex::default(),
            last_creation: AtomicU64::new(0),
            makers: Makers::default(),
            held: (0..SHARDS).map(|_| AtomicBool::new(false)).collect(),
            share: OnceLock::new(),
            other_writers: OnceLock::new(),
            residency,
        });
        let holder: Weak<dyn Holder> = Arc::downgrade(&(engine.clone() as Arc<dyn Holder>));
        let share = Share::start(session.clone(), DUTY, takes_part.then_some(holder)).await?;
        let _ = engine.share.set(share);
        Ok(Self(engine))
    }

    /// Which process writes which rooms, by shard.
    pub fn writers(&self) -> Option<watch::Receiver<Assignment>> {
        self.0.share.get().map(Share::assignment)
    }

    /// Makes the writers of the other rooms known. Once only.
    pub fn set_other_writers(&self, others: Arc<dyn OtherWriters>) {
        let _ = self.0.other_writers.set(others);
    }

    /// The shards of rooms that this process writes.
    pub fn held(&self) -> Vec<u16> {
        self.0.share.get().map(Share::held).unwrap_or_default()
    }

    /// Has the engine look at once who writes which rooms: something seems to have changed.
    pub fn look_for_writers(&self) {
        self.0.look_for_writers();
    }

    /// Gives all rooms away, once what is under way is committed: the process is about to end.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn leave(&self) -> Result<(), LeaseError> {
        match self.0.share.get() {
            Some(share) => share.leave().await,
            None => Ok(()),
        }
    }

    /// The server whose users and rooms these are.
    pub fn server_name(&self) -> &ruma::ServerName {
        &self.0.options.server_name
    }

    /// How many rooms are in memory.
    pub fn resident_rooms(&self) -> usize {
        self.0.residency.len()
    }

    /// Takes a turn at a room, which is loaded if it is not in memory.
    pub(crate) async fn enter(&self, room_id: &RoomId) -> Result<InRoom, RoomError> {
        let mut turn = self.turn(room_id).await?;
        // What was built on a commit that failed never was: the database has what is true.
        if turn.as_ref().is_some_and(|resident| resident.lane.is_broken()) {
            *turn = None;
        }
        if turn.is_none() {
            self.0.writer.check_settled()?;
            let client = self.0.database.get().await?;
            let now_ms = self.0.options.clock.now();
            let server_name = &self.0.options.server_name;
            *turn = Some(resident::load(&client, &self.0.numbers, server_name, room_id, now_ms).await?);
        }
        Ok(InRoom { engine: self.0.clone(), turn })
    }

    /// Takes the first turn at a room that is about to be made, or is known from elsewhere.
    pub(crate) async fn found(&self, resident: Resident) -> Result<InRoom, RoomError> {
        let mut turn = self.turn(&resident.room_id.clone()).await?;
        if turn.is_some() {
            return Err(RoomError::InvalidRoomState(format!("{} is there already", resident.room_id)));
        }
        *turn = Some(resident);
        Ok(InRoom { engine: self.0.clone(), turn })
    }

    /// Whether this process writes the rooms of a shard.
    pub(crate) fn holds(&self, shard: u8) -> bool {
        self.0.held[usize::from(shard)].load(Ordering::Acquire)
    }

    /// Whether this process writes any room.
    pub(crate) fn holds_any(&self) -> bool {
        (0..SHARDS).any(|shard| self.holds(shard))
    }

    /// Whether this process writes a room.
    pub fn writes(&self, room_id: &RoomId) -> bool {
        self.holds(shard_of(room_id))
    }

    async fn turn(&self, room_id: &RoomId) -> Result<Turn, RoomError> {
        let shard = shard_of(room_id);
        if self.holds(shard) {
            let turn = self.0.residency.turn(room_id, MAX_WAITING).await?;
            // It may have been given away while we waited.
            if self.holds(shard) {
                return Ok(turn);
            }
        }
        self.0.look_for_writers();
        Err(RoomError::NotHere(Some(shard)))
    }
}

/// A turn at a room: nobody else works on it until this is dropped or its events are handed over.
pub(crate) struct InRoom {
    engine: Arc<Engine>,
    turn: Turn,
}

impl std::ops::Deref for InRoom {
    type Target = Resident;

    fn deref(&self) -> &Resident {
        self.turn.as_ref().expect("the room was loaded when the turn was taken")
    }
}

impl DerefMut for InRoom {
    fn deref_mut(&mut self) -> &mut Resident {
        self.turn.as_mut().expect("the room was loaded when the turn was taken")
    }
}

impl InRoom {
    /// Builds an event behind the current forward extremities.
    pub async fn compose(&mut self, draft: Draft) -> Result<EventRow, RoomError> {
        let engine = self.engine.clone();
        let resident: &mut Resident = self;
        resident.compose(&engine, draft).await
    }

    /// Takes in rows of which the later build on the earlier, without writing them yet.
    pub fn apply(&mut self, row: &EventRow) {
        let engine = self.engine.clone();
        (**self).apply(row, &engine.options.server_name);
    }

    /// Hands rows over that were [applied](Self::apply) already.
    ///
    /// # Errors
    /// If they were not taken; the memory of the room is dropped then.
    pub fn hand_over_applied(mut self, rows: Vec<EventRow>) -> Result<Pending, RoomError> {
        match self.engine.writer.append_in(&self.lane, rows) {
            Ok(appending) => {
                let pending = Pending::new(appending);
                self.latest = Some(pending.clone());
                Ok(pending)
            }
            Err(error) => {
                *self.turn = None;
                Err(error.into())
            }
        }
    }

    /// Takes rows in, of which the later build on the earlier, and hands them over together.
    pub fn hand_over_all(mut self, rows: Vec<EventRow>) -> Result<Pending, RoomError> {
        for row in &rows {
            self.apply(row);
        }
        self.hand_over_applied(rows)
    }

    /// Hands a row over and takes it in; the next turn builds on it while it is being committed.
    pub fn hand_over(&mut self, row: EventRow) -> Result<Pending, RoomError> {
        let appending = self.engine.writer.append_in(&self.lane, vec![row.clone()])?;
        self.apply(&row);
        let pending = Pending::new(appending);
        self.latest = Some(pending.clone());
        Ok(pending)
    }

    /// Ends the turn and waits for the commit.
    pub async fn write(mut self, row: EventRow) -> Result<OwnedEventId, RoomError> {
        let event_id = row.pdu.event_id().clone();
        let pending = self.hand_over(row)?;
        drop(self);
        pending.committed().await?;
        Ok(event_id)
    }

    /// Ends the turn with an event that is there already, once that is committed.
    pub async fn already(self, event_id: OwnedEventId) -> Result<OwnedEventId, RoomError> {
        let latest = self.latest.clone();
        let in_flight = self.lane.in_flight();
        drop(self);
        match latest.filter(|_| in_flight > 0) {
            Some(latest) => latest.committed().await.map(|()| event_id),
            None => Ok(event_id),
        }
    }

    /// Waits, within the turn, until all that was handed over is committed: then the database has all of the room.
    pub async fn quiet(&self) -> Result<(), RoomError> {
        match self.latest.clone() {
            Some(latest) => latest.committed().await,
            None => Ok(()),
        }
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}
