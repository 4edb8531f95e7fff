//! The writing side of a stream: group commit under a fence.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use myelin_leases::Session;
use myelin_storage::{Database, StorageError, Transaction, streams};
use myelin_types::StreamId;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use crate::{Feed, Heading, Lane, Notice, Stamped, Stream, lane::Ticket};

/// Rows in one transaction at most.
const MAX_BATCH_ROWS: usize = 512;
/// How often a writer that has nothing to write looks whether the others have gone ahead.
const KEEP_UP_EVERY: std::time::Duration = std::time::Duration::from_secs(5);
/// Requests that wait for the next transaction at most; more are refused.
const MAX_WAITING: usize = 4096;

/// Why rows were not written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// Too many writes are waiting: try again later.
    #[error("too many writes are waiting")]
    Overloaded,
    /// The process ends, or was replaced by another.
    #[error("this process does not write any more")]
    Stopped,
    /// It was built on an earlier write of its [`Lane`] that failed. Nothing was written.
    #[error("an earlier write that this one builds on failed")]
    Superseded,
    /// The database refused. Nothing was written.
    #[error(transparent)]
    Storage(#[from] Arc<StorageError>),
}

impl From<StorageError> for WriteError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

type Work<R> = Box<
    dyn for<'a> FnOnce(
            &'a Transaction<'a>,
        ) -> Pin<Box<dyn Future<Output = Result<Vec<R>, StorageError>> + Send + 'a>>
        + Send,
>;

type Reply = oneshot::Sender<Result<Vec<StreamId>, WriteError>>;

enum Job<R> {
    Append { rows: Vec<R>, ticket: Option<Ticket>, reply: Reply },
    Transact { work: Work<R>, reply: Reply },
}

/// Rows that were handed over and are not committed yet: ends as [`StreamWriter::append`] does. They are committed
/// even if this is dropped.
#[derive(Debug)]
#[must_use = "only its end tells whether the rows were written"]
pub struct Appending(oneshot::Receiver<Result<Vec<StreamId>, WriteError>>);

impl Future for Appending {
    type Output = Result<Vec<StreamId>, WriteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(WriteError::Stopped)))
    }
}

/// Writes a stream. Clones feed the same queue, and a process has one queue for each stream that it writes.
pub struct StreamWriter<S: Stream> {
    jobs: mpsc::Sender<Job<S::Row>>,
    feed: Feed<S>,
}

impl<S: Stream> Clone for StreamWriter<S> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), feed: self.feed.clone() }
    }
}

impl<S: Stream> std::fmt::Debug for StreamWriter<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamWriter").field("stream", &S::NAME).finish_non_exhaustive()
    }
}

impl<S: Stream> StreamWriter<S> {
    /// Starts writing the stream under `session`, which registered for it; committed rows are delivered to `feed`,
    /// which was opened after that.
    pub fn start(database: Database, session: Session, feed: Feed<S>) -> Self {
        let (jobs, queue) = mpsc::channel(MAX_WAITING);
        let position = feed.position().of(session.writer());
        let committer = Committer { database, session, feed: feed.clone(), position };
        tokio::spawn(committer.run(queue));
        Self { jobs, feed }
    }

    /// The feed that is told of what is written.
    pub fn feed(&self) -> &Feed<S> {
        &self.feed
    }

    /// How many requests wait for the next transaction.
    pub fn waiting(&self) -> usize {
        self.jobs.max_capacity() - self.jobs.capacity()
    }

