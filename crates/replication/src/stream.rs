//! What a stream is, and what travels between its writers and readers.

use std::{fmt::Debug, future::Future, sync::Arc};

use myelin_storage::{Client, Result, Transaction};
use myelin_types::{Position, StreamId, WriterId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A row with its place in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped<R> {
    /// The row's id; ids of one writer are committed in their order.
    pub id: StreamId,
    /// Who wrote it.
    pub writer: WriterId,
    /// What it says.
    pub row: R,
}

/// A kind of stream: its name, its rows, and how they are stored and read back.
pub trait Stream: Send + Sync + 'static {
    /// The name in `stream_positions`; the sequence of its ids is `stream_<NAME>`.
    const NAME: &'static str;

    /// What one row says, complete enough that a reader in step needs no query.
    type Row: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Stores rows that have just got their ids, in the writer's transaction.
    fn persist(
        transaction: &Transaction<'_>,
        rows: &[Stamped<Self::Row>],
    ) -> impl Future<Output = Result<()>> + Send;

    /// At most `limit` rows that `after` does not cover and `upto` does, by ascending id. Rows that were replaced by
    /// newer ones of the same key may be left out.
    fn since(
        client: &Client,
        after: &Position,
        upto: &Position,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Stamped<Self::Row>>>> + Send;
}

/// What a writer tells the readers after a commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Notice<R> {
    /// Who committed.
    pub writer: WriterId,
    /// The writer's position before this commit: a reader that does not stand there has missed something.
    pub previous: StreamId,
    /// The writer's position now.
    pub position: StreamId,
    /// How many writers the stream had at this commit: a reader that knows fewer can't tell what it has seen.
    pub writers: usize,
    /// What the writer had seen of the stream when it committed. What these rows build on may be another writer's, whose
    /// shard this one took over: readers take that in first.
    #[serde(default)]
    pub after: Position,
    /// The rows in between, all of them.
    pub rows: Arc<[Stamped<R>]>,
}

/// Committed rows as subscribers get them: each row once, each writer's rows in order.
#[derive(Debug)]
pub struct Batch<'a, R> {
    /// The rows, by ascending id.
    pub rows: &'a [Stamped<R>],
    /// Where the feed will stand once all subscribers have seen them.
    pub position: &'a Position,
}
