//! What operations cost: CPU by groups of processes, queries, WAL, disk, memory. These hold still on a noisy machine, where
//! latencies don't.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use myelin_testing::TestDatabase;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::processes::{self, CpuTimes, Group, Memory};

/// How often it is looked whether the processes are quiet.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How many looks in a row must find nothing.
const QUIET_LOOKS: u32 = 3;

/// What all processes together may use between two looks and count as quiet, beside twice what they use when nobody is there.
const QUIET_CPU: Duration = Duration::from_millis(2);

/// How many looks tell what that is. Half of them may see something else that is going on.
const IDLE_LOOKS: usize = 15;

/// When it is given up waiting for that.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the counters.
pub struct Meter {
    /// Connected to another database than the homeserver's, so that its own queries don't count.
    client: Client,
    /// The process of that connection, whose work doesn't count either.
    backend: u32,
    database: String,
    postmaster: u32,
    /// What may be used between two looks and count as quiet.
    quiet_cpu: Duration,
}

/// That all is done.
#[derive(Debug)]
pub struct Quiet {
    /// How long that took.
    pub after: Duration,
    /// The CPU times when it was so: what is used while it is made sure of doesn't count.
    pub cpu: CpuTimes,
}

/// The counters at a time.
#[derive(Debug)]
pub struct Reading {
    /// Of the groups' processes and of PostgreSQL's living ones.
    pub cpu: CpuTimes,
    pub postgres: Vec<u32>,
    pub postgres_ended: Duration,
    /// Of all daemons.
    pub memory: Memory,
    pub queries: i64,
    pub reads: i64,
    pub commits: i64,
    pub wal_bytes: i64,
    pub disk_bytes: i64,
}

impl Meter {
    /// A meter for a database and the PostgreSQL it is in.
    pub async fn new(database: &TestDatabase) -> anyhow::Result<Self> {
        let client = database.server().connect("postgres").await?;
        client.batch_execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").await.context(
            "PostgreSQL has no pg_stat_statements: start it by `dev/postgres start FOLDER --durable`",
        )?;
        let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        let backend = backend.cast_unsigned();

        Ok(Self {
            client,
            backend,
            database: database.name().to_owned(),
            postmaster: processes::parent(backend)?,
            quiet_cpu: QUIET_CPU,
        })
    }

    /// Looks for a moment how much the groups and PostgreSQL do when nobody wants anything of them.
    pub async fn look_at_idleness(&mut self, groups: &[Group]) {
        let mut used = Vec::new();
        let mut last = self.cpu(groups);
        for _ in 0..IDLE_LOOKS {
            sleep(LOOK_EVERY).await;
            let now = self.cpu(groups);
            used.push(now.all_since(&last));
            last = now;
        }
        used.sort_unstable();
        self.quiet_cpu = QUIET_CPU + 2 * used[IDLE_LOOKS / 2];
    }

    /// Waits until nothing is under way any more, in the groups and in PostgreSQL: what was put off counts, too.
    pub async fn quiet(&self, groups: &[Group]) -> Quiet {
        let start = Instant::now();
        let mut quiet_looks = 0;
        let mut last = self.cpu(groups);
        let mut quiet = Quiet { after: Duration::ZERO, cpu: last.clone() };
        while quiet_looks < QUIET_LOOKS && start.elapsed() < PATIENCE {
            sleep(LOOK_EVERY).await;
            let now = self.cpu(groups);
            if now.all_since(&last) > self.quiet_cpu {
                quiet_looks = 0;
                quiet = Quiet { after: start.elapsed(), cpu: now.clone() };
            } else {
                quiet_looks += 1;
            }
            last = now;
        }

        quiet
    }

    /// Reads all counters now. A read is a query that looks at tables: not one that writes, nor one that takes numbers
    /// from a sequence, which is how a batch of writes begins.
    pub async fn read(&self, groups: &[Group]) -> anyhow::Result<Reading> {
        const SQL: &str = "
            SELECT coalesce(sum(calls) FILTER (WHERE query !~* '^(begin|start|commit|rollback)'), 0)::int8,
                   coalesce(sum(calls) FILTER (WHERE query ~* '^\\s*(select|with)'
                                                 AND query !~* '(insert|update|delete|nextval)[\\s(]'), 0)::int8,
                   coalesce(sum(calls) FILTER (WHERE query ~* '^commit'), 0)::int8,
                   pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::int8,
                   pg_database_size($1)
              FROM pg_stat_statements
             WHERE dbid = (SELECT oid FROM pg_database WHERE datname = $1)";

        let row =
            self.client.query_one(SQL, &[&self.database]).await.context("reading PostgreSQL's counters")?;
        let daemons = groups.iter().filter(|group| group.is_server);
        let daemons: Vec<u32> = daemons.flat_map(|group| group.processes.clone()).collect();

        Ok(Reading {
            cpu: self.cpu(groups),
            postgres: self.postgres(),
            postgres_ended: processes::cpu_of_ended_children(self.postmaster)?,
            memory: Memory::read(&daemons),
            queries: row.get(0),
            reads: row.get(1),
            commits: row.get(2),
            wal_bytes: row.get(3),
            disk_bytes: row.get(4),
        })
    }

    /// Forgets which statements there were, so that [`Meter::statements`] tells those that come from now on. The counters of a
    /// [`Reading`] start anew, too.
    pub async fn forget_statements(&self) -> anyhow::Result<()> {
        self.client.execute("SELECT pg_stat_statements_reset()", &[]).await?;

        Ok(())
    }

    /// The statements that took the most time since then: calls, milliseconds in all, text.
    pub async fn statements(&self) -> anyhow::Result<Vec<(i64, f64, String)>> {
        const SQL: &str = "
            SELECT calls, total_exec_time, regexp_replace(query, '\\s+', ' ', 'g')
              FROM pg_stat_statements
             WHERE dbid = (SELECT oid FROM pg_database WHERE datname = $1)
             ORDER BY total_exec_time DESC LIMIT 15";

        let rows = self.client.query(SQL, &[&self.database]).await?;

        Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
    }

    fn cpu(&self, groups: &[Group]) -> CpuTimes {
        let processes = groups.iter().flat_map(|group| group.processes.iter().copied());

        CpuTimes::read(processes.chain(self.postgres()))
    }

    /// PostgreSQL's processes that run now.
    fn postgres(&self) -> Vec<u32> {
        let children = processes::children(self.postmaster).into_iter();

        children.filter(|child| *child != self.backend).chain([self.postmaster]).collect()
    }
}