    /// Writes rows, together and in order, and gives their ids once they are committed and every subscriber of this
    /// process has seen them.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing was written then.
    pub async fn append(&self, rows: Vec<S::Row>) -> Result<Vec<StreamId>, WriteError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job::Append { rows, ticket: None, reply })?;
        Appending(answer).await
    }

    /// Hands rows over without waiting for their commit: for a caller that goes on building on them meanwhile. The
    /// rows of one lane are written in the order of these calls; once some were not, no later ones are.
    ///
    /// # Errors
    /// If they were not even taken. That alone does not break the lane.
    pub fn append_in(&self, lane: &Lane, rows: Vec<S::Row>) -> Result<Appending, WriteError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Append { rows, ticket: Some(lane.ticket()), reply };
        match self.jobs.try_send(job) {
            Ok(()) => Ok(Appending(answer)),
            Err(error) => {
                let (error, job) = match error {
                    mpsc::error::TrySendError::Full(job) => (WriteError::Overloaded, job),
                    mpsc::error::TrySendError::Closed(job) => (WriteError::Stopped, job),
                };
                if let Job::Append { ticket: Some(ticket), .. } = job {
                    ticket.done();
                }
                Err(error)
            }
        }
    }

    /// Runs `work` in a transaction of its own, then appends the rows that it gives in the same transaction. For
    /// writes that must stand or fall with their rows; slower than [`StreamWriter::append`], which shares commits.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing was written then.
    pub async fn transact<T, F>(&self, work: F) -> Result<T, WriteError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(
                &'a Transaction<'a>,
            ) -> Pin<
                Box<dyn Future<Output = Result<(T, Vec<S::Row>), StorageError>> + Send + 'a>,
            > + Send
            + 'static,
    {
        let (give, result) = oneshot::channel();
        let work: Work<S::Row> = Box::new(move |transaction| {
            Box::pin(async move {
                let (value, rows) = work(transaction).await?;
                // The caller may be gone; the rows count all the same.
                let _ = give.send(value);
                Ok(rows)
            })
        });
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job::Transact { work, reply })?;
        answer.await.unwrap_or(Err(WriteError::Stopped))?;
        result.await.map_err(|_| WriteError::Stopped)
    }

    fn enqueue(&self, job: Job<S::Row>) -> Result<(), WriteError> {
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => WriteError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => WriteError::Stopped,
        })
    }
}

struct Committer<S: Stream> {
    database: Database,
    session: Session,
    feed: Feed<S>,
    /// The position after our last commit.
    position: StreamId,
}

/// Requests that share a transaction, and their rows.
struct Group<R> {
    rows: Vec<R>,
    members: Vec<Member>,
}

/// A request of a group.
struct Member {
    /// How many of the group's rows are its own.
    rows: usize,
    ticket: Option<Ticket>,
    reply: Reply,
}

impl Member {
    fn answer(self, outcome: Result<Vec<StreamId>, WriteError>) {
        // The lane first: whoever hears of the failure must find it broken.
        match self.ticket {
            Some(ticket) if outcome.is_ok() => ticket.done(),
            ticket => drop(ticket),
        }
        let _ = self.reply.send(outcome);
    }

    fn is_superseded(&self) -> bool {
        self.ticket.as_ref().is_some_and(Ticket::is_broken)
    }
}

impl<R> Group<R> {
    fn add(&mut self, rows: Vec<R>, ticket: Option<Ticket>, reply: Reply) {
        let member = Member { rows: rows.len(), ticket, reply };
        if member.is_superseded() {
            return member.answer(Err(WriteError::Superseded));
        }
        self.members.push(member);
        self.rows.extend(rows);
    }
}

/// A transaction that did not happen, with its rows handed back.
struct Failed<R> {
    error: StorageError,
    rows: Vec<R>,
}

