//! Presence ([spec](https://spec.matrix.org/v1.19/client-server-api/#presence)): who is here, as told by their requests
//! and by themselves.

mod stream;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use myelin_replication::{Feed, Stamped, StreamWriter, WriteError};
use myelin_storage::{Database, Result, presence as table};
use myelin_types::{Clock, MillisSinceEpoch, StreamId, WriterId};
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId, presence::PresenceState};
use tokio::time::MissedTickBehavior;
use tracing::warn;

use self::stream::from_table;
pub use self::stream::{PresenceRow, PresenceStream};

/// How often it is looked at who went away.
const SWEEP: Duration = Duration::from_secs(5);
/// Another process's word counts for this long before a user who is seen here is said to be here.
const TAKE_OVER_MS: u64 = 25_000;
/// Users whose presence is remembered at most; others are asked of the database.
const MAX_REMEMBERED: usize = 50_000;

/// When users count as away.
#[derive(Clone, Copy, Debug)]
pub struct PresenceOptions {
    /// Whether presence is tracked at all (`presence.enabled`).
    pub enabled: bool,
    /// Without any sync for this long a user is offline.
    pub offline_after: Duration,
    /// Without any activity for this long a user who syncs is unavailable.
    pub idle_after: Duration,
    /// For this long after an activity a user is `currently_active`.
    pub active_for: Duration,
}

impl Default for PresenceOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            offline_after: Duration::from_secs(30),
            idle_after: Duration::from_secs(5 * 60),
            active_for: Duration::from_secs(60),
        }
    }
}

/// Everybody's presence. Clones are the same service.
///
/// A user who syncs here is online here; this process says so once, and says when that ends. A sync costs a look-up in
/// memory, and a row is written only when something changed.
#[derive(Clone)]
pub struct Presence(Arc<Inner>);

struct Inner {
    options: PresenceOptions,
    clock: Clock,
    database: Database,
    feed: Feed<PresenceStream>,
    writer: StreamWriter<PresenceStream>,
    me: WriterId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the stream said last, of those who are not offline and of whom we heard lately.
    known: HashMap<OwnedUserId, Known>,
    /// Those who sync here.
    here: HashMap<OwnedUserId, Here>,
}

#[derive(Clone)]
struct Known {
    row: PresenceRow,
    /// The place of all but the status message.
    id: StreamId,
    /// The place of the status message, as far as is known.
    status_id: StreamId,
    writer: WriterId,
    heard: MillisSinceEpoch,
}

impl Known {
    fn new(stamped: &Stamped<PresenceRow>, heard: MillisSinceEpoch) -> Self {
        let status_id = if stamped.row.is_said { stamped.id } else { StreamId::ZERO };
        Self { row: stamped.row.clone(), id: stamped.id, status_id, writer: stamped.writer, heard }
    }

    /// Takes in a row of the stream. Rows of two writers may come in any order; of each half of what they say, the greater id
    /// counts.
    fn learn(&mut self, stamped: &Stamped<PresenceRow>, now: MillisSinceEpoch) {
        self.heard = now;
        if stamped.id > self.id {
            (self.id, self.writer) = (stamped.id, stamped.writer);
            self.row.presence = stamped.row.presence.clone();
            self.row.last_active_ts = stamped.row.last_active_ts;
        }
        if stamped.row.is_said && stamped.id > self.status_id {
            self.status_id = stamped.id;
            self.row.status_msg.clone_from(&stamped.row.status_msg);
        }
    }
}

#[derive(Default)]
struct Here {
    syncs: usize,
    last_sync: MillisSinceEpoch,
    last_active: MillisSinceEpoch,
    wants: Wants,
}

/// What the user's clients say with `set_presence`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Wants {
    #[default]
    Online,
    Unavailable,
}

impl std::fmt::Debug for Presence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presence").field("feed", &self.0.feed).finish_non_exhaustive()
    }
}

impl Presence {
    /// Presence that is written by `writer`, which is `me`, and read from `feed`.
    ///
    /// # Errors
    /// If those who are present can't be read from the database.
    pub async fn open(
        options: PresenceOptions,
        clock: Clock,
        database: Database,
        feed: Feed<PresenceStream>,
        writer: StreamWriter<PresenceStream>,
        me: WriterId,
    ) -> Result<Self> {
        let inner = Arc::new(Inner { options, clock, database, feed, writer, me, state: Mutex::default() });
        let listener = Arc::downgrade(&inner);
        inner.feed.subscribe(move |batch| {
            let Some(inner) = listener.upgrade() else { return };
            batch.rows.iter().for_each(|stamped| inner.learn(stamped));
        });
        let client = inner.database.get().await?;
        let limit = i64::try_from(MAX_REMEMBERED).unwrap_or(i64::MAX);
        for row in table::list_present(&client, limit).await? {
            inner.remember(row)?;
        }
        drop(client);
        if options.enabled {
            tokio::spawn(sweep(Arc::downgrade(&inner)));
        }
        Ok(Self(inner))
    }

