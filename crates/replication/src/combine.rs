//! Requests that are served together.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use myelin_storage::{StorageError, Transaction};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::{Stream, StreamWriter, WriteError, rhythm::Rhythm, writer::is_about_the_rows};

/// Requests that wait for the next transaction at most; more are refused.
const MAX_WAITING: usize = 4096;

/// What serves several requests in one transaction: gives an answer for each, in their order, and the rows that tell of what it
/// wrote.
type Work<Q, A, R> = Box<
    dyn for<'a> Fn(&'a Transaction<'a>, Vec<Q>) -> BoxFuture<'a, Result<(Vec<A>, Vec<R>), StorageError>>
        + Send
        + Sync,
>;

/// Requests of one kind, each of which has to read before it writes: those that come while a transaction is under way share the
/// next one, and its statements. Clones feed the same queue.
pub struct Combined<Q, A> {
    requests: mpsc::Sender<(Q, oneshot::Sender<Result<A, WriteError>>)>,
}

impl<Q, A> Clone for Combined<Q, A> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone() }
    }
}

impl<Q, A> std::fmt::Debug for Combined<Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.requests.max_capacity() - self.requests.capacity();
        f.debug_struct("Combined").field("waiting", &waiting).finish_non_exhaustive()
    }
}

impl<Q, A> Combined<Q, A>
where
    Q: Clone + Send + Sync + 'static,
    A: Send + 'static,
{
    /// Serves requests by `work`, at most so many in one transaction of `writer`. If one of several makes the transaction fail,
    /// each is tried alone.
    pub fn new<S, W>(writer: StreamWriter<S>, at_most: usize, work: W) -> Self
    where
        S: Stream,
        W: for<'a> Fn(
                &'a Transaction<'a>,
                Vec<Q>,
            ) -> BoxFuture<'a, Result<(Vec<A>, Vec<S::Row>), StorageError>>
            + Send
            + Sync
            + 'static,
    {
        let (requests, queue) = mpsc::channel(MAX_WAITING);
        let server = Server { writer, at_most, work: Arc::new(Box::new(work) as Work<Q, A, S::Row>) };
        tokio::spawn(server.run(queue));
        Self { requests }
    }

    /// Has a request served, together with whichever others there are.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing was written for this request then.
    pub async fn serve(&self, request: Q) -> Result<A, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send((request, reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => WriteError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => WriteError::Stopped,
        })?;
        answer.await.unwrap_or(Err(WriteError::Stopped))
    }
}

struct Server<S: Stream, Q, A> {
    writer: StreamWriter<S>,
    at_most: usize,
    work: Arc<Work<Q, A, S::Row>>,
}

impl<S, Q, A> Server<S, Q, A>
where
    S: Stream,
    Q: Clone + Send + Sync + 'static,
    A: Send + 'static,
{
    async fn run(self, mut queue: mpsc::Receiver<(Q, oneshot::Sender<Result<A, WriteError>>)>) {
        let (mut batch, mut rhythm) = (Vec::new(), Rhythm::default());
        while queue.recv_many(&mut batch, self.at_most).await > 0 {
            while batch.len() < self.at_most
                && let Some(request) = rhythm.next(&mut queue, batch.len()).await
            {
                batch.push(request);
            }
            let (requests, replies): (Vec<Q>, Vec<_>) = batch.drain(..).unzip();
            let served = requests.len();
            rhythm.begin(served);
            let outcome = self.transact(requests.clone()).await;
            rhythm.end(served, queue.len());
            match outcome {
                Ok(answers) => {
                    for (reply, answer) in replies.into_iter().zip(answers) {
                        let _ = reply.send(Ok(answer));
                    }
                }
                Err(error) if requests.len() > 1 && is_of_one_request(&error) => {
                    warn!(stream = S::NAME, %error, "a shared transaction failed; trying each request alone");
                    for (request, reply) in requests.into_iter().zip(replies) {
                        let answer = self.transact(vec![request]).await;
                        let _ = reply.send(answer.and_then(|mut one| one.pop().ok_or(WriteError::Stopped)));
                    }
                }
                Err(error) => replies.into_iter().for_each(|reply| _ = reply.send(Err(error.clone()))),
            }
        }
    }

    async fn transact(&self, requests: Vec<Q>) -> Result<Vec<A>, WriteError> {
        let work = self.work.clone();
        self.writer
            .transact(move |transaction| Box::pin(async move { work(transaction, requests).await }))
            .await
    }
}

fn is_of_one_request(error: &WriteError) -> bool {
    matches!(error, WriteError::Storage(error) if is_about_the_rows(error))
}
