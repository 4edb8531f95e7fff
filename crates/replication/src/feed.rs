//! The reading side of a stream.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use myelin_storage::{Database, Result, streams};
use myelin_types::{Position, StreamId, WriterId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::debug;

use crate::{
    Batch, Cursor, Heading, Notice, Stamped, Step, Stream, Topic, cursor::reached_by_page, pages::is_full,
    wire::Incoming,
};

/// How many rows one catch-up query reads.
const CATCH_UP_ROWS: i64 = 1000;

/// Where the notices of a process's own commits go.
type Outlet<R> = Box<dyn Fn(&Notice<R>) + Send + Sync>;

type Subscriber<R> = Box<dyn Fn(&Batch<'_, R>) + Send + Sync>;

/// A stream as this process has seen it. Clones are the same feed.
pub struct Feed<S: Stream>(Arc<Inner<S>>);

impl<S: Stream> Clone for Feed<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Stream> std::fmt::Debug for Feed<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed")
            .field("stream", &S::NAME)
            .field("position", &self.position().to_string())
            .finish()
    }
}

struct Inner<S: Stream> {
    database: Database,
    position: watch::Sender<Arc<Position>>,
    /// Held while a batch is applied, so that subscribers see batches one at a time and in order.
    state: Mutex<State<S>>,
    /// Tells other processes.
    outlet: OnceLock<Outlet<S::Row>>,
    /// Held by the one task that reads the database; the others wait for what it finds.
    catching_up: tokio::sync::Mutex<()>,
}

struct State<S: Stream> {
    cursor: Cursor,
    subscribers: Vec<Subscriber<S::Row>>,
    selector: Option<Box<dyn Selector>>,
}

/// Tells which rows of other processes' notices are wanted in this one; the others are passed over without being read.
///
/// Rows that are read back from the database, and those of this process, are not asked about.
pub trait Selector: Send + Sync {
    /// Calls `take_in` once, with whether each row of a notice is wanted, by what the rows are about. Rows that are for all are
    /// wanted; for the others, who begins to follow what they are about waits until `take_in` has returned.
    fn select(&self, topics: &[Option<Topic>], take_in: &mut dyn FnMut(&[bool]));
}

