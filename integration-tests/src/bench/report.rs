//! What is printed: one JSON line for each measurement.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    meter::Reading,
    processes::{Group, Memory},
};

/// The latencies of operations and how many of them failed.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One for each operation that succeeded.
    pub latencies: Vec<Duration>,
    /// How many failed.
    pub errors: usize,
}

impl Outcome {
    /// A number of operations that have no latency.
    pub fn of(ops: usize) -> Self {
        Self { latencies: vec![Duration::ZERO; ops], errors: 0 }
    }

    /// Those of several clients together.
    pub fn merged(outcomes: impl IntoIterator<Item = Self>) -> Self {
        outcomes.into_iter().fold(Self::default(), |mut all, one| {
            all.latencies.extend(one.latencies);
            all.errors += one.errors;
            all
        })
    }
}

/// The figures of a scenario.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub topology: String,
    pub scenario: String,
    pub ops: usize,
    pub errors: usize,
    pub seconds: f64,
    /// How long the processes were busy after the last answer. What they did then counts.
    pub seconds_until_quiet: f64,
    pub ops_per_second: f64,
    pub latency_ms_p50: f64,
    pub latency_ms_p95: f64,
    pub latency_ms_p99: f64,
    pub latency_ms_max: f64,
    /// Of all daemons.
    pub server_cpu_ms_per_op: f64,
    /// The same as a multiple of what a request to an empty handler costs, at 8 connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_x_empty_handler: Option<f64>,
    /// Within it: what hashing one password takes, as measured beside the homeserver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hashing_cpu_ms_per_op: Option<f64>,
    pub postgres_cpu_ms_per_op: f64,
    /// Of each group of processes, nginx and Redis included.
    pub cpu_ms_per_op: BTreeMap<String, f64>,
    pub queries_per_op: f64,
    pub reads_per_op: f64,
    pub commits_per_op: f64,
    pub wal_bytes_per_op: f64,
    pub disk_bytes_per_op: f64,
    /// Of all daemons, after the measurement.
    pub rss_mb: f64,
    /// The most that they held above what they held before.
    pub rss_mb_growth_at_peak: f64,
    pub rss_mb_by_group: BTreeMap<String, f64>,
}

/// Two readings and what lies between them.
#[derive(Debug)]
pub struct Measured {
    pub before: Reading,
    pub after: Reading,
    /// From the first request to the last answer.
    pub length: Duration,
    pub until_quiet: Duration,
    pub groups: Vec<Group>,
    pub outcome: Outcome,
}

impl Report {
    /// Makes the figures of what was measured.
    pub fn new(scenario: &str, measured: Measured) -> Self {
        let Measured { before, after, length, until_quiet, groups, mut outcome } = measured;
        let ops = outcome.latencies.len();
        let per_op = |amount: f64| rounded(amount / ops.max(1) as f64);
        let count = |after: i64, before: i64| per_op((after - before) as f64);
        let milliseconds = |cpu: Duration| per_op(cpu.as_secs_f64() * 1e3);
        outcome.latencies.sort_unstable();
        let quantile = |part: usize| {
            let latency = outcome.latencies.get((ops * part / 100).min(ops.saturating_sub(1)));
            rounded(latency.copied().unwrap_or_default().as_secs_f64() * 1e3)
        };
        let cpu = |group: &Group| after.cpu.since(&before.cpu, &group.processes);
        // Whoever of PostgreSQL's processes has ended meanwhile is counted whole among those, so what it had used before
        // is taken off.
        let ended: Vec<u32> =
            before.postgres.iter().copied().filter(|id| !after.postgres.contains(id)).collect();
        let used_before = before.cpu.since(&Default::default(), &ended);
        let postgres = (after.cpu.since(&before.cpu, &after.postgres)
            + after.postgres_ended.saturating_sub(before.postgres_ended))
        .saturating_sub(used_before);
        let by_group = |figure: &dyn Fn(&Group) -> f64| {
            groups.iter().map(|group| (group.name.clone(), figure(group))).collect()
        };

        Self {
            topology: String::new(),
            scenario: scenario.to_owned(),
            ops,
            errors: outcome.errors,
            seconds: rounded(length.as_secs_f64()),
            seconds_until_quiet: rounded(until_quiet.as_secs_f64()),
            ops_per_second: rounded(ops as f64 / length.as_secs_f64()),
            latency_ms_p50: quantile(50),
            latency_ms_p95: quantile(95),
            latency_ms_p99: quantile(99),
            latency_ms_max: quantile(100),
            server_cpu_ms_per_op: milliseconds(groups.iter().filter(|group| group.is_server).map(cpu).sum()),
            server_cpu_x_empty_handler: None,
            hashing_cpu_ms_per_op: None,
            postgres_cpu_ms_per_op: milliseconds(postgres),
            cpu_ms_per_op: by_group(&|group| milliseconds(cpu(group))),
            queries_per_op: count(after.queries, before.queries),
            reads_per_op: count(after.reads, before.reads),
            commits_per_op: count(after.commits, before.commits),
            wal_bytes_per_op: count(after.wal_bytes, before.wal_bytes),
            disk_bytes_per_op: count(after.disk_bytes, before.disk_bytes),
            rss_mb: rounded(after.memory.resident),
            rss_mb_growth_at_peak: rounded((after.memory.peak - before.memory.resident).max(0.0)),
            rss_mb_by_group: by_group(&|group| rounded(Memory::read(&group.processes).resident)),
        }
    }
}

/// Four digits after the point, a tenth of a microsecond, are more than these figures hold.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
