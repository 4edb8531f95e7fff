//! `presence`: who is here ([spec](https://spec.matrix.org/v1.19/client-server-api/#presence)).

use myelin_types::{StreamId, WriterId};

use crate::{GenericClient, Result, Row, Write, query};

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
    /// The place in the presence stream of all but `status_msg`.
    pub stream_id: StreamId,
    /// Who wrote that.
    pub writer: WriterId,
    /// The place of `status_msg`. Zero: not known, or that of the rest.
    pub status_stream_id: StreamId,
    /// Who wrote `status_msg`.
    pub status_writer: WriterId,
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
            status_stream_id: StreamId(row.get(6)),
            status_writer: WriterId(row.get(7)),
        }
    }
}

/// Writes presences over older ones of the same users, and status messages over older ones. No user may be there twice.
pub async fn upsert_presence(db: &impl Write, rows: &[Presence]) -> Result<()> {
    const SQL: &str = "
        INSERT INTO presence AS p (user_id, presence, status_msg, last_active_ts, stream_id, writer_id,
                                   status_stream_id, status_writer_id)
        SELECT * FROM unnest($1::text[], $2::smallint[], $3::text[], $4::bigint[], $5::bigint[], $6::smallint[],
                             $7::bigint[], $8::smallint[])
            ON CONFLICT (user_id)
            DO UPDATE SET (presence, last_active_ts, stream_id, writer_id) = (
                              SELECT excluded.presence, excluded.last_active_ts, excluded.stream_id, excluded.writer_id
                               WHERE p.stream_id < excluded.stream_id
                               UNION ALL
                              SELECT p.presence, p.last_active_ts, p.stream_id, p.writer_id
                               WHERE p.stream_id >= excluded.stream_id),
                          (status_msg, status_stream_id, status_writer_id) = (
                              SELECT excluded.status_msg, excluded.status_stream_id, excluded.status_writer_id
                               WHERE p.status_stream_id < excluded.status_stream_id
                               UNION ALL
                              SELECT p.status_msg, p.status_stream_id, p.status_writer_id
                               WHERE p.status_stream_id >= excluded.status_stream_id)
         WHERE p.stream_id < excluded.stream_id OR p.status_stream_id < excluded.status_stream_id";
    let user_ids: Vec<_> = rows.iter().map(|row| row.user_id.as_str()).collect();
    let states: Vec<_> = rows.iter().map(|row| row.presence).collect();
    let messages: Vec<_> = rows.iter().map(|row| row.status_msg.as_deref()).collect();
    let active: Vec<_> = rows.iter().map(|row| row.last_active_ts).collect();
    let ids: Vec<_> = rows.iter().map(|row| row.stream_id.0).collect();
    let writers: Vec<_> = rows.iter().map(|row| row.writer.0).collect();
    let status_ids: Vec<_> = rows.iter().map(|row| row.status_stream_id.0).collect();
    let status_writers: Vec<_> = rows.iter().map(|row| row.status_writer.0).collect();
    db.write(SQL, &[&user_ids, &states, &messages, &active, &ids, &writers, &status_ids, &status_writers])
        .await
}

/// At most `limit` presences with an id in (`after`, `upto`], by ascending id. Of a user whose status message has another place
/// than the rest there are two, each with its place as `stream_id`.
pub async fn presence_since(
    db: &impl GenericClient,
    after: StreamId,
    upto: StreamId,
    limit: i64,
) -> Result<Vec<Presence>> {
    const SQL: &str = "
        SELECT user_id, presence, status_msg, last_active_ts, stream_id, writer_id, status_stream_id, status_writer_id
          FROM presence WHERE stream_id > $1 AND stream_id <= $2
         UNION ALL
        SELECT user_id, presence, status_msg, last_active_ts, status_stream_id, status_writer_id,
               status_stream_id, status_writer_id
          FROM presence WHERE status_stream_id > $1 AND status_stream_id <= $2 AND status_stream_id <> stream_id
         ORDER BY 5 LIMIT $3";
    let rows = query(db, SQL, &[&after.0, &upto.0, &limit]).await?;
    Ok(rows.iter().map(Presence::from).collect())
}

/// What is known of some users.
pub async fn list_presence_of(db: &impl GenericClient, user_ids: &[&str]) -> Result<Vec<Presence>> {
    const SQL: &str = "
        SELECT user_id, presence, status_msg, last_active_ts, stream_id, writer_id, status_stream_id, status_writer_id
          FROM presence WHERE user_id = ANY ($1)";
    let rows = query(db, SQL, &[&user_ids]).await?;
    Ok(rows.iter().map(Presence::from).collect())
}

/// At most `limit` users who are not offline, those of the latest change first.
pub async fn list_present(db: &impl GenericClient, limit: i64) -> Result<Vec<Presence>> {
    const SQL: &str = "
        SELECT user_id, presence, status_msg, last_active_ts, stream_id, writer_id, status_stream_id, status_writer_id
          FROM presence WHERE presence <> 0 ORDER BY stream_id DESC LIMIT $1";
    let rows = query(db, SQL, &[&limit]).await?;
    Ok(rows.iter().map(Presence::from).collect())
}
