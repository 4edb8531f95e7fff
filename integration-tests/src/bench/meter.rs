//! What operations cost: CPU of the homeserver and of PostgreSQL, queries, WAL. These hold still on a noisy machine, where
//! latencies don't.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::Serialize;
use tokio_postgres::Client;

use crate::homeserver::Homeserver;

/// How many ticks of `/proc/*/stat` are a second: on Linux, always this many.
const TICKS_PER_SECOND: u64 = 100;

/// Reads the counters.
pub struct Meter {
    /// Connected to another database than the homeserver's, so that its own queries don't count.
    client: Client,
    database: String,
    postmaster: u32,
}

/// The counters at a time.
pub struct Reading {
    at: Instant,
    server_cpu: Duration,
    helpers_cpu: Duration,
    postgres_cpu: Duration,
    queries: i64,
    reads: i64,
    commits: i64,
    wal_bytes: i64,
}

/// The latencies of operations and how many of them failed.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One for each operation that succeeded.
    pub latencies: Vec<Duration>,
    /// How many failed.
    pub errors: usize,
}

/// What is printed: one line for each scenario.
#[derive(Debug, Serialize)]
pub struct Report {
    pub topology: String,
    scenario: String,
    ops: usize,
    errors: usize,
    seconds: f64,
    ops_per_second: f64,
    latency_ms_p50: f64,
    latency_ms_p95: f64,
    latency_ms_p99: f64,
    /// Of all daemons.
    server_cpu_ms_per_op: f64,
    /// Of nginx and Redis.
    helpers_cpu_ms_per_op: f64,
    postgres_cpu_ms_per_op: f64,
    queries_per_op: f64,
    reads_per_op: f64,
    commits_per_op: f64,
    wal_bytes_per_op: f64,
    rss_mb: f64,
}

impl Meter {
    /// A meter for a homeserver and the PostgreSQL below it.
    pub async fn new(server: &mut Homeserver) -> anyhow::Result<Self> {
        let client = server.database().server().connect("postgres").await?;
        client.batch_execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").await.context(
            "PostgreSQL has no pg_stat_statements: start it by `dev/postgres start FOLDER --durable`",
        )?;
        let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        let postmaster = Process::read(backend.cast_unsigned())?.parent;

        Ok(Self { client, database: server.database().name().to_owned(), postmaster })
    }

    /// Reads all counters now. A read is a query that looks at tables: not one that writes, nor one that takes numbers
    /// from a sequence, which is how a batch of writes begins.
    pub async fn read(&self, server: &mut Homeserver) -> anyhow::Result<Reading> {
        const SQL: &str = "
            SELECT coalesce(sum(calls) FILTER (WHERE query !~* '^(begin|start|commit|rollback)'), 0)::int8,
                   coalesce(sum(calls) FILTER (WHERE query ~* '^\\s*(select|with)'
                                                 AND query !~* '(insert|update|delete|nextval)[\\s(]'), 0)::int8,
                   coalesce(sum(calls) FILTER (WHERE query ~* '^commit'), 0)::int8,
                   pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::int8
              FROM pg_stat_statements
             WHERE dbid = (SELECT oid FROM pg_database WHERE datname = $1)";

        let row =
            self.client.query_one(SQL, &[&self.database]).await.context("reading PostgreSQL's counters")?;
        let cpu = |ids: Vec<u32>| -> anyhow::Result<Duration> {
            ids.into_iter().map(|id| Ok(Process::read(id)?.cpu)).sum()
        };

        Ok(Reading {
            at: Instant::now(),
            server_cpu: cpu(server.process_ids()?)?,
            helpers_cpu: cpu(server.helper_ids())?,
            postgres_cpu: self.postgres_cpu()?,
            queries: row.get(0),
            reads: row.get(1),
            commits: row.get(2),
            wal_bytes: row.get(3),
        })
    }

    /// All that PostgreSQL's processes have used, those that have ended included.
    fn postgres_cpu(&self) -> anyhow::Result<Duration> {
        let postmaster = Process::read(self.postmaster)?;
        let children = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|process| Process::read(process).ok())
            .filter(|process| process.parent == self.postmaster)
            .map(|process| process.cpu);

        Ok(postmaster.cpu + postmaster.cpu_of_ended_children + children.sum::<Duration>())
    }

    /// What happened since a reading.
    pub async fn report(
        &self,
        scenario: &str,
        server: &mut Homeserver,
        before: &Reading,
        mut outcome: Outcome,
    ) -> anyhow::Result<Report> {
        let after = self.read(server).await?;
        let seconds = (after.at - before.at).as_secs_f64();
        let ops = outcome.latencies.len();
        let per_op = |amount: f64| rounded(amount / ops.max(1) as f64);
        let count = |after: i64, before: i64| per_op((after - before) as f64);
        outcome.latencies.sort_unstable();
        let quantile = |part: usize| {
            let latency = outcome.latencies.get((ops * part / 100).min(ops.saturating_sub(1)));
            rounded(latency.copied().unwrap_or_default().as_secs_f64() * 1e3)
        };

        Ok(Report {
            topology: String::new(),
            scenario: scenario.to_owned(),
            ops,
            errors: outcome.errors,
            seconds: rounded(seconds),
            ops_per_second: rounded(ops as f64 / seconds),
            latency_ms_p50: quantile(50),
            latency_ms_p95: quantile(95),
            latency_ms_p99: quantile(99),
            server_cpu_ms_per_op: per_op((after.server_cpu - before.server_cpu).as_secs_f64() * 1e3),
            helpers_cpu_ms_per_op: per_op((after.helpers_cpu - before.helpers_cpu).as_secs_f64() * 1e3),
            postgres_cpu_ms_per_op: per_op((after.postgres_cpu - before.postgres_cpu).as_secs_f64() * 1e3),
            queries_per_op: count(after.queries, before.queries),
            reads_per_op: count(after.reads, before.reads),
            commits_per_op: count(after.commits, before.commits),
            wal_bytes_per_op: count(after.wal_bytes, before.wal_bytes),
            rss_mb: rounded(server.process_ids()?.into_iter().map(resident_mb).sum::<anyhow::Result<f64>>()?),
        })
    }
}

/// A line of `/proc/*/stat`.
struct Process {
    parent: u32,
    cpu: Duration,
    cpu_of_ended_children: Duration,
}

impl Process {
    fn read(id: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))
            .with_context(|| format!("process {id} is gone"))?;
        // The name of the program, in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(") ").context("/proc/*/stat has a name in it")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let number =
            |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
        let cpu =
            |index| Duration::from_millis((number(index) + number(index + 1)) * 1_000 / TICKS_PER_SECOND);

        Ok(Self {
            parent: u32::try_from(number(1)).context("process numbers are small")?,
            cpu: cpu(11),
            cpu_of_ended_children: cpu(13),
        })
    }
}

/// The memory that a process holds, in units of 10^6 bytes.
fn resident_mb(id: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process has memory")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("a size in kB")?;

    Ok(kib * 1024.0 / 1e6)
}

/// Three digits after the point are more than these figures hold.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
