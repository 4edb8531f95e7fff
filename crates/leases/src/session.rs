//! A process's registration, its heartbeat and the duties it holds.

use std::{collections::HashSet, sync::Arc, time::Duration};

use myelin_storage::{
    Database, DetachedClient, GenericClient, StorageError, Transaction,
    instances::{self, Registration},
    streams,
};
use myelin_types::WriterId;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};

use crate::census::{Census, Moment, Registry};

/// How long a process counts as alive after its last heartbeat.
const TTL: Duration = Duration::from_secs(4);
/// How often it says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often a process that is not alone also looks at what the others do between two heartbeats.
const LOOKS_PER_HEARTBEAT: u32 = 2;
/// How long it may take until that is committed, before another connection is tried: two more must fit in before the process
/// counts as dead, because a connection of which nothing is heard says nothing of the database.
const BEAT_PATIENCE: Duration = Duration::from_millis(1_200);

/// Why a process can't register or take a duty.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// A living process has the same `worker_name`.
    #[error(
        "another process named {0:?} is running on this database; every process needs a worker_name of its own"
    )]
    NameTaken(String),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A registered process. Clones are the same registration.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    database: Database,
    registration: Registration,
    name: String,
    lost: watch::Sender<bool>,
    /// The streams that the process has a position in.
    claimed: Mutex<HashSet<String>>,
    beats: Mutex<Beats>,
    registry: Registry,
    /// Holds the advisory lock on the name for as long as this connection lives: the server frees it by itself when
    /// the process dies, so that a successor of the same name need not wait for the heartbeat to run out.
    _name_lock: DetachedClient,
}

/// The heartbeats that reached the database without a longer break between two of them.
#[derive(Clone, Copy)]
struct Beats {
    first: Instant,
    last: Instant,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("name", &self.0.name)
            .field("registration", &self.0.registration)
            .finish()
    }
}

