//! What a stream is, and what travels between its writers and readers.

use std::{fmt::Debug, future::Future, sync::Arc};

use myelin_storage::{Client, Result, Write};
use myelin_types::{Position, StreamId, WriterId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Heading;

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

    /// What a row is about, if that lets some processes do without reading it; see [`Selector`](crate::Selector).
    fn about(_row: &Self::Row) -> Option<Topic> {
        None
    }

    /// Stores rows that have just got their ids, in the writer's transaction.
    fn persist(db: &impl Write, rows: &[Stamped<Self::Row>]) -> impl Future<Output = Result<()>> + Send;

    /// At most `limit` rows that `after` does not cover and `upto` does, by ascending id. Rows that were replaced by
    /// newer ones of the same key may be left out.
    fn since(
        client: &Client,
        after: &Position,
        upto: &Position,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Stamped<Self::Row>>>> + Send;
}

/// What a row is about, told beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// What it is about, such as the number of a room.
    pub of: i64,
    /// It may concern also who does not follow that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_all: bool,
}

/// What a writer tells the readers after a commit.
#[derive(Clone, Debug)]
pub struct Notice<R> {
    /// Whose commit it was, and where that leaves them.
    pub heading: Heading,
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
