//! Receipts ([spec](https://spec.matrix.org/v1.19/client-server-api/#receipts)): up to where a user has read a room, or a
//! thread of it.

use std::{collections::HashMap, sync::Arc};

use myelin_replication::{Feed, Stamped, Stream, StreamWriter, WriteError, is_full, read_pages};
use myelin_storage::{Client, Database, Result, StorageError, Write, receipts as table};
use myelin_types::{MillisSinceEpoch, Position};
use quick_cache::sync::Cache;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

/// Users and rooms whose receipts are remembered, so that one that goes back is recognized without a query.
const REMEMBERED: usize = 20_000;

/// Who sees a receipt ([spec](https://spec.matrix.org/v1.19/client-server-api/#private-read-receipts)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReceiptKind {
    /// `m.read`: everybody in the room.
    #[serde(rename = "m.read")]
    Read,
    /// `m.read.private`: nobody but the user.
    #[serde(rename = "m.read.private")]
    ReadPrivate,
}

impl ReceiptKind {
    /// The receipt type of the specification.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "m.read",
            Self::ReadPrivate => "m.read.private",
        }
    }

    fn to_column(self) -> i16 {
        match self {
            Self::Read => 0,
            Self::ReadPrivate => 1,
        }
    }

    /// The kind that the column `receipts.receipt_type` stands for.
    ///
    /// # Errors
    /// [`StorageError::Inconsistent`] if it stands for none.
    pub fn from_column(column: i16) -> Result<Self> {
        match column {
            0 => Ok(Self::Read),
            1 => Ok(Self::ReadPrivate),
            other => Err(StorageError::Inconsistent(format!("receipt type {other}"))),
        }
    }
}

/// What a receipt is about ([spec](https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts)).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReceiptThread {
    /// The whole room, threads and all.
    Unthreaded,
    /// What is in no thread.
    Main,
    /// The thread of this root.
    Thread(OwnedEventId),
}

impl ReceiptThread {
    /// The `thread_id` that clients see; unthreaded receipts have none.
    pub fn thread_id(&self) -> Option<&str> {
        match self {
            Self::Unthreaded => None,
            Self::Main => Some("main"),
            Self::Thread(root) => Some(root.as_str()),
        }
    }

    /// What a `thread_id` stands for; empty or absent: unthreaded.
    ///
    /// # Errors
    /// [`StorageError::Inconsistent`] if it is neither `main` nor an event id.
    pub fn from_thread_id(thread_id: Option<&str>) -> Result<Self> {
        match thread_id {
            None | Some("") => Ok(Self::Unthreaded),
            Some("main") => Ok(Self::Main),
            Some(root) => EventId::parse(root)
                .map(Self::Thread)
                .map_err(|_| StorageError::Inconsistent(format!("{root:?} is no thread"))),
        }
    }
}

/// A receipt as readers of the stream get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRow {
    /// The room's number.
    pub room_nid: i64,
    /// The room.
    pub room_id: OwnedRoomId,
    /// Who read.
    pub user_id: OwnedUserId,
    /// Who may know.
    pub kind: ReceiptKind,
    /// What part of the room it is about.
    pub thread: ReceiptThread,
    /// The last event that was read.
    pub event_id: OwnedEventId,
    /// Its place in the timeline, if it is known.
    pub event_pos: Option<i64>,
    /// When it was read.
    pub ts: MillisSinceEpoch,
}

/// The stream of receipts.
#[derive(Debug)]
pub struct ReceiptStream;

impl Stream for ReceiptStream {
    const NAME: &'static str = "receipts";
    type Row = ReceiptRow;

    async fn persist(db: &impl Write, rows: &[Stamped<ReceiptRow>]) -> Result<()> {
        // One statement can't write a key twice; the last one counts.
        let mut latest: HashMap<_, &Stamped<ReceiptRow>> = HashMap::with_capacity(rows.len());
        for stamped in rows {
            let row = &stamped.row;
            latest.insert((row.room_nid, &row.user_id, row.kind, &row.thread), stamped);
        }
        let mut receipts: Vec<table::Receipt> = latest.into_values().map(to_table).collect();
        // Two writers that touch the same rows must do so in the same order.
        receipts.sort_unstable_by(|a, b| (a.room_nid, &a.user_id).cmp(&(b.room_nid, &b.user_id)));
        table::upsert_receipts(db, &receipts).await
    }

    async fn since(
        client: &Client,
        after: &Position,
        upto: &Position,
        limit: i64,
    ) -> Result<Vec<Stamped<ReceiptRow>>> {
        read_pages(after, upto, limit, async |from, to| {
            let rows = table::receipts_since(client, from, to, limit).await?;
            let complete = rows.last().map(|(row, _)| row.stream_id).filter(|_| is_full(rows.len(), limit));
            let rows =
                rows.into_iter().map(|(row, room_id)| from_table(row, &room_id)).collect::<Result<_>>()?;
            Ok((rows, complete))
        })
        .await
    }
}

