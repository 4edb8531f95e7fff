//! What is committed by now, in whichever process.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use myelin_storage::{Database, Result, streams};
use myelin_types::{Position, StreamId, WriterId};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::{Feed, Stream};

/// Requests that wait for a look at most; more go on without one.
const QUEUE: usize = 16 << 10;
/// How long a feed may take to come to where the database is.
const PATIENCE: Duration = Duration::from_secs(5);

/// Brings all feeds of a process to what is committed now: whoever was answered by another process finds here what that process
/// wrote. Requests that come while the database is being asked share the next question. Clones are the same.
#[derive(Clone)]
pub struct Horizon {
    feeds: Arc<Mutex<HashMap<&'static str, Arc<dyn Reaching>>>>,
    waiting: mpsc::Sender<oneshot::Sender<()>>,
}

impl std::fmt::Debug for Horizon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Horizon").finish_non_exhaustive()
    }
}

/// A feed whose rows are forgotten.
trait Reaching: Send + Sync {
    fn covers(&self, writer: WriterId, id: StreamId) -> bool;
    fn wait_for<'a>(&'a self, position: &'a Position) -> BoxFuture<'a, bool>;
    fn position(&self) -> Arc<Position>;
}

impl<S: Stream> Reaching for Feed<S> {
    fn covers(&self, writer: WriterId, id: StreamId) -> bool {
        Feed::position(self).covers(writer, id)
    }

    fn wait_for<'a>(&'a self, position: &'a Position) -> BoxFuture<'a, bool> {
        Box::pin(Feed::wait_for(self, position, PATIENCE))
    }

    fn position(&self) -> Arc<Position> {
        Feed::position(self)
    }
}

/// How far a feed of this process is behind the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lag {
    /// The stream.
    pub stream: &'static str,
    /// Where the feed stands.
    pub position: Arc<Position>,
    /// How many ids of the stream's sequence lie between the feed and what is committed, at most.
    pub ids: i64,
}

impl Horizon {
    /// No feeds yet.
    pub fn new(database: Database) -> Self {
        let (waiting, queue) = mpsc::channel(QUEUE);
        let feeds: Arc<Mutex<HashMap<_, _>>> = Arc::default();
        tokio::spawn(look(database, Arc::downgrade(&feeds), queue));
        Self { feeds, waiting }
    }

    /// Has this feed brought up to date too.
    pub fn add<S: Stream>(&self, feed: &Feed<S>) {
        self.feeds.lock().insert(S::NAME, Arc::new(feed.clone()));
    }

    /// Waits until all feeds have seen what was committed when this was called; not longer than some seconds, and not if the
    /// database is away: what needs it fails then by itself.
    pub async fn reach(&self) {
        let (told, telling) = oneshot::channel();
        if self.waiting.try_send(told).is_ok() {
            let _ = telling.await;
        }
    }

    /// How many requests wait for the next question to the database.
    pub fn waiting(&self) -> usize {
        self.waiting.max_capacity() - self.waiting.capacity()
    }

    /// How far each feed is behind.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn lags(&self, database: &Database) -> Result<Vec<Lag>> {
        let feeds = self.feeds.lock().clone();
        let committed = streams::list_all_positions(&database.get().await?).await?;
        let mut lags: Vec<Lag> = feeds
            .into_iter()
            .map(|(stream, feed)| {
                let position = feed.position();
                let behind = |(_, writer, id): &(String, WriterId, StreamId)| id.0 - position.of(*writer).0;
                let ids = committed.iter().filter(|(name, ..)| name == stream).map(behind).max();
                Lag { stream, ids: ids.unwrap_or_default().max(0), position }
            })
            .collect();
        lags.sort_unstable_by_key(|lag| lag.stream);
        Ok(lags)
    }
}

async fn look(
    database: Database,
    feeds: Weak<Mutex<HashMap<&'static str, Arc<dyn Reaching>>>>,
    mut queue: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, QUEUE).await > 0 {
        let Some(feeds) = feeds.upgrade().map(|feeds| feeds.lock().clone()) else { return };
        let read = async { streams::list_all_positions(&database.get().await?).await };
        let committed = match read.await {
            Ok(committed) => committed,
            Err(error) => {
                debug!(%error, "asking what is committed");
                tell(&mut waiting);
                continue;
            }
        };
        let mut targets: HashMap<&'static str, Vec<(WriterId, StreamId)>> = HashMap::new();
        for (stream, writer, id) in committed {
            let Some((name, feed)) = feeds.get_key_value(stream.as_str()) else { continue };
            if !feed.covers(writer, id) {
                targets.entry(name).or_default().push((writer, id));
            }
        }
        let mut told = std::mem::take(&mut waiting);
        if targets.is_empty() {
            tell(&mut told);
            continue;
        }
        // Others need not wait for a feed to come along.
        tokio::spawn(async move {
            for (stream, writers) in targets {
                let Some(feed) = feeds.get(stream) else { continue };
                let mut target = (*feed.position()).clone();
                writers.iter().for_each(|(writer, id)| target.advance(*writer, *id));
                if !feed.wait_for(&target).await {
                    debug!(stream, "the feed did not come to what is committed");
                }
            }
            tell(&mut told);
        });
    }
}

fn tell(waiting: &mut Vec<oneshot::Sender<()>>) {
    for told in waiting.drain(..) {
        // Whoever has given up waiting needs no answer.
        let _ = told.send(());
    }
}
