//! `instances` and `leases`: which processes live, and who holds which duty.

use std::time::Duration;

use myelin_types::WriterId;

use crate::{GenericClient, Result, execute, query, query_one, query_opt};

/// What the database knows of a process after it registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Registers a process under its name and fences whatever an earlier one of that name still writes: what that one has under way
/// is waited for, and nothing more of it is committed.
pub async fn register(db: &impl GenericClient, instance_name: &str, ttl: Duration) -> Result<Registration> {
    const SQL: &str = "
        WITH me AS (
            INSERT INTO instances (instance_name, epoch, alive_until)
            VALUES ($1, 1, now() + make_interval(secs => $2))
                ON CONFLICT (instance_name)
                DO UPDATE SET epoch = instances.epoch + 1, alive_until = excluded.alive_until, duties = '{}'
            RETURNING writer_id, epoch),
        fenced AS (
            UPDATE stream_positions p SET epoch = me.epoch FROM me WHERE p.writer_id = me.writer_id)
        SELECT writer_id, epoch FROM me";
    let row = query_one(db, SQL, &[&instance_name, &ttl.as_secs_f64()]).await?;
    Ok(Registration { writer: WriterId(row.get(0)), epoch: row.get(1) })
}

/// Says that the process still lives; `false` if another took over its name or duties.
pub async fn heartbeat(db: &impl GenericClient, me: Registration, ttl: Duration) -> Result<bool> {
    const SQL: &str = "
        UPDATE instances SET alive_until = now() + make_interval(secs => $3) WHERE writer_id = $1 AND epoch = $2";
    Ok(execute(db, SQL, &[&me.writer.0, &me.epoch, &ttl.as_secs_f64()]).await? == 1)
}

/// Says where the others reach the process.
pub async fn set_address(db: &impl GenericClient, me: Registration, address: &str) -> Result<()> {
    const SQL: &str = "UPDATE instances SET address = $3 WHERE writer_id = $1 AND epoch = $2";
    execute(db, SQL, &[&me.writer.0, &me.epoch, &address]).await?;
    Ok(())
}

/// Says that the process would take a share of a duty.
pub async fn add_duty(db: &impl GenericClient, me: Registration, duty: &str) -> Result<()> {
    const SQL: &str = "
        UPDATE instances SET duties = array_append(array_remove(duties, $3), $3) WHERE writer_id = $1 AND epoch = $2";
    execute(db, SQL, &[&me.writer.0, &me.epoch, &duty]).await?;
    Ok(())
}

/// Says that the process takes no share of a duty.
pub async fn remove_duty(db: &impl GenericClient, me: Registration, duty: &str) -> Result<()> {
    const SQL: &str = "
        UPDATE instances SET duties = array_remove(duties, $3) WHERE writer_id = $1 AND epoch = $2";
    execute(db, SQL, &[&me.writer.0, &me.epoch, &duty]).await?;
    Ok(())
}

/// Says that the process is about to end: its duties are free at once.
pub async fn deregister(db: &impl GenericClient, me: Registration) -> Result<()> {
    const SQL: &str = "
        UPDATE instances SET alive_until = '-infinity', duties = '{}' WHERE writer_id = $1 AND epoch = $2";
    execute(db, SQL, &[&me.writer.0, &me.epoch]).await?;
    Ok(())
}

/// A process that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Living {
    /// Its registration.
    pub registration: Registration,
    /// Its name.
    pub name: String,
    /// The duties that it would take a share of.
    pub duties: Vec<String>,
    /// Where the others reach it.
    pub address: Option<String>,
}

/// The processes that live, by name.
pub async fn list_living(db: &impl GenericClient) -> Result<Vec<Living>> {
    const SQL: &str = "
        SELECT writer_id, epoch, instance_name, duties, address FROM instances WHERE alive_until >= now()
         ORDER BY instance_name";
    let rows = query(db, SQL, &[]).await?;
    let living = |row: &tokio_postgres::Row| Living {
        registration: Registration { writer: WriterId(row.get(0)), epoch: row.get(1) },
        name: row.get(2),
        duties: row.get(3),
        address: row.get(4),
    };
    Ok(rows.iter().map(living).collect())
}

/// The leases whose names begin with `prefix`, with the registration of each one's holder, which may be gone.
pub async fn list_leases(db: &impl GenericClient, prefix: &str) -> Result<Vec<(String, Registration)>> {
    const SQL: &str = "SELECT lease, writer_id, epoch FROM leases WHERE starts_with(lease, $1)";
    let rows = query(db, SQL, &[&prefix]).await?;
    let lease = |row: &tokio_postgres::Row| {
        (row.get(0), Registration { writer: WriterId(row.get(1)), epoch: row.get(2) })
    };
    Ok(rows.iter().map(lease).collect())
}

/// Hands leases to a process that lives, or gives them back. Those that are not the process's own stay as they are.
pub async fn hand_over_leases(
    db: &impl GenericClient,
    leases: &[&str],
    me: Registration,
    heir: Option<Registration>,
) -> Result<()> {
    const HAND_OVER: &str = "
        UPDATE leases SET writer_id = $4, epoch = $5 WHERE lease = ANY ($1) AND writer_id = $2 AND epoch = $3";
    const RELEASE: &str = "DELETE FROM leases WHERE lease = ANY ($1) AND writer_id = $2 AND epoch = $3";
    match heir {
        Some(heir) => {
            execute(db, HAND_OVER, &[&leases, &me.writer.0, &me.epoch, &heir.writer.0, &heir.epoch]).await?
        }
        None => execute(db, RELEASE, &[&leases, &me.writer.0, &me.epoch]).await?,
    };
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
