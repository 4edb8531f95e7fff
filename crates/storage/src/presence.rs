//! `presence`: who is here ([spec](https://spec.matrix.org/v1.19/client-server-api/#presence)).

use myelin_types::{StreamId, WriterId};

use crate::{GenericClient, Result, Row, execute, query, query_opt};

/// A row of `presence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Whose presence.
    pub user_id: String,
    /// 0 offline, 1 unavailable, 2 online.
    pub presence: i16,
    /// What the user says about it.
    pub status_msg: Option<String>,
    /// When the user was last active, in milliseconds since the epoch.
    pub last_active_ts: i64,
    /// The row's id in the presence stream.
    pub stream_id: StreamId,
    /// Who wrote it.
    pub writer: WriterId,
}

impl From<&Row> for Presence {
    fn from(row: &Row) -> Self {
        Self {
            user_id: row.get(0),
            presence: row.get(1),
            status_msg: row.get(2),
            last_active_ts: row.get(3),
            stream_id: StreamId(row.get(4)),
            writer: WriterId(row.get(5)),
        }
    }
}

/// Writes presences over older ones of the same users. No user may be there twice.
pub async fn upsert_presence(db: &impl GenericClient, rows: &[Presence]) -> Result<()> {
    const SQL: &str = "
        INSERT INTO presence (user_id, presence, status_msg, last_active_ts, stream_id, writer_id)
        SELECT * FROM unnest($1::text[], $2::smallint[], $3::text[], $4::bigint[], $5::bigint[], $6::smallint[])
            ON CONFLICT (user_id)
            DO UPDATE SET presence = excluded.presence, status_msg = excluded.status_msg,
                          last_active_ts = excluded.last_active_ts, stream_id = excluded.stream_id,
                          writer_id = excluded.writer_id
         WHERE presence.stream_id < excluded.stream_id";
    let user_ids: Vec<_> = rows.iter().map(|row| row.user_id.as_str()).collect();
    let states: Vec<_> = rows.iter().map(|row| row.presence).collect();
    let messages: Vec<_> = rows.iter().map(|row| row.status_msg.as_deref()).collect();
    let active: Vec<_> = rows.iter().map(|row| row.last_active_ts).collect();
    let ids: Vec<_> = rows.iter().map(|row| row.stream_id.0).collect();
    let writers: Vec<_> = rows.iter().map(|row| row.writer.0).collect();
    execute(db, SQL, &[&user_ids, &states, &messages, &active, &ids, &writers]).await?;
    Ok(())
}

/// At most `limit` presences with an id in (`after`, `upto`], by ascending id.
pub async fn presence_since(
    db: &impl GenericClient,
    after: StreamId,
    upto: StreamId,
    limit: i64,
) -> Result<Vec<Presence>> {
    const SQL: &str = "
        SELECT user_id, presence, status_msg, last_active_ts, stream_id, writer_id
          FROM presence WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id LIMIT $3";
    let rows = query(db, SQL, &[&after.0, &upto.0, &limit]).await?;
    Ok(rows.iter().map(Presence::from).collect())
}

/// What is known of one user.
pub async fn get_presence(db: &impl GenericClient, user_id: &str) -> Result<Option<Presence>> {
    const SQL: &str = "
        SELECT user_id, presence, status_msg, last_active_ts, stream_id, writer_id
          FROM presence WHERE user_id = $1";
    Ok(query_opt(db, SQL, &[&user_id]).await?.as_ref().map(Presence::from))
}

/// At most `limit` users who are not offline, those of the latest change first.
pub async fn list_present(db: &impl GenericClient, limit: i64) -> Result<Vec<Presence>> {
    const SQL: &str = "
        SELECT user_id, presence, status_msg, last_active_ts, stream_id, writer_id
          FROM presence WHERE presence <> 0 ORDER BY stream_id DESC LIMIT $1";
    let rows = query(db, SQL, &[&limit]).await?;
    Ok(rows.iter().map(Presence::from).collect())
}
