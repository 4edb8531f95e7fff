//! The stream by which processes hear of access tokens that ended.

use myelin_replication::{Feed, Stamped, Stream, StreamWriter, is_full, read_pages};
use myelin_storage::{
    Client, Result, Write,
    accounts::revocations::{self as table, Revocation},
};
use myelin_types::{MillisSinceEpoch, Position};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{Accounts, TokenHash};

/// The stream of access tokens that were revoked, or whose user changed.
#[derive(Debug)]
pub struct RevocationStream;

/// An access token that is not what it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RevocationRow {
    /// The token's hash.
    token: [u8; 32],
    /// When.
    ts: MillisSinceEpoch,
}

impl Stream for RevocationStream {
    const NAME: &'static str = "revocations";

    type Row = RevocationRow;

    async fn persist(db: &impl Write, rows: &[Stamped<RevocationRow>]) -> Result<()> {
        let to_table = |stamped: &Stamped<RevocationRow>| Revocation {
            stream_id: stamped.id,
            writer: stamped.writer,
            token: TokenHash(stamped.row.token),
            revoked_ts: stamped.row.ts,
        };
        let rows: Vec<Revocation> = rows.iter().map(to_table).collect();
        table::insert_revocations(db, &rows).await
    }

    async fn since(
        client: &Client,
        after: &Position,
        upto: &Position,
        limit: i64,
    ) -> Result<Vec<Stamped<RevocationRow>>> {
        let stamped = |row: Revocation| Stamped {
            id: row.stream_id,
            writer: row.writer,
            row: RevocationRow { token: row.token.0, ts: row.revoked_ts },
        };
        read_pages(after, upto, limit, async |from, to| {
            let rows = table::revocations_since(client, from, to, limit).await?;
            let complete = rows.last().map(|row| row.stream_id).filter(|_| is_full(rows.len(), limit));
            Ok((rows.into_iter().map(stamped).collect(), complete))
        })
        .await
    }
}

impl Accounts {
    /// Tells other processes of access tokens that end here, and hears of those that end there. Once only.
    pub fn share_revocations(&self, feed: &Feed<RevocationStream>, writer: StreamWriter<RevocationStream>) {
        let inner = std::sync::Arc::downgrade(&self.0);
        feed.subscribe(move |batch| {
            let Some(inner) = inner.upgrade() else { return };
            let tokens: Vec<TokenHash> =
                batch.rows.iter().map(|stamped| TokenHash(stamped.row.token)).collect();
            inner.tokens.forget(&tokens);
        });
        let _ = self.0.revocations.set(writer);
    }

    /// Drops access tokens from the caches of all processes, after they were revoked or their user changed. Functions of this
    /// crate do so themselves; this is for deletions in a transaction of the caller's.
    pub async fn forget_tokens(&self, tokens: &[TokenHash]) {
        self.0.tokens.forget(tokens);
        let Some(writer) = self.0.revocations.get().filter(|_| !tokens.is_empty()) else { return };
        let ts = self.now();
        let rows = tokens.iter().map(|token| RevocationRow { token: token.0, ts }).collect();
        if let Err(error) = writer.append(rows).await {
            // They look such tokens up again by themselves, soon enough.
            warn!(%error, "other processes could not be told of access tokens that ended");
        }
    }
}
