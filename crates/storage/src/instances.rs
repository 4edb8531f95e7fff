//! `instances` and `leases`: which processes live, and who holds which duty.

use std::time::Duration;

use myelin_types::WriterId;

use crate::{GenericClient, Result, execute, query, query_one, query_opt};

/// What the database knows of a process after it registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The process's number, the same for its name for ever.
    pub writer: WriterId,
    /// Raised by one at each registration; writes under an older one are refused.
    pub epoch: i64,
}

/// Tries to take the name for the connection's lifetime: `false` if a living process has it.
pub async fn try_lock_name(db: &impl GenericClient, instance_name: &str) -> Result<bool> {
    const SQL: &str = "SELECT pg_try_advisory_lock(hashtextextended('myelin/instance/' || $1, 0))";
    Ok(query_one(db, SQL, &[&instance_name]).await?.get(0))
}

/// Registers a process under its name and fences whatever an earlier one of that name still writes.
pub async fn register(db: &impl GenericClient, instance_name: &str, ttl: Duration) -> Result<Registration> {
    const SQL: &str = "
        INSERT INTO instances (instance_name, epoch, alive_until)
        VALUES ($1, 1, now() + make_interval(secs => $2))
            ON CONFLICT (instance_name)
            DO UPDATE SET epoch = instances.epoch + 1, alive_until = excluded.alive_until
        RETURNING writer_id, epoch";
    let row = query_one(db, SQL, &[&instance_name, &ttl.as_secs_f64()]).await?;
    Ok(Registration { writer: WriterId(row.get(0)), epoch: row.get(1) })
}

/// Says that the process still lives; `false` if another took over its name or duties.
pub async fn heartbeat(db: &impl GenericClient, me: Registration, ttl: Duration) -> Result<bool> {
    const SQL: &str = "
        UPDATE instances SET alive_until = now() + make_interval(secs => $3) WHERE writer_id = $1 AND epoch = $2";
    Ok(execute(db, SQL, &[&me.writer.0, &me.epoch, &ttl.as_secs_f64()]).await? == 1)
}

/// Says that the process is about to end: its duties are free at once.
pub async fn deregister(db: &impl GenericClient, me: Registration) -> Result<()> {
    const SQL: &str = "UPDATE instances SET alive_until = '-infinity' WHERE writer_id = $1 AND epoch = $2";
    execute(db, SQL, &[&me.writer.0, &me.epoch]).await?;
    Ok(())
}

/// Checks that the process may still write, and holds that fact until the caller's transaction ends.
pub async fn check_fence(db: &impl GenericClient, me: Registration) -> Result<bool> {
    const SQL: &str = "SELECT 1 FROM instances WHERE writer_id = $1 AND epoch = $2 FOR SHARE";
    Ok(query_opt(db, SQL, &[&me.writer.0, &me.epoch]).await?.is_some())
}

/// Takes those of `leases` that are free or whose holder is gone, and gives the names of all that are held now.
///
/// A holder that is gone is fenced first: its epoch is raised, here and on its streams, so that nothing it still has
/// under way can be committed.
pub async fn acquire_leases(
    db: &impl GenericClient,
    leases: &[&str],
    me: Registration,
) -> Result<Vec<String>> {
    const FENCE: &str = "
        WITH gone AS (
            UPDATE instances i SET epoch = i.epoch + 1
             WHERE i.alive_until < now() AND i.writer_id <> $2
               AND EXISTS (SELECT 1 FROM leases l
                            WHERE l.lease = ANY ($1) AND l.writer_id = i.writer_id AND l.epoch = i.epoch)
            RETURNING i.writer_id, i.epoch)
        UPDATE stream_positions p SET epoch = gone.epoch FROM gone WHERE p.writer_id = gone.writer_id";
    const TAKE: &str = "
        INSERT INTO leases (lease, writer_id, epoch)
        SELECT lease, $2, $3 FROM unnest($1::text[]) AS l (lease) ORDER BY lease
            ON CONFLICT (lease) DO UPDATE SET writer_id = excluded.writer_id, epoch = excluded.epoch
         WHERE NOT EXISTS (SELECT 1 FROM instances i
                            WHERE i.writer_id = leases.writer_id AND i.epoch = leases.epoch
                              AND i.alive_until >= now() AND i.writer_id <> $2)";
    const HELD: &str = "SELECT lease FROM leases WHERE lease = ANY ($1) AND writer_id = $2 AND epoch = $3";
    execute(db, FENCE, &[&leases, &me.writer.0]).await?;
    execute(db, TAKE, &[&leases, &me.writer.0, &me.epoch]).await?;
    let rows = query(db, HELD, &[&leases, &me.writer.0, &me.epoch]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
