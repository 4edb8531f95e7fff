//! The writing side of a stream: group commit under a fence.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use myelin_leases::Session;
use myelin_storage::{Database, StorageError, Transaction};
use myelin_types::StreamId;
use tokio::sync::{mpsc, oneshot};

use self::committer::Committer;
pub(crate) use self::committer::is_about_the_rows;
use crate::{Feed, Lane, Stream, lane::Ticket};

mod committer;

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
    /// The connection failed during an earlier write, and nobody knows yet what became of it. Nothing was written.
    #[error("it is not known yet whether an earlier write was committed")]
    Unsettled,
    /// The database refused, or it is not known whether it did. Written, it comes to light by and by.
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
    settled: Arc<AtomicBool>,
}

impl<S: Stream> Clone for StreamWriter<S> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), feed: self.feed.clone(), settled: self.settled.clone() }
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
        let settled = Arc::new(AtomicBool::new(true));
        tokio::spawn(Committer::new(database, session, feed.clone(), settled.clone()).run(queue));
        Self { jobs, feed, settled }
    }

    /// The feed that is told of what is written.
    pub fn feed(&self) -> &Feed<S> {
        &self.feed
    }

    /// Whether it is known what became of all transactions. While it is not, the database may come to have what failed here: who
    /// would begin anew with what it says has to wait.
    ///
    /// # Errors
    /// [`WriteError::Unsettled`] if it is not.
    pub fn check_settled(&self) -> Result<(), WriteError> {
        match self.settled.load(Ordering::Acquire) {
            true => Ok(()),
            false => Err(WriteError::Unsettled),
        }
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
