//! The stream of presence, and its table.

use std::collections::HashMap;

use myelin_replication::{Stamped, Stream, is_full, read_pages};
use myelin_storage::{Client, Result, StorageError, Write, presence as table};
use myelin_types::{MillisSinceEpoch, Position, StreamId, WriterId};
use ruma::{OwnedUserId, UserId, presence::PresenceState};
use serde::{Deserialize, Serialize};

/// A user's presence, as readers of the stream get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceRow {
    /// Whose.
    pub user_id: OwnedUserId,
    /// `online`, `unavailable` or `offline`.
    pub presence: PresenceState,
    /// What the user says about it.
    pub status_msg: Option<String>,
    /// When the user was last active.
    pub last_active_ts: MillisSinceEpoch,
    /// Whether the user said so, the status message with it. Else a process found the user there or gone, and the status message
    /// is what it knew, which may be an older one than was said meanwhile at another process.
    #[serde(default = "is_said")]
    pub is_said: bool,
}

/// Daemons of before say no more than that.
fn is_said() -> bool {
    true
}

/// The stream of presence.
#[derive(Debug)]
pub struct PresenceStream;

impl Stream for PresenceStream {
    const NAME: &'static str = "presence";
    type Row = PresenceRow;

    async fn persist(db: &impl Write, rows: &[Stamped<PresenceRow>]) -> Result<()> {
        // One statement can't write a user twice; the last one counts.
        let mut latest: HashMap<&UserId, table::Presence> = HashMap::new();
        for stamped in rows {
            let mut row = to_table(stamped);
            if let Some(earlier) = latest.remove(&*stamped.row.user_id).filter(|_| !stamped.row.is_said) {
                row.status_msg = earlier.status_msg;
                (row.status_stream_id, row.status_writer) = (earlier.status_stream_id, earlier.status_writer);
            }
            latest.insert(&stamped.row.user_id, row);
        }
        let mut rows: Vec<table::Presence> = latest.into_values().collect();
        // Two writers that touch the same rows must do so in the same order.
        rows.sort_unstable_by(|a, b| a.user_id.cmp(&b.user_id));
        table::upsert_presence(db, &rows).await
    }

    async fn since(
        client: &Client,
        after: &Position,
        upto: &Position,
        limit: i64,
    ) -> Result<Vec<Stamped<PresenceRow>>> {
        read_pages(after, upto, limit, async |from, to| {
            let rows = table::presence_since(client, from, to, limit).await?;
            let complete = rows.last().map(|row| row.stream_id).filter(|_| is_full(rows.len(), limit));
            Ok((rows.into_iter().map(from_table).collect::<Result<_>>()?, complete))
        })
        .await
    }
}

fn to_column(presence: &PresenceState) -> i16 {
    match presence {
        PresenceState::Online => 2,
        PresenceState::Unavailable => 1,
        _ => 0,
    }
}

fn to_table(stamped: &Stamped<PresenceRow>) -> table::Presence {
    let Stamped { id, writer, row } = stamped;
    let (status_stream_id, status_writer) =
        if row.is_said { (*id, *writer) } else { (StreamId::ZERO, WriterId::default()) };
    table::Presence {
        user_id: row.user_id.to_string(),
        presence: to_column(&row.presence),
        status_msg: row.status_msg.clone(),
        last_active_ts: i64::try_from(row.last_active_ts).unwrap_or(i64::MAX),
        stream_id: *id,
        writer: *writer,
        status_stream_id,
        status_writer,
    }
}

pub(super) fn from_table(row: table::Presence) -> Result<Stamped<PresenceRow>> {
    let is_said = row.status_stream_id == row.stream_id || row.status_stream_id == StreamId::ZERO;
    Ok(Stamped {
        id: row.stream_id,
        writer: row.writer,
        row: PresenceRow {
            user_id: OwnedUserId::try_from(row.user_id)
                .map_err(|_| StorageError::Inconsistent("a presence has an invalid user id".to_owned()))?,
            presence: match row.presence {
                2 => PresenceState::Online,
                1 => PresenceState::Unavailable,
                _ => PresenceState::Offline,
            },
            status_msg: row.status_msg,
            last_active_ts: u64::try_from(row.last_active_ts).unwrap_or_default(),
            is_said,
        },
    })
}