    /// Whether presence is tracked.
    pub fn is_enabled(&self) -> bool {
        self.0.options.enabled
    }

    /// The stream of presence as this process has seen it.
    pub fn feed(&self) -> &Feed<PresenceStream> {
        &self.0.feed
    }

    /// A user sets their presence, and with it the status message.
    ///
    /// # Errors
    /// If it can't be written.
    pub async fn set(
        &self,
        user_id: &UserId,
        presence: PresenceState,
        status_msg: Option<String>,
    ) -> Result<(), WriteError> {
        if !self.is_enabled() {
            return Ok(());
        }
        let now = self.0.clock.now();
        let row = {
            let mut state = self.0.state.lock();
            if let Some(here) = state.here.get_mut(user_id) {
                here.wants = match presence {
                    PresenceState::Unavailable => Wants::Unavailable,
                    _ => Wants::Online,
                };
                if presence == PresenceState::Online {
                    here.last_active = now;
                }
            }
            let before = state.known.get(user_id).map_or(0, |known| known.row.last_active_ts);
            let last_active_ts = if presence == PresenceState::Online { now } else { before };
            PresenceRow { user_id: user_id.to_owned(), presence, status_msg, last_active_ts, is_said: true }
        };
        self.0.writer.append(vec![row]).await?;
        Ok(())
    }

    /// What is known of a user.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn get(&self, user_id: &UserId) -> Result<Option<PresenceRow>> {
        if let Some(row) = self.known(user_id) {
            return Ok(Some(row));
        }
        let client = self.0.database.get().await?;
        let row = table::list_presence_of(&client, &[user_id.as_str()]).await?.pop();
        Ok(row.map(from_table).transpose()?.map(|stamped| stamped.row))
    }

    /// What this process has in memory of a user: everything of those who are not offline.
    pub fn known(&self, user_id: &UserId) -> Option<PresenceRow> {
        let state = self.0.state.lock();
        let mut row = state.known.get(user_id)?.row.clone();
        if let Some(here) = state.here.get(user_id) {
            row.last_active_ts = row.last_active_ts.max(here.last_active);
        }
        Some(row)
    }

    /// Everybody who is not offline.
    pub fn list_present(&self) -> Vec<PresenceRow> {
        let state = self.0.state.lock();
        let present = state.known.values().filter(|known| known.row.presence != PresenceState::Offline);
        present.map(|known| known.row.clone()).collect()
    }

    /// Whether a user who was active then is active now.
    pub fn is_currently_active(&self, row: &PresenceRow) -> bool {
        let age = self.0.clock.now().saturating_sub(row.last_active_ts);
        row.presence == PresenceState::Online && age < millis(self.0.options.active_for)
    }

    /// Notes that a user did something: sent a message, a receipt, typed.
    pub fn active(&self, user_id: &UserId) {
        if !self.is_enabled() {
            return;
        }
        let now = self.0.clock.now();
        let returned = {
            let mut state = self.0.state.lock();
            let Some(here) = state.here.get_mut(user_id) else { return };
            here.last_active = now;
            here.wants = Wants::Online;
            state.known.get(user_id).is_some_and(|known| known.row.presence == PresenceState::Unavailable)
        };
        if returned {
            self.0.clone().announce(vec![user_id.to_owned()]);
        }
    }

    /// Notes that a user syncs, until the answer is dropped. `wants` is the request's `set_presence`.
    pub fn syncing(&self, user_id: &UserId, wants: &PresenceState) -> Syncing {
        if !self.is_enabled() || *wants == PresenceState::Offline {
            return Syncing(None);
        }
        let now = self.0.clock.now();
        let must_tell = {
            let mut state = self.0.state.lock();
            if !state.here.contains_key(user_id) {
                state.here.insert(user_id.to_owned(), Here { last_active: now, ..Here::default() });
            }
            let Some(here) = state.here.get_mut(user_id) else { return Syncing(None) };
            here.syncs += 1;
            here.last_sync = now;
            here.wants =
                if *wants == PresenceState::Unavailable { Wants::Unavailable } else { Wants::Online };
            self.0.due(&state, user_id, now).is_some()
        };
        if must_tell {
            self.0.clone().announce(vec![user_id.to_owned()]);
        }
        Syncing(Some((self.clone(), user_id.to_owned())))
    }
}

