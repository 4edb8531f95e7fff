//! `stream_positions`: the committed watermark of every stream and writer.

use std::time::Duration;

use myelin_types::{StreamId, WriterId};
use tokio_postgres::Row;

use crate::{Answer, Flight, GenericClient, Result, StorageError, execute, query, query_one, query_opt};

/// Takes over (or first makes) `writer`'s rows of the given streams under `epoch`. From then on transactions of an
/// earlier epoch are refused by [`advance`].
///
/// A new row starts at the stream's newest id, so that a writer which has never written holds no reader back.
pub async fn claim(db: &impl GenericClient, streams: &[&str], writer: WriterId, epoch: i64) -> Result<()> {
    const SQL: &str = "
        INSERT INTO stream_positions (stream, writer_id, epoch, position)
        SELECT stream, $2, $3,
               GREATEST((SELECT coalesce(pg_sequence_last_value(('stream_' || stream)::regclass), 0)),
                        (SELECT coalesce(max(position), 0) FROM stream_positions p WHERE p.stream = s.stream))
          FROM unnest($1::text[]) AS s (stream)
            ON CONFLICT (stream, writer_id) DO UPDATE SET epoch = excluded.epoch";
    execute(db, SQL, &[&streams, &writer.0, &epoch]).await?;
    Ok(())
}

/// Every writer's committed position in a stream.
pub async fn list_positions(db: &impl GenericClient, stream: &str) -> Result<Vec<(WriterId, StreamId)>> {
    const SQL: &str = "SELECT writer_id, position FROM stream_positions WHERE stream = $1 ORDER BY writer_id";
    let rows = query(db, SQL, &[&stream]).await?;
    Ok(rows.iter().map(|row| (WriterId(row.get(0)), StreamId(row.get(1)))).collect())
}

/// Every writer's committed position in every stream, as of one moment.
pub async fn list_all_positions(db: &impl GenericClient) -> Result<Vec<(String, WriterId, StreamId)>> {
    const SQL: &str = "SELECT stream, writer_id, position FROM stream_positions";
    let rows = query(db, SQL, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), WriterId(row.get(1)), StreamId(row.get(2)))).collect())
}

/// Moves `writer`'s position from where it left it, in the flight that writes the rows up to there. It fails with
/// [`StorageError::Fenced`] if another process took over this writer, or if the position was moved meanwhile: what the writer took for
/// failed was committed, or is late and was [sealed off](seal).
pub async fn advance(
    flight: &Flight<'_>,
    stream: &str,
    (writer, epoch): (WriterId, i64),
    (from, to): (StreamId, StreamId),
) -> Result<Advanced> {
    // Divides by zero if there is no such row: what comes behind in the flight, the commit too, is refused then.
    const SQL: &str = "
        WITH moved AS (
            UPDATE stream_positions SET position = $5
             WHERE stream = $1 AND writer_id = $2 AND epoch = $3 AND position = $4 RETURNING 1)
        SELECT (SELECT count(*) FROM stream_positions WHERE stream = $1) / (SELECT count(*) FROM moved)";
    let explain = |error: StorageError| match error.is_division_by_zero() {
        true => StorageError::Fenced,
        false => error,
    };
    flight.ask(SQL, &[&stream, &writer.0, &epoch, &from.0, &to.0], explain).await.map(Advanced)
}

/// A position that was moved.
#[derive(Debug)]
pub struct Advanced(Answer);

impl Advanced {
    /// How many writers the stream has, once the flight has landed. One that is not among them registers later, so all its ids
    /// will be greater than the position.
    pub fn writers(self) -> usize {
        let writers = self.0.rows().first().map_or(0, |row| row.get::<_, i64>(0));
        usize::try_from(writers).unwrap_or_default()
    }
}

/// What became of a transaction whose end its writer did not hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was not committed and can't be any more: the position is another one now, from which it does not [go on](advance).
    Sealed(StreamId),
    /// The position was moved up to here, so it was.
    Committed(StreamId),
}