impl<S: Stream> Committer<S> {
    async fn run(mut self, mut queue: mpsc::Receiver<Job<S::Row>>) {
        let mut next = self.next_job(&mut queue).await;
        while let Some(job) = next.take() {
            match job {
                Job::Transact { work, reply } => {
                    let outcome = self.commit(Some(work), Vec::new()).await;
                    let _ = reply.send(outcome.map_err(|failed| failed.error.into()));
                }
                Job::Append { rows, ticket, reply } => {
                    let mut group = Group { rows: Vec::new(), members: Vec::new() };
                    group.add(rows, ticket, reply);
                    // Whatever came while the last transaction was under way shares this one.
                    while group.rows.len() < MAX_BATCH_ROWS {
                        match queue.try_recv() {
                            Ok(Job::Append { rows, ticket, reply }) => group.add(rows, ticket, reply),
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.commit_group(group).await;
                }
            }
            if next.is_none() {
                next = self.next_job(&mut queue).await;
            }
        }
    }

    /// Waits for work; without any, keeps up with the other writers now and then.
    async fn next_job(&mut self, queue: &mut mpsc::Receiver<Job<S::Row>>) -> Option<Job<S::Row>> {
        loop {
            match tokio::time::timeout(KEEP_UP_EVERY, queue.recv()).await {
                Ok(job) => return job,
                Err(_) => self.keep_up().await,
            }
        }
    }

    /// Moves our position to where the others are: the more alike positions are, the shorter are tokens, and the less is read
    /// in vain by those who catch up.
    async fn keep_up(&mut self) {
        if self.feed.position().maximum() <= self.position || !self.session.has_claimed(S::NAME) {
            return;
        }
        let (writer, epoch) = (self.session.writer(), self.session.epoch());
        let moved = async {
            let client = self.database.get().await?;
            streams::move_up(&client, S::NAME, writer, epoch).await
        };
        match moved.await {
            Ok(Some((position, writers))) => self.tell(position, writers, Vec::new()).await,
            Ok(None) => self.session.mark_lost(),
            Err(error) => warn!(stream = S::NAME, %error, "keeping up with the other writers"),
        }
    }

    /// Gets a position in the stream before the first write.
    async fn join(&mut self) -> Result<(), StorageError> {
        if !self.session.has_claimed(S::NAME) {
            self.session.claim(S::NAME).await?;
            self.feed.catch_up().await?;
            self.position = self.feed.position().of(self.session.writer());
        }
        Ok(())
    }

    async fn commit_group(&mut self, group: Group<S::Row>) {
        let Group { rows, members } = group;
        if rows.is_empty() {
            return members.into_iter().for_each(|member| member.answer(Ok(Vec::new())));
        }
        let failed = match self.commit(None, rows).await {
            Ok(ids) => {
                let mut ids = ids.into_iter();
                for member in members {
                    let own = ids.by_ref().take(member.rows).collect();
                    member.answer(Ok(own));
                }
                return;
            }
            Err(failed) => failed,
        };
        // One bad request must not take those down that happened to share its transaction.
        if members.len() > 1 && is_about_the_rows(&failed.error) {
            warn!(stream = S::NAME, error = %failed.error, "a shared transaction failed; trying each request alone");
            let mut rows = failed.rows.into_iter();
            for member in members {
                let own: Vec<_> = rows.by_ref().take(member.rows).collect();
                if member.is_superseded() {
                    member.answer(Err(WriteError::Superseded));
                    continue;
                }
                let outcome = self.commit(None, own).await;
                member.answer(outcome.map_err(|failed| failed.error.into()));
            }
            return;
        }
        let error = Arc::new(failed.error);
        for member in members {
            member.answer(Err(WriteError::Storage(error.clone())));
        }
    }

    /// Writes `rows`, and those that `work` adds, in one transaction, and tells the feed.
    async fn commit(
        &mut self,
        work: Option<Work<S::Row>>,
        rows: Vec<S::Row>,
    ) -> Result<Vec<StreamId>, Failed<S::Row>> {
        let mut stamped = Vec::new();
        let writers = match self.write(work, rows, &mut stamped).await {
            Ok(writers) => writers,
            Err(error) => {
                if matches!(error, StorageError::Fenced) {
                    self.session.mark_lost();
                }
                return Err(Failed { error, rows: stamped.into_iter().map(|stamped| stamped.row).collect() });
            }
        };
        let ids: Vec<StreamId> = stamped.iter().map(|row| row.id).collect();
        if let Some(position) = ids.last().copied() {
            self.tell(position, writers, stamped).await;
        }
        Ok(ids)
    }

    /// Tells the feed, and the other processes, what was committed.
    async fn tell(&mut self, position: StreamId, writers: usize, stamped: Vec<Stamped<S::Row>>) {
        let (writer, previous) = (self.session.writer(), self.position);
        let after = (*self.feed.position()).clone();
        let heading = Heading { writer, previous, position, writers, after };
        let notice = Notice { heading, rows: stamped.into() };
        self.position = position;
        // A gap in our own feed: another writer has joined the stream, or a commit of ours was never told.
        if !self.feed.deliver(&notice)
            && let Err(error) = self.feed.catch_up().await
        {
            error!(stream = S::NAME, %error, "the feed could not catch up with its own writer");
        }
        self.feed.publish(&notice);
    }

    /// The transaction itself; gives how many writers the stream has. The rows are in `stamped` afterwards, whatever
    /// the outcome.
    async fn write(
        &mut self,
        work: Option<Work<S::Row>>,
        mut rows: Vec<S::Row>,
        stamped: &mut Vec<Stamped<S::Row>>,
    ) -> Result<usize, StorageError> {
        let writer = self.session.writer();
        let unstamped = |rows: Vec<S::Row>| -> Vec<Stamped<S::Row>> {
            rows.into_iter().map(|row| Stamped { id: StreamId::ZERO, writer, row }).collect()
        };
        if let Err(error) = self.join().await {
            *stamped = unstamped(rows);
            return Err(error);
        }
        let mut client = match self.database.get().await {
            Ok(client) => client,
            Err(error) => {
                *stamped = unstamped(rows);
                return Err(error);
            }
        };
        let transaction = Transaction::begin(&mut client);
        if let Some(work) = work {
            rows.extend(work(&transaction).await?);
        }
        *stamped = unstamped(rows);
        let Some(last) = stamped.len().checked_sub(1) else {
            self.session.check_fence(&transaction).await?;
            transaction.commit().await?;
            return Ok(0);
        };
        let ids = streams::allocate(&transaction, S::NAME, stamped.len()).await?;
        for (row, id) in stamped.iter_mut().zip(ids) {
            row.id = id;
        }
        let last = stamped[last].id;
        let error = match self.commit_rows(transaction, stamped, last).await {
            Ok(writers) => return Ok(writers),
            Err(error) => error,
        };
        drop(client);
        self.was_committed(last, &error).await.ok_or(error)
    }

    /// The rows, the position and the commit, without waiting in between; gives how many writers the stream has.
    async fn commit_rows(
        &self,
        transaction: Transaction<'_>,
        rows: &[Stamped<S::Row>],
        last: StreamId,
    ) -> Result<usize, StorageError> {
        let (writer, epoch) = (self.session.writer(), self.session.epoch());
        let flight = transaction.take_off();
        // The position first: a writer that was replaced hears of that, not of rows that collide with its successor's.
        let advanced = streams::advance(&flight, S::NAME, writer, epoch, last).await?;
        let written = S::persist(&flight, rows).await;
        flight.land(written).await?;
        Ok(advanced.writers())
    }

    /// A connection that broke while the server was committing leaves it open what happened; the position tells. Gives how many
    /// writers the stream has if it was committed.
    async fn was_committed(&self, last: StreamId, error: &StorageError) -> Option<usize> {
        if !error.is_outage() {
            return None;
        }
        for _ in 0..20 {
            let read = async {
                let client = self.database.get().await?;
                streams::list_positions(&client, S::NAME).await
            };
            match read.await {
                Ok(positions) => {
                    let is_there = positions.contains(&(self.session.writer(), last));
                    return is_there.then_some(positions.len());
                }
                Err(error) => warn!(stream = S::NAME, %error, "asking whether a commit succeeded"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        }
        None
    }
}

/// The server refused a statement, rather than the connection having failed.
pub(crate) fn is_about_the_rows(error: &StorageError) -> bool {
    match error {
        StorageError::Postgres(error) => error.as_db_error().is_some(),
        StorageError::Inconsistent(_) => true,
        StorageError::Unavailable(_) | StorageError::Migration(_) | StorageError::Fenced => false,
    }
}
