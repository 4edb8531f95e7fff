//! `revocations`: access tokens that other processes are to forget.

use myelin_types::{MillisSinceEpoch, StreamId, WriterId};

use super::TokenHash;
use crate::{GenericClient, Result, Write, execute, query};

/// A token that was revoked.
#[derive(Clone, Copy, Debug)]
pub struct Revocation {
    /// Its place in the stream.
    pub stream_id: StreamId,
    /// Who revoked it.
    pub writer: WriterId,
    /// The token's hash.
    pub token: TokenHash,
    /// When.
    pub revoked_ts: MillisSinceEpoch,
}

/// Stores revocations.
pub async fn insert_revocations(db: &impl Write, revocations: &[Revocation]) -> Result<()> {
    const SQL: &str = "
        INSERT INTO revocations (stream_id, writer_id, token_hash, revoked_ts)
        SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::bytea[], $4::bigint[])";
    let ids: Vec<i64> = revocations.iter().map(|revocation| revocation.stream_id.0).collect();
    let writers: Vec<i16> = revocations.iter().map(|revocation| revocation.writer.0).collect();
    let tokens: Vec<&[u8]> = revocations.iter().map(|revocation| revocation.token.as_bytes()).collect();
    let times: Vec<i64> = revocations.iter().map(|revocation| to_column(revocation.revoked_ts)).collect();
    db.write(SQL, &[&ids, &writers, &tokens, &times]).await
}

/// At most `limit` revocations with ids between two, the second included, by ascending id.
pub async fn revocations_since(
    db: &impl GenericClient,
    after: StreamId,
    upto: StreamId,
    limit: i64,
) -> Result<Vec<Revocation>> {
    const SQL: &str = "
        SELECT stream_id, writer_id, token_hash, revoked_ts FROM revocations
         WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id LIMIT $3";
    let rows = query(db, SQL, &[&after.0, &upto.0, &limit]).await?;
    rows.iter()
        .map(|row| {
            Ok(Revocation {
                stream_id: StreamId(row.get(0)),
                writer: WriterId(row.get(1)),
                token: TokenHash::from_row(row, 2)?,
                revoked_ts: u64::try_from(row.get::<_, i64>(3)).unwrap_or_default(),
            })
        })
        .collect()
}

/// Deletes revocations of before `ts`.
pub async fn delete_revocations_before(db: &impl GenericClient, ts: MillisSinceEpoch) -> Result<()> {
    execute(db, "DELETE FROM revocations WHERE revoked_ts < $1", &[&to_column(ts)]).await?;
    Ok(())
}

fn to_column(ts: MillisSinceEpoch) -> i64 {
    i64::try_from(ts).unwrap_or(i64::MAX)
}