/// Finds out what became of a transaction that was to move a writer's position on from `from`, and waits for it if it is still under
/// way. Gives that and how many writers the stream has; `None` if another process took over this writer.
pub async fn seal(
    db: &impl GenericClient,
    stream: &str,
    (writer, epoch): (WriterId, i64),
    from: StreamId,
) -> Result<Option<(Fate, usize)>> {
    const SEAL: &str = "
        UPDATE stream_positions SET position = nextval(('stream_' || $1)::regclass)
         WHERE stream = $1 AND writer_id = $2 AND epoch = $3 AND position = $4
        RETURNING position, (SELECT count(*) FROM stream_positions all_writers WHERE all_writers.stream = $1)";
    const LOOK: &str = "
        SELECT position, (SELECT count(*) FROM stream_positions all_writers WHERE all_writers.stream = $1)
          FROM stream_positions WHERE stream = $1 AND writer_id = $2 AND epoch = $3";
    if let Some(row) = query_opt(db, SEAL, &[&stream, &writer.0, &epoch, &from.0]).await? {
        return Ok(Some((Fate::Sealed(StreamId(row.get(0))), count(&row)?)));
    }
    match query_opt(db, LOOK, &[&stream, &writer.0, &epoch]).await? {
        Some(row) => Ok(Some((Fate::Committed(StreamId(row.get(0))), count(&row)?))),
        None => Ok(None),
    }
}

/// How many writers a stream has, in the second column.
fn count(row: &Row) -> Result<usize> {
    usize::try_from(row.get::<_, i64>(1))
        .map_err(|_| StorageError::Inconsistent("a negative count".to_owned()))
}

/// Moves the position of a writer that has nothing under way up to the stream's newest id: whatever it writes later comes
/// after that. Gives the position, and how many writers the stream has; `None` if another process took over this writer.
pub async fn move_up(
    db: &impl GenericClient,
    stream: &str,
    writer: WriterId,
    epoch: i64,
) -> Result<Option<(StreamId, usize)>> {
    const SQL: &str = "
        UPDATE stream_positions
           SET position = GREATEST(position, coalesce(pg_sequence_last_value(('stream_' || $1)::regclass), 0))
         WHERE stream = $1 AND writer_id = $2 AND epoch = $3
        RETURNING position, (SELECT count(*) FROM stream_positions all_writers WHERE all_writers.stream = $1)";
    let row = query_opt(db, SQL, &[&stream, &writer.0, &epoch]).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some((StreamId(row.get(0)), count(&row)?)))
}

/// Moves up the positions of writers that have not been heard of for `silence`, having fenced them: readers need not remember for
/// ever where each of them stood. Gives how many positions moved.
pub async fn move_up_gone(db: &impl GenericClient, silence: Duration) -> Result<u64> {
    // Who stands where the stream ends is left alone.
    const FENCE: &str = "
        WITH gone AS (
            UPDATE instances i SET epoch = i.epoch + 1
             WHERE i.alive_until < now() - make_interval(secs => $1)
               AND EXISTS (SELECT 1 FROM stream_positions p
                            WHERE p.writer_id = i.writer_id AND p.epoch = i.epoch
                              AND p.position < coalesce(pg_sequence_last_value(('stream_' || p.stream)::regclass), 0))
            RETURNING i.writer_id, i.epoch)
        UPDATE stream_positions p SET epoch = gone.epoch FROM gone WHERE p.writer_id = gone.writer_id";
    const MOVE: &str = "
        UPDATE stream_positions p
           SET position = coalesce(pg_sequence_last_value(('stream_' || p.stream)::regclass), 0)
          FROM instances i
         WHERE i.writer_id = p.writer_id AND i.alive_until < now() - make_interval(secs => $1) AND i.epoch = p.epoch
           AND p.position < coalesce(pg_sequence_last_value(('stream_' || p.stream)::regclass), 0)";
    execute(db, FENCE, &[&silence.as_secs_f64()]).await?;
    execute(db, MOVE, &[&silence.as_secs_f64()]).await
}

/// The next `count` ids of a stream, ascending. Only in the transaction that uses them, or ids would be committed out
/// of order.
pub async fn allocate(db: &impl GenericClient, stream: &str, count: usize) -> Result<Vec<StreamId>> {
    const SQL: &str = "
        SELECT array_agg(nextval(('stream_' || $1)::regclass)) FROM generate_series(1, $2::bigint)";
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let row: Row = query_one(db, SQL, &[&stream, &count]).await?;
    let mut ids: Vec<i64> = row.get::<_, Option<_>>(0).unwrap_or_default();
    ids.sort_unstable();
    Ok(ids.into_iter().map(StreamId).collect())
}