impl<S: Stream> Feed<S> {
    /// A feed that stands at what is committed now.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn open(database: Database) -> Result<Self> {
        let client = database.get().await?;
        let cursor = Cursor::new(streams::list_positions(&client, S::NAME).await?);
        drop(client);
        Ok(Self(Arc::new(Inner {
            database,
            position: watch::Sender::new(Arc::new(cursor.position())),
            state: Mutex::new(State { cursor, subscribers: Vec::new(), selector: None }),
            outlet: OnceLock::new(),
            catching_up: tokio::sync::Mutex::new(()),
        })))
    }

    /// Has `subscriber` called with every batch from now on, before the position moves past it. It is called on the
    /// path of every write: it must be quick and must not block.
    pub fn subscribe(&self, subscriber: impl Fn(&Batch<'_, S::Row>) + Send + Sync + 'static) {
        self.0.state.lock().subscribers.push(Box::new(subscriber));
    }

    /// Has `selector` asked which rows of other processes' notices are wanted: all subscribers do without the others. There is
    /// one; the last counts.
    pub fn select_by(&self, selector: impl Selector + 'static) {
        self.0.state.lock().selector = Some(Box::new(selector));
    }

    /// Up to where all subscribers of this process have seen the stream.
    pub fn position(&self) -> Arc<Position> {
        self.0.position.borrow().clone()
    }

    /// Has `outlet` called with the notice of every commit of this process, after its subscribers. It is called on the path
    /// of every write: it must not block. Only the first counts.
    pub(crate) fn publish_to(&self, outlet: impl Fn(&Notice<S::Row>) + Send + Sync + 'static) {
        let _ = self.0.outlet.set(Box::new(outlet));
    }

    /// Tells other processes of a commit of this one, if there are any.
    pub(crate) fn publish(&self, notice: &Notice<S::Row>) {
        if let Some(outlet) = self.0.outlet.get() {
            outlet(notice);
        }
    }

    /// Hands a notice to the subscribers. Gives `false` if rows before it are missing here: the caller then has the
    /// feed [catch up](Feed::catch_up). A notice that is known already changes nothing.
    pub fn deliver(&self, notice: &Notice<S::Row>) -> bool {
        let mut state = self.0.state.lock();
        match judge::<S>(&state.cursor, &notice.heading) {
            Step::Known => true,
            Step::Gap => false,
            Step::Next => {
                self.apply(&mut state, &notice.rows, [(notice.heading.writer, notice.heading.position)]);
                true
            }
        }
    }

    /// As [`Feed::deliver`], for a notice of another process: only what is wanted here is read.
    pub(crate) fn take_in(&self, notice: &Incoming<'_>) -> serde_json::Result<bool> {
        let mut state = self.0.state.lock();
        match judge::<S>(&state.cursor, &notice.heading) {
            Step::Known => return Ok(true),
            Step::Gap => return Ok(false),
            Step::Next => {}
        }
        let Heading { writer, position, .. } = notice.heading;
        // Taken out while it is asked, since what it calls needs the rest of the state.
        let selector = state.selector.take();
        let mut taken = Ok(true);
        let mut take_in = |wanted: Option<&[bool]>| {
            let is_wanted = |index: usize| wanted.is_none_or(|wanted| wanted.get(index) != Some(&false));
            let rows = notice.rows.iter().enumerate().filter(|(index, _)| is_wanted(*index));
            match rows.map(|(_, row)| row.read(writer)).collect::<serde_json::Result<Vec<_>>>() {
                Ok(rows) => self.apply(&mut state, &rows, [(writer, position)]),
                Err(error) => taken = Err(error),
            }
        };
        match &selector {
            Some(selector) => {
                let topics: Vec<Option<Topic>> = notice.rows.iter().map(|row| row.about).collect();
                selector.select(&topics, &mut |wanted| take_in(Some(wanted)));
            }
            None => take_in(None),
        }
        state.selector = selector;
        taken
    }

    /// Sees to it that this process has seen all that is committed by now, in whichever process: for answers that
    /// must not be older than what the asker was told elsewhere. One small query if nothing was missed.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn see_committed(&self) -> Result<()> {
        let client = self.0.database.get().await?;
        let committed = streams::list_positions(&client, S::NAME).await?;
        drop(client);
        let position = self.position();
        match committed.iter().all(|(writer, id)| position.covers(*writer, *id)) {
            true => Ok(()),
            false => self.catch_up().await,
        }
    }

    /// Reads from the database what is committed and was not seen here.
    ///
    /// # Errors
    /// If the database fails; what was applied until then stays applied.
    pub async fn catch_up(&self) -> Result<()> {
        let _turn = self.0.catching_up.lock().await;
        let client = self.0.database.get().await?;
        let committed = streams::list_positions(&client, S::NAME).await?;
        let target = Position::from_writers(committed.iter().copied());
        let mut from = (*self.position()).clone();
        while !from.covers_all(&target) {
            let rows = S::since(&client, &from, &target, CATCH_UP_ROWS).await?;
            let mut state = self.0.state.lock();
            // Notices may have arrived while we read; what they brought is not new any more.
            let fresh: Vec<Stamped<S::Row>> =
                rows.iter().filter(|row| state.cursor.is_new(row.writer, row.id)).cloned().collect();
            let page_end = rows.last().map(|last| last.id).filter(|_| is_full(rows.len(), CATCH_UP_ROWS));
            self.apply(&mut state, &fresh, reached_by_page(&committed, page_end));
            match page_end {
                Some(page_end) => from.advance_all(page_end),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Waits until the feed covers `position`, at most `patience`. A feed that is behind asks the database itself, so
    /// this fails only if the position is from the future or the database is away.
    pub async fn wait_for(&self, position: &Position, patience: Duration) -> bool {
        if self.position().covers_all(position) {
            return true;
        }
        let mut positions = self.0.position.subscribe();
        // Usually the notice is on its way; asking the database at once would only add load.
        let notice = Duration::from_millis(50).min(patience);
        let arrived = |seen: &Arc<Position>| seen.covers_all(position);
        if let Ok(Ok(_)) = tokio::time::timeout(notice, positions.wait_for(arrived)).await {
            return true;
        }
        if self.catch_up().await.is_ok() && self.position().covers_all(position) {
            return true;
        }
        let rest = patience.saturating_sub(notice);
        matches!(tokio::time::timeout(rest, positions.wait_for(arrived)).await, Ok(Ok(_)))
    }

    /// Wakes at every move of the position.
    pub fn changes(&self) -> watch::Receiver<Arc<Position>> {
        self.0.position.subscribe()
    }

    fn apply(
        &self,
        state: &mut State<S>,
        rows: &[Stamped<S::Row>],
        reached: impl IntoIterator<Item = (WriterId, StreamId)>,
    ) {
        state.cursor.reach(reached);
        let position = state.cursor.position();
        if !rows.is_empty() {
            let batch = Batch { rows, position: &position };
            state.subscribers.iter().for_each(|subscriber| subscriber(&batch));
        }
        self.0.position.send_replace(Arc::new(position));
    }
}

fn judge<S: Stream>(cursor: &Cursor, heading: &Heading) -> Step {
    let step = cursor.judge(heading);
    if step == Step::Gap {
        let previous = heading.previous;
        debug!(stream = S::NAME, writer = heading.writer.0, %previous, "a notice left a gap, or is of a new writer");
    }
    step
}