fn to_table(stamped: &Stamped<ReceiptRow>) -> table::Receipt {
    let row = &stamped.row;
    table::Receipt {
        room_nid: row.room_nid,
        user_id: row.user_id.to_string(),
        receipt_type: row.kind.to_column(),
        thread_id: row.thread.thread_id().unwrap_or_default().to_owned(),
        event_id: row.event_id.to_string(),
        event_pos: row.event_pos,
        ts: i64::try_from(row.ts).unwrap_or(i64::MAX),
        stream_id: stamped.id,
        writer: stamped.writer,
    }
}

fn from_table(row: table::Receipt, room_id: &str) -> Result<Stamped<ReceiptRow>> {
    let inconsistent = |_| StorageError::Inconsistent("a receipt has an invalid identifier".to_owned());
    Ok(Stamped {
        id: row.stream_id,
        writer: row.writer,
        row: ReceiptRow {
            room_nid: row.room_nid,
            room_id: OwnedRoomId::try_from(room_id).map_err(inconsistent)?,
            user_id: OwnedUserId::try_from(row.user_id).map_err(inconsistent)?,
            kind: ReceiptKind::from_column(row.receipt_type)?,
            thread: ReceiptThread::from_thread_id(Some(&row.thread_id))?,
            event_id: OwnedEventId::try_from(row.event_id).map_err(inconsistent)?,
            event_pos: row.event_pos,
            ts: u64::try_from(row.ts).unwrap_or_default(),
        },
    })
}

/// A receipt that a user sends. The caller has checked that the user is in the room and that the event is visible.
pub type NewReceipt = ReceiptRow;

/// Why a receipt was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What is known already could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

type Marks = Arc<[(ReceiptKind, ReceiptThread, Option<i64>)]>;

/// Records receipts. Clones are the same service.
#[derive(Clone)]
pub struct Receipts {
    database: Database,
    feed: Feed<ReceiptStream>,
    writer: StreamWriter<ReceiptStream>,
    /// By room and user: how far each of the user's marks is.
    marks: Arc<Cache<(i64, OwnedUserId), Marks>>,
}

impl std::fmt::Debug for Receipts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipts").field("feed", &self.feed).finish_non_exhaustive()
    }
}

impl Receipts {
    /// Receipts that are written by `writer` and read from `feed`.
    pub fn new(database: Database, feed: Feed<ReceiptStream>, writer: StreamWriter<ReceiptStream>) -> Self {
        let marks = Arc::new(Cache::new(REMEMBERED));
        let moved: Arc<Cache<(i64, OwnedUserId), Marks>> = marks.clone();
        feed.subscribe(move |batch| {
            for stamped in batch.rows {
                let row = &stamped.row;
                let key = (row.room_nid, row.user_id.clone());
                // What is not remembered is read when it is needed.
                if let Some(known) = moved.get(&key) {
                    moved.insert(key, with_mark(&known, row));
                }
            }
        });
        Self { database, feed, writer, marks }
    }

    /// The stream of receipts as this process has seen it.
    pub fn feed(&self) -> &Feed<ReceiptStream> {
        &self.feed
    }

    /// Records a receipt and gives whether it says anything new: marks of one kind and thread only go forward.
    ///
    /// # Errors
    /// If the database fails or too many writes are waiting.
    pub async fn record(&self, receipt: NewReceipt) -> Result<bool, RecordError> {
        let key = (receipt.room_nid, receipt.user_id.clone());
        let marks = match self.marks.get(&key) {
            Some(marks) => marks,
            None => {
                let marks = self.read_marks(&receipt).await?;
                self.marks.insert(key, marks.clone());
                marks
            }
        };
        let known = marks.iter().find(|(kind, thread, _)| *kind == receipt.kind && *thread == receipt.thread);
        if let (Some((.., Some(known))), Some(new)) = (known, receipt.event_pos)
            && *known >= new
        {
            return Ok(false);
        }
        self.writer.append(vec![receipt]).await?;
        Ok(true)
    }

    async fn read_marks(&self, receipt: &ReceiptRow) -> Result<Marks> {
        let client = self.database.get().await?;
        let rows = table::receipts_of_user(&client, &[receipt.room_nid], receipt.user_id.as_str()).await?;
        rows.into_iter()
            .map(|row| {
                let kind = ReceiptKind::from_column(row.receipt_type)?;
                Ok((kind, ReceiptThread::from_thread_id(Some(&row.thread_id))?, row.event_pos))
            })
            .collect()
    }
}

fn with_mark(marks: &Marks, row: &ReceiptRow) -> Marks {
    let others = marks.iter().filter(|(kind, thread, _)| *kind != row.kind || *thread != row.thread);
    others.cloned().chain([(row.kind, row.thread.clone(), row.event_pos)]).collect()
}

#[cfg(test)]
mod tests;
