//! Who lives and who holds what: looked at once for all duties of a process, together with its heartbeat.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use myelin_storage::{
    Database, StorageError,
    instances::{self, Fleet, Living, Registration, Survey},
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The fleet as it was at one moment.
#[derive(Debug, Default)]
pub(crate) struct Census {
    /// The processes that live, by name.
    pub living: Vec<Arc<Living>>,
    /// By the name of a duty, its parts with their holders, some of which may be gone.
    leases: HashMap<String, HashMap<u16, Registration>>,
}

impl Census {
    /// The parts of a duty that have holders.
    pub fn leases(&self, duty: &str) -> &HashMap<u16, Registration> {
        static NONE: std::sync::LazyLock<HashMap<u16, Registration>> = std::sync::LazyLock::new(HashMap::new);
        self.leases.get(duty).unwrap_or(&NONE)
    }
}

impl From<Fleet> for Census {
    fn from(fleet: Fleet) -> Self {
        let mut leases: HashMap<String, HashMap<u16, Registration>> = HashMap::new();
        for (lease, holder) in fleet.leases {
            if let Some((duty, shard)) = lease.rsplit_once('/')
                && let Ok(shard) = shard.parse()
            {
                leases.entry(duty.to_owned()).or_default().insert(shard, holder);
            }
        }
        Self { living: fleet.living.into_iter().map(Arc::new).collect(), leases }
    }
}

/// A moment in a process's life: whatever was read from the database after it was taken was begun later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// The latest census of a process.
pub(crate) struct Registry {
    me: Registration,
    clock: AtomicU64,
    latest: Mutex<Latest>,
    changes: watch::Sender<()>,
}

#[derive(Clone, Default)]
struct Latest {
    begun: Moment,
    fingerprint: Option<i64>,
    census: Arc<Census>,
}

impl Registry {
    pub fn new(me: Registration) -> Self {
        Self { me, clock: AtomicU64::new(1), latest: Mutex::default(), changes: watch::Sender::default() }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        Moment(self.clock.fetch_add(1, Ordering::SeqCst))
    }

    /// Tells whenever the fleet has changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The latest census, if it was begun after `moment`: what a process did in between isn't in an earlier one.
    pub fn since(&self, moment: Moment) -> Option<Arc<Census>> {
        let latest = self.latest.lock();
        (latest.begun > moment).then(|| latest.census.clone())
    }

    /// How many processes lived at the last census.
    pub fn size(&self) -> usize {
        self.latest.lock().census.living.len()
    }

    /// Takes a census, and with it says that the process lives for `beat`.
    ///
    /// # Errors
    /// [`StorageError::Fenced`] if the process was replaced.
    pub async fn take(
        &self,
        database: &Database,
        beat: Option<Duration>,
    ) -> Result<Arc<Census>, StorageError> {
        let client = database.get().await?;
        self.take_on(&client, beat).await
    }

    /// As [`Registry::take`], on a connection of the caller's.
    pub async fn take_on(
        &self,
        client: &myelin_storage::Client,
        beat: Option<Duration>,
    ) -> Result<Arc<Census>, StorageError> {
        let known = self.latest.lock().clone();
        let begun = self.now();
        let survey = instances::survey(client, self.me, beat, known.fingerprint).await?;
        if !survey.is_current {
            return Err(StorageError::Fenced);
        }
        Ok(self.note(begun, &known, survey))
    }

    fn note(&self, begun: Moment, known: &Latest, survey: Survey) -> Arc<Census> {
        let census = match survey.news {
            Some(fleet) => Arc::new(Census::from(fleet)),
            None => known.census.clone(),
        };
        let mut latest = self.latest.lock();
        if latest.begun < begun {
            let has_changed = latest.fingerprint != Some(survey.fingerprint);
            *latest = Latest { begun, fingerprint: Some(survey.fingerprint), census: census.clone() };
            if has_changed {
                self.changes.send_replace(());
            }
        }
        census
    }
}
