//! `instances` and `leases`: which processes live, and who holds which duty.

use std::time::Duration;

use myelin_types::WriterId;

use crate::{GenericClient, Result, StorageError, execute, query, query_one, query_opt};

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

/// Who lives and who holds what, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// The processes that live, by name.
    pub living: Vec<Living>,
    /// The leases with the registrations of their holders, some of which may be gone.
    pub leases: Vec<(String, Registration)>,
}

/// What [`survey`] found.
#[derive(Debug)]
pub struct Survey {
    /// Whether the process is still the one that it registered as.
    pub is_current: bool,
    /// Stands for all of the fleet: equal ones mean that nothing changed.
    pub fingerprint: i64,
    /// The fleet, if it is not as it was known.
    pub news: Option<Fleet>,
}

/// Looks at who lives and who holds what, and, given how long, says that the process lives itself. Since mostly nothing
/// changed, the rows are read only if their fingerprint is not the `known` one.
pub async fn survey(
    db: &impl GenericClient,
    me: Registration,
    beat: Option<Duration>,
    known: Option<i64>,
) -> Result<Survey> {
    // A heartbeat that is lost in a crash of the database is as good as one that came during the outage, so nobody waits for a
    // disk. One that finds another epoch than in its snapshot was not written.
    const SQL: &str = "
        WITH beat AS (
            UPDATE instances SET alive_until = now() + make_interval(secs => $3)
             WHERE $3::float8 IS NOT NULL AND writer_id = $1 AND epoch = $2
            RETURNING set_config('synchronous_commit', 'off', true)),
        seen AS MATERIALIZED (
            SELECT (SELECT coalesce(bit_xor(hash_record_extended(
                           (writer_id, epoch, instance_name, duties, coalesce(address, '')), 0)), 0)
                      FROM instances WHERE alive_until >= now())
                 # (SELECT coalesce(bit_xor(hash_record_extended((lease, writer_id, epoch), 1)), 0) FROM leases) AS fleet)
        SELECT CASE WHEN $3 IS NULL THEN EXISTS (SELECT FROM instances WHERE writer_id = $1 AND epoch = $2)
                    ELSE EXISTS (SELECT FROM beat) END,
               fleet,
               CASE WHEN fleet IS DISTINCT FROM $4 THEN json_build_array(
                    (SELECT coalesce(json_agg(json_build_array(writer_id, epoch, instance_name, duties, address)
                                              ORDER BY instance_name), '[]')
                       FROM instances WHERE alive_until >= now()),
                    (SELECT coalesce(json_agg(json_build_array(lease, writer_id, epoch)), '[]') FROM leases))::text END
          FROM seen";
    let beat = beat.map(|ttl| ttl.as_secs_f64());
    let row = query_one(db, SQL, &[&me.writer.0, &me.epoch, &beat, &known]).await?;
    let news = row.get::<_, Option<&str>>(2).map(read_fleet).transpose()?;
    Ok(Survey { is_current: row.get(0), fingerprint: row.get(1), news })
}

fn read_fleet(json: &str) -> Result<Fleet> {
    type Process = (i16, i64, String, Vec<String>, Option<String>);
    let (living, leases): (Vec<Process>, Vec<(String, i16, i64)>) =
        serde_json::from_str(json).map_err(|error| StorageError::Inconsistent(error.to_string()))?;
    let registration = |writer, epoch| Registration { writer: WriterId(writer), epoch };
    let living = living.into_iter().map(|(writer, epoch, name, duties, address)| Living {
        registration: registration(writer, epoch),
        name,
        duties,
        address,
    });
    let leases = leases.into_iter().map(|(lease, writer, epoch)| (lease, registration(writer, epoch)));
    Ok(Fleet { living: living.collect(), leases: leases.collect() })
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