impl Session {
    /// Registers the process under `name`, waiting up to `patience` for a predecessor of that name to end, and starts
    /// its heartbeat. `stream_names` are the streams that it may write.
    ///
    /// # Errors
    /// [`LeaseError::NameTaken`] if the predecessor still lives after `patience`.
    pub async fn register(
        database: Database,
        name: &str,
        stream_names: &[&str],
        patience: Duration,
    ) -> Result<Self, LeaseError> {
        let name_lock = database.get().await?;
        let give_up = Instant::now() + patience;
        while !instances::try_lock_name(&name_lock, name).await? {
            if Instant::now() >= give_up {
                return Err(LeaseError::NameTaken(name.to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut client = database.get().await?;
        let transaction = Transaction::begin(&mut client);
        let registration = instances::register(&transaction, name, TTL).await?;
        streams::claim(&transaction, stream_names, registration.writer, registration.epoch).await?;
        transaction.commit().await?;
        drop(client);
        info!(instance_name = name, writer = registration.writer.0, epoch = registration.epoch, "registered");
        let session = Self(Arc::new(Inner {
            database,
            registration,
            name: name.to_owned(),
            lost: watch::Sender::new(false),
            claimed: Mutex::new(stream_names.iter().map(|&stream| stream.to_owned()).collect()),
            beats: Mutex::new(Beats { first: Instant::now(), last: Instant::now() }),
            registry: Registry::new(registration),
            _name_lock: myelin_storage::detach(name_lock),
        }));
        tokio::spawn(heartbeat(Arc::downgrade(&session.0), session.0.database.apart(BEAT_PATIENCE)?));
        Ok(session)
    }

    /// The process's number and epoch.
    pub fn registration(&self) -> Registration {
        self.0.registration
    }

    /// The database that the process is registered in.
    pub fn database(&self) -> &Database {
        &self.0.database
    }

    /// Tells the other processes where they reach this one, in words that the caller knows.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn set_address(&self, address: &str) -> Result<(), LeaseError> {
        let client = self.0.database.get().await?;
        Ok(instances::set_address(&client, self.0.registration, address).await?)
    }

    /// Tells the other processes that this one takes a share of a duty from now on.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn take_part(&self, duty: &str) -> Result<(), LeaseError> {
        let client = self.0.database.get().await?;
        Ok(instances::add_duty(&client, self.0.registration, duty).await?)
    }

    /// Tells the other processes that this one does not take a share of a duty any more.
    ///
    /// # Errors
    /// If the database fails.
    pub(crate) async fn take_no_part(&self, duty: &str) -> Result<(), LeaseError> {
        let client = self.0.database.get().await?;
        Ok(instances::remove_duty(&client, self.0.registration, duty).await?)
    }

    /// The process has reached the database for long enough, and until now, to tell from their silence that others have
    /// gone. After an outage of the database, everybody was silent.
    pub(crate) fn is_steady(&self) -> bool {
        let beats = *self.0.beats.lock();
        beats.last.elapsed() < 2 * HEARTBEAT && beats.first.elapsed() >= TTL
    }

    /// Whether a heartbeat has reached the database of late: others take this process for alive.
    pub fn is_heard(&self) -> bool {
        self.0.beats.lock().last.elapsed() < TTL
    }

    /// The latest census, if it was begun after `moment`; else one that is taken now.
    pub(crate) async fn census_since(&self, moment: Moment) -> Result<Arc<Census>, LeaseError> {
        match self.0.registry.since(moment) {
            Some(census) => Ok(census),
            None => Ok(self.0.registry.take(&self.0.database, None).await?),
        }
    }

    /// Now, for [`Session::census_since`].
    pub(crate) fn now(&self) -> Moment {
        self.0.registry.now()
    }

    /// Tells whenever somebody comes, goes, or takes or gives something.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.registry.changes()
    }

    /// Ends once no heartbeat has reached the database for so long that others take this process for dead: because it stood still,
    /// or is cut off. What it has is being taken over, and whoever waits for it is better served elsewhere.
    pub async fn silent(&self) {
        loop {
            let last = self.0.beats.lock().last;
            match TTL.checked_sub(last.elapsed()).filter(|left| !left.is_zero()) {
                Some(left) => tokio::time::sleep(left).await,
                None => return,
            }
        }
    }

    /// Whether the process was replaced.
    pub(crate) fn is_lost(&self) -> bool {
        *self.0.lost.borrow()
    }

    /// The process's number, which stands beside every row that it writes to a stream.
    pub fn writer(&self) -> WriterId {
        self.0.registration.writer
    }

    /// The epoch that every write is checked against.
    pub fn epoch(&self) -> i64 {
        self.0.registration.epoch
    }

    /// The `worker_name`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether the process has a position in a stream.
    pub fn has_claimed(&self, stream: &str) -> bool {
        self.0.claimed.lock().contains(stream)
    }

    /// Gives the process a position in a stream, committed before it writes there for the first time: readers could not tell
    /// otherwise what they have seen of it.
    ///
    /// # Errors
    /// [`StorageError::Fenced`] if the process was replaced.
    pub async fn claim(&self, stream: &str) -> Result<(), StorageError> {
        let mut client = self.0.database.get().await?;
        let transaction = Transaction::begin(&mut client);
        self.check_fence(&transaction).await?;
        streams::claim(&transaction, &[stream], self.writer(), self.epoch()).await?;
        transaction.commit().await?;
        self.0.claimed.lock().insert(stream.to_owned());
        Ok(())
    }

    /// Takes those of `leases` that are free or whose holder is gone, and gives all of them that are held now.
    ///
    /// # Errors
    /// If the database fails, or [`StorageError::Fenced`] if the process was replaced: it would take from its own successor. What is
    /// held then is unchanged.
    pub async fn acquire(&self, leases: &[&str]) -> Result<Vec<String>, LeaseError> {
        let mut client = self.0.database.get().await?;
        let transaction = Transaction::begin(&mut client);
        self.check_fence(&transaction).await?;
        let held = instances::acquire_leases(&transaction, leases, self.0.registration).await?;
        transaction.commit().await?;
        Ok(held)
    }

    /// Checks in the caller's transaction that this process may still write; nobody can take its duties over before
    /// that transaction has ended.
    ///
    /// # Errors
    /// [`StorageError::Fenced`] if it was replaced: roll back, and stop.
    pub async fn check_fence(&self, transaction: &impl GenericClient) -> Result<(), StorageError> {
        if instances::check_fence(transaction, self.0.registration).await? {
            return Ok(());
        }
        self.mark_lost();
        Err(StorageError::Fenced)
    }

    /// Notes that the process was replaced. [`Session::lost`] tells whoever waits for it.
    pub fn mark_lost(&self) {
        if !self.0.lost.send_replace(true) {
            error!(instance_name = self.0.name, "another process took over this one's duties; stopping");
        }
    }

    /// Ends once the process was replaced: it must stop, since nothing that it writes is accepted any more.
    pub async fn lost(&self) {
        let mut lost = self.0.lost.subscribe();
        // The sender lives in `self`, so this ends only with the value we wait for.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    /// Gives everything back at a clean end, so that others take over at once.
    ///
    /// # Errors
    /// If the database fails; the duties then come free when the last heartbeat has run out.
    pub async fn release(&self) -> Result<(), LeaseError> {
        let client = self.0.database.get().await?;
        Ok(instances::deregister(&client, self.0.registration).await?)
    }
}

impl Inner {
    fn beat(&self) {
        let now = Instant::now();
        let mut beats = self.beats.lock();
        if now - beats.last > 2 * HEARTBEAT {
            beats.first = now;
        }
        beats.last = now;
    }
}

/// Beats, and looks at the others, on a connection of its own, which no request can keep busy.
async fn heartbeat(weak: std::sync::Weak<Inner>, apart: Database) {
    let mut looks_left = 0;
    loop {
        let Some(session) = weak.upgrade().map(Session) else { return };
        if *session.0.lost.borrow() {
            return;
        }
        let begun = Instant::now();
        let is_beat = looks_left == 0;
        let is_alone = session.0.registry.size() <= 1;
        looks_left = match pulse(&apart, &session.0.registry, is_beat.then_some(TTL)).await {
            Ok(_) if is_beat => {
                session.0.beat();
                if is_alone { 0 } else { LOOKS_PER_HEARTBEAT - 1 }
            }
            Ok(_) => looks_left - 1,
            Err(StorageError::Fenced) => return session.mark_lost(),
            Err(error) => {
                warn!(%error, "the heartbeat did not reach the database");
                0
            }
        };
        drop(session);
        let pause = if is_alone { HEARTBEAT } else { HEARTBEAT / LOOKS_PER_HEARTBEAT };
        sleep_until(begun + pause).await;
    }
}

async fn pulse(
    apart: &Database,
    registry: &Registry,
    beat: Option<Duration>,
) -> Result<Arc<Census>, StorageError> {
    let client = apart.get().await?;
    match tokio::time::timeout(BEAT_PATIENCE, registry.take_on(&client, beat)).await {
        Ok(taken) => taken,
        Err(_) => {
            myelin_storage::discard(client);
            Err(StorageError::Unavailable("a connection does not answer".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use myelin_storage::DatabaseOptions;
    use myelin_testing::MigratedDatabase;
    use myelin_types::StreamId;

    use super::*;

    /// When the process counts as dead, in seconds.
    async fn alive_until(database: &Database) -> f64 {
        const SQL: &str = "SELECT extract(epoch FROM alive_until)::float8 FROM instances";
        database.get().await.unwrap().query_one(SQL, &[]).await.unwrap().get(0)
    }

    /// A process that has lost the lock on its name to a successor and does not know it yet.
    async fn replaced(database: &Database) -> Session {
        let session = Session::register(database.clone(), "main", &[], Duration::ZERO).await.unwrap();
        session.claim("receipts").await.unwrap();
        let successor =
            instances::register(&database.get().await.unwrap(), session.name(), TTL).await.unwrap();
        assert_eq!((successor.writer, successor.epoch), (session.writer(), session.epoch() + 1));
        session
    }

    #[tokio::test]
    async fn a_process_writes_nothing_once_its_successor_has_registered() {
        let database = MigratedDatabase::create().await;
        let session = replaced(&database).await;
        let mut client = database.get().await.unwrap();
        let flight = Transaction::begin(&mut client).take_off();
        let me = (session.writer(), session.epoch());
        let path = (StreamId::ZERO, StreamId(1));
        let advanced = streams::advance(&flight, "receipts", me, path);
        let _ = advanced.await.unwrap();
        let written = flight.land(Ok(())).await;
        assert!(matches!(written, Err(StorageError::Fenced)), "{written:?}");
    }

    #[tokio::test]
    async fn a_process_takes_nothing_from_its_successor() {
        let database = MigratedDatabase::create().await;
        let session = replaced(&database).await;
        let taken = session.acquire(&["events/0"]).await;
        assert!(matches!(taken, Err(LeaseError::Storage(StorageError::Fenced))), "{taken:?}");
        assert!(session.is_lost());
        let client = database.get().await.unwrap();
        let fleet =
            instances::survey(&client, session.registration(), None, None).await.unwrap().news.unwrap();
        assert_eq!(fleet.leases, []);
    }

    #[tokio::test]
    async fn a_process_whose_heartbeats_do_not_arrive_knows_that_it_counts_as_dead() {
        let database = MigratedDatabase::create().await;
        let session = Session::register(database.clone(), "main", &[], Duration::ZERO).await.unwrap();
        assert!(session.is_heard() && session.silent().now_or_never().is_none());
        session.0.beats.lock().last -= TTL;
        assert!(!session.is_heard() && session.silent().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_busy_pool_does_not_silence_a_process() {
        let at = MigratedDatabase::create().await;
        let options = DatabaseOptions::from_address(at.url()).unwrap();
        let database = Database::new(DatabaseOptions { max_connections: 2, ..options }).unwrap();
        let _session = Session::register(database.clone(), "main", &[], Duration::ZERO).await.unwrap();
        let _busy = [database.get().await.unwrap(), database.get().await.unwrap()];
        let before = alive_until(&at).await;
        let beats = async {
            while alive_until(&at).await < before + 2. {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(2 * TTL, beats).await.unwrap();
    }
}
