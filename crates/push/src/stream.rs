//! The stream `push_rules`: whose rules ([spec](https://spec.matrix.org/v1.19/client-server-api/#push-rules)) changed.

use std::sync::Arc;

use myelin_replication::{Stamped, Stream};
use myelin_storage::{Client, Result, StorageError, Write, push_rules};
use myelin_types::Position;
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

/// Users who changed their rules.
#[derive(Clone, Copy, Debug)]
pub struct PushRulesStream;

/// A user changed their rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRulesRow {
    /// The user.
    pub user_id: OwnedUserId,
    /// What is not the server's default, as it is stored.
    pub changes: Arc<str>,
}

impl Stream for PushRulesStream {
    const NAME: &'static str = "push_rules";
    type Row = PushRulesRow;

    async fn persist(db: &impl Write, rows: &[Stamped<PushRulesRow>]) -> Result<()> {
        let rows: Vec<_> = rows
            .iter()
            .map(|Stamped { id, writer, row }| push_rules::PushRulesRow {
                stream_id: *id,
                writer: *writer,
                user_id: row.user_id.to_string(),
                rules: row.changes.to_string(),
            })
            .collect();
        push_rules::set_push_rules(db, &rows).await
    }

    async fn since(
        client: &Client,
        after: &Position,
        upto: &Position,
        limit: i64,
    ) -> Result<Vec<Stamped<PushRulesRow>>> {
        let limit_rows = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        let mut from = after.minimum();
        loop {
            // A page may be full of rows that are covered already; only a short one is the last.
            let rows = push_rules::push_rules_since(client, from, upto.maximum(), limit).await?;
            let full = rows.len() >= limit_rows;
            from = rows.last().map_or(from, |row| row.stream_id);
            for row in rows {
                if !after.covers(row.writer, row.stream_id) && upto.covers(row.writer, row.stream_id) {
                    found.push(stamped(row)?);
                }
            }
            if !full || found.len() >= limit_rows {
                found.truncate(limit_rows);
                return Ok(found);
            }
        }
    }
}

fn stamped(row: push_rules::PushRulesRow) -> Result<Stamped<PushRulesRow>> {
    let user_id = UserId::parse(&row.user_id)
        .map_err(|error| StorageError::Inconsistent(format!("push_rules.user_id: {error}")))?;
    let changes = row.rules.into();
    Ok(Stamped { id: row.stream_id, writer: row.writer, row: PushRulesRow { user_id, changes } })
}
