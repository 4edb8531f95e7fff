//! What a process tells operators of itself.

use std::{collections::BTreeMap, sync::Arc};

use myelin_daemon::Readiness;
use myelin_leases::Share;
use myelin_replication::Horizon;
use myelin_rooms::Rooms;
use myelin_storage::Database;
use parking_lot::Mutex;
use serde::Serialize;

use crate::Role;

/// How a process is.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    /// Its name: `main`, or the `worker_name`.
    process: String,
    /// What it was made for.
    role: &'static str,
    /// The program's version.
    version: &'static str,
    /// The process id.
    pid: u32,
    /// Whether all conditions are met.
    ready: bool,
    /// The conditions, and whether each is met.
    conditions: BTreeMap<&'static str, bool>,
    /// By duty, how many parts of it the process holds.
    leases: BTreeMap<&'static str, usize>,
    /// By stream, how far the process is.
    streams: BTreeMap<&'static str, StreamStatus>,
    /// By queue, how many wait.
    queues: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize)]
struct StreamStatus {
    position: String,
    /// Ids between here and what is committed.
    lag: i64,
}

/// Makes [`Status`].
pub(crate) struct Reporter {
    pub process: String,
    pub role: Role,
    pub readiness: Readiness,
    pub database: Database,
    pub horizon: Horizon,
    pub rooms: Option<Rooms>,
    pub shares: Vec<(&'static str, Share)>,
    pub queues: Queues,
}

/// The queues of a process: what each is called, and how to tell how many wait in it. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Queues(Arc<Mutex<Vec<(String, Length)>>>);

type Length = Box<dyn Fn() -> usize + Send + Sync>;

impl Queues {
    pub fn add(&self, name: impl Into<String>, length: impl Fn() -> usize + Send + Sync + 'static) {
        self.0.lock().push((name.into(), Box::new(length)));
    }

    fn lengths(&self) -> BTreeMap<String, usize> {
        self.0.lock().iter().map(|(name, length)| (name.clone(), length())).collect()
    }
}

impl Reporter {
    pub async fn report(&self, is_stopping: bool) -> Status {
        let mut conditions: BTreeMap<_, _> = self.readiness.conditions().into_iter().collect();
        conditions.insert("not_stopping", !is_stopping);
        // Without the database there is nothing to compare with, and the conditions say so.
        let lags = self.horizon.lags(&self.database).await.unwrap_or_default();
        let stream = |lag: myelin_replication::Lag| {
            (lag.stream, StreamStatus { position: lag.position.to_string(), lag: lag.ids })
        };
        let rooms = self.rooms.as_ref().map(|rooms| ("events", rooms.held().len()));
        let shares = self.shares.iter().map(|(name, share)| (*name, share.held().len()));
        Status {
            process: self.process.clone(),
            role: self.role.name(),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            ready: conditions.values().all(|met| *met),
            conditions,
            leases: shares.chain(rooms).filter(|(_, held)| *held > 0).collect(),
            streams: lags.into_iter().map(stream).collect(),
            queues: self.queues.lengths(),
        }
    }
}
