//! The stream by which processes hear whose profile changed.

use std::collections::BTreeMap;

use myelin_replication::{Stamped, Stream, is_full, read_pages};
use myelin_storage::{
    Client, Result, Write,
    accounts::profiles::{self as table, ProfileChange},
};
use myelin_types::Position;
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

/// The stream of users whose profile changed.
#[derive(Debug)]
pub struct ProfileStream;

/// A user whose profile is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileRow {
    /// Who.
    pub user_id: OwnedUserId,
}

impl Stream for ProfileStream {
    const NAME: &'static str = "profiles";

    type Row = ProfileRow;

    async fn persist(db: &impl Write, rows: &[Stamped<ProfileRow>]) -> Result<()> {
        // One statement can't write a user twice; the last one counts. Two writers that touch the same rows do so in the same order.
        let changes: BTreeMap<&UserId, ProfileChange> =
            rows.iter().map(|stamped| (&*stamped.row.user_id, to_table(stamped))).collect();
        let changes: Vec<ProfileChange> = changes.into_values().collect();
        table::upsert_changes(db, &changes).await
    }

    async fn since(
        client: &Client,
        after: &Position,
        upto: &Position,
        limit: i64,
    ) -> Result<Vec<Stamped<ProfileRow>>> {
        read_pages(after, upto, limit, async |from, to| {
            let changes = table::changes_since(client, from, to, limit).await?;
            let complete =
                changes.last().map(|change| change.stream_id).filter(|_| is_full(changes.len(), limit));
            Ok((changes.into_iter().map(from_table).collect(), complete))
        })
        .await
    }
}

fn to_table(stamped: &Stamped<ProfileRow>) -> ProfileChange {
    ProfileChange { user_id: stamped.row.user_id.clone(), stream_id: stamped.id, writer: stamped.writer }
}

fn from_table(change: ProfileChange) -> Stamped<ProfileRow> {
    Stamped { id: change.stream_id, writer: change.writer, row: ProfileRow { user_id: change.user_id } }
}

#[cfg(test)]
mod tests {
    use myelin_types::{StreamId, WriterId};

    use super::*;
    use crate::testing::{alice, database};

    #[tokio::test]
    async fn the_last_change_of_a_user_is_read_back() {
        let (_test, database) = database().await;
        let client = database.get().await.unwrap();
        let row = |id: i64, user: &UserId| Stamped {
            id: StreamId(id),
            writer: WriterId(1),
            row: ProfileRow { user_id: user.to_owned() },
        };
        let bob = ruma::user_id!("@bob:example.org");
        let rows = [row(1, alice()), row(2, bob), row(3, alice())];
        ProfileStream::persist(&client, &rows).await.unwrap();
        // One that comes late does not take a newer one back.
        ProfileStream::persist(&client, &[row(1, bob)]).await.unwrap();
        let upto = Position::from_writers([(WriterId(1), StreamId(3))]);
        for limit in [1, 10] {
            let found = ProfileStream::since(&client, &Position::default(), &upto, limit).await.unwrap();
            assert_eq!(found, rows[1..][..found.len()]);
            assert_eq!(found.len(), usize::try_from(limit).unwrap().min(2));
        }
    }
}
