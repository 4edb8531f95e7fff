//! Notices as they travel between processes.
//!
//! A process need not read what concerns nobody there: beside each row stands what it is about, and only rows that are wanted are
//! parsed.

use bytes::Bytes;
use myelin_types::{StreamId, WriterId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{Heading, Notice, Stamped, Stream, Topic};

/// Larger notices are published without their rows; whoever wants these reads the database.
const MAX_BYTES: usize = 64 << 10;

/// What is published.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Published<N> {
    /// A notice, rows and all.
    Notice(N),
    /// There is something new in the database.
    Look,
}

#[derive(Serialize)]
struct Outgoing<'a, R> {
    heading: &'a Heading,
    rows: Vec<OutgoingRow<'a, R>>,
}

#[derive(Serialize)]
struct OutgoingRow<'a, R> {
    id: StreamId,
    #[serde(skip_serializing_if = "Option::is_none")]
    about: Option<Topic>,
    row: &'a R,
}

/// A notice of another process whose rows are not read yet.
#[derive(Debug, Deserialize)]
pub(crate) struct Incoming<'a> {
    pub heading: Heading,
    #[serde(borrow)]
    pub rows: Vec<IncomingRow<'a>>,
}

/// A row that is not read yet.
#[derive(Debug, Deserialize)]
pub(crate) struct IncomingRow<'a> {
    id: StreamId,
    #[serde(default)]
    pub about: Option<Topic>,
    #[serde(borrow)]
    row: &'a RawValue,
}

impl IncomingRow<'_> {
    /// Reads the row, which this process wrote.
    pub fn read<R: DeserializeOwned>(&self, writer: WriterId) -> serde_json::Result<Stamped<R>> {
        Ok(Stamped { id: self.id, writer, row: serde_json::from_str(self.row.get())? })
    }
}

/// What is published of a notice.
pub(crate) fn encode<S: Stream>(notice: &Notice<S::Row>) -> Bytes {
    let rows =
        notice.rows.iter().map(|Stamped { id, row, .. }| OutgoingRow { id: *id, about: S::about(row), row });
    let outgoing = Outgoing { heading: &notice.heading, rows: rows.collect() };
    let whole = serde_json::to_vec(&Published::Notice(outgoing)).ok();
    let whole = whole.filter(|bytes| bytes.len() <= MAX_BYTES);
    whole.map_or_else(|| Bytes::from_static(br#""look""#), Bytes::from)
}

/// What was published; `None`: that there is something new.
///
/// # Errors
/// If the message is not understood: a newer version may say more.
pub(crate) fn decode(message: &[u8]) -> serde_json::Result<Option<Incoming<'_>>> {
    match serde_json::from_slice(message)? {
        Published::Notice(incoming) => Ok(Some(incoming)),
        Published::Look => Ok(None),
    }
}