/// A sync that is under way.
#[derive(Debug)]
pub struct Syncing(Option<(Presence, OwnedUserId)>);

impl Drop for Syncing {
    fn drop(&mut self) {
        let Some((presence, user_id)) = self.0.take() else { return };
        let now = presence.0.clock.now();
        if let Some(here) = presence.0.state.lock().here.get_mut(&user_id) {
            here.syncs = here.syncs.saturating_sub(1);
            here.last_sync = now;
        }
    }
}

impl Inner {
    fn learn(&self, stamped: &Stamped<PresenceRow>) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if let Some(known) = state.known.get_mut(&stamped.row.user_id) {
            known.learn(stamped, now);
            return;
        }
        if state.known.len() >= MAX_REMEMBERED {
            state.known.retain(|_, known| known.row.presence != PresenceState::Offline);
        }
        if state.known.len() < MAX_REMEMBERED {
            state.known.insert(stamped.row.user_id.clone(), Known::new(stamped, now));
        }
    }

    /// Takes in what the database has of a user of whom nothing was heard meanwhile.
    fn remember(&self, row: table::Presence) -> Result<()> {
        let status_id = row.status_stream_id;
        let stamped = from_table(row)?;
        let mut state = self.state.lock();
        let known = Known { status_id, ..Known::new(&stamped, self.clock.now()) };
        state.known.entry(stamped.row.user_id).or_insert(known);
        Ok(())
    }

    /// Has in memory what the database knows of users who come back: they may have said something before they left.
    async fn recollect(&self, users: &[OwnedUserId]) -> Result<()> {
        let unknown: Vec<&str> = {
            let state = self.state.lock();
            users.iter().filter(|user| !state.known.contains_key(*user)).map(|user| user.as_str()).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let client = self.database.get().await?;
        let rows = table::list_presence_of(&client, &unknown).await?;
        drop(client);
        rows.into_iter().try_for_each(|row| self.remember(row))
    }

    /// What must be said of a user who syncs here, or did.
    fn due(&self, state: &State, user_id: &UserId, now: MillisSinceEpoch) -> Option<PresenceRow> {
        let here = state.here.get(user_id)?;
        let known = state.known.get(user_id);
        let gone =
            here.syncs == 0 && now.saturating_sub(here.last_sync) >= millis(self.options.offline_after);
        let idle = now.saturating_sub(here.last_active) >= millis(self.options.idle_after);
        let presence = match here.wants {
            _ if gone => PresenceState::Offline,
            Wants::Unavailable => PresenceState::Unavailable,
            Wants::Online if idle => PresenceState::Unavailable,
            Wants::Online => PresenceState::Online,
        };
        if let Some(known) = known {
            let ours = known.writer == self.me;
            let said = known.row.presence == presence;
            let fresh = now.saturating_sub(known.heard) < TAKE_OVER_MS;
            // Another process may see the user too: then it is for that one to say that the user left.
            if (said && (ours || gone || fresh)) || (gone && !ours) {
                return None;
            }
        } else if gone {
            return None;
        }
        Some(PresenceRow {
            user_id: user_id.to_owned(),
            presence,
            status_msg: known.and_then(|known| known.row.status_msg.clone()),
            last_active_ts: here.last_active,
            is_said: false,
        })
    }

    /// Writes what is due of these users. In the background: no sync waits for it.
    fn announce(self: Arc<Self>, users: Vec<OwnedUserId>) {
        tokio::spawn(async move {
            if let Err(error) = self.recollect(&users).await {
                warn!(%error, "presence could not be read; it is tried again");
                return;
            }
            let rows: Vec<PresenceRow> = {
                let state = self.state.lock();
                let now = self.clock.now();
                let users: HashSet<OwnedUserId> = users.into_iter().collect();
                users.iter().filter_map(|user_id| self.due(&state, user_id, now)).collect()
            };
            if let Err(error) = self.writer.append(rows).await {
                warn!(%error, "presence could not be written; it is tried again");
            }
        });
    }
}

/// Looks every few seconds at who went away or became idle.
async fn sweep(presence: Weak<Inner>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(inner) = presence.upgrade() else { return };
        let due: Vec<OwnedUserId> = {
            let mut state = inner.state.lock();
            let now = inner.clock.now();
            let due = state
                .here
                .keys()
                .filter(|user_id| inner.due(&state, user_id, now).is_some())
                .cloned()
                .collect();
            let forget = millis(inner.options.offline_after) * 2;
            state.here.retain(|_, here| here.syncs > 0 || now.saturating_sub(here.last_sync) < forget);
            due
        };
        if !due.is_empty() {
            inner.announce(due);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
