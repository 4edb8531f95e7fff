//! One scenario's run: its homeserver, its measurements, and the shapes that a load can have.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::sleep_until;

use crate::{
    homeserver::{Homeserver, Topology},
    meter::{Meter, Reading},
    processes::{Group, forget_peaks},
    references::References,
    report::{Measured, Outcome, Report},
};

/// How long a scenario runs before it is measured: caches are filled, connections are open.
const WARM_UP: Duration = Duration::from_secs(2);

/// What a scenario is given.
pub struct Run {
    /// The homeserver, which is the scenario's own.
    pub server: Homeserver,
    /// How long to measure.
    pub length: Duration,
    /// What this machine takes for what nobody can do without.
    pub references: References,
    /// The statements that took the most of PostgreSQL's time are told after each measurement.
    pub tells_statements: bool,
    topology: Topology,
    meter: Meter,
    reports: Vec<Report>,
}

/// The counters before a load.
pub struct Begun {
    reading: Reading,
    at: Instant,
}

impl Run {
    /// Starts a homeserver.
    pub async fn start(topology: Topology, length: Duration, references: References) -> anyhow::Result<Self> {
        let mut server = Homeserver::start(topology).await;
        let mut meter = Meter::new(server.database()).await?;
        meter.look_at_idleness(&server.groups()).await;

        let tells_statements = false;

        Ok(Self { server, length, references, tells_statements, topology, meter, reports: Vec::new() })
    }

    /// The figures so far.
    pub fn into_reports(self) -> Vec<Report> {
        self.reports
    }

    /// Measures a load, once all that went before it is done.
    pub async fn measure(
        &mut self,
        name: &str,
        load: impl Future<Output = anyhow::Result<Outcome>>,
    ) -> anyhow::Result<&mut Report> {
        let begun = self.begin().await?;
        let outcome = load.await?;

        self.end(name, begun, outcome).await
    }

    /// Lets a load run for a moment, then measures it. The load is told its length and which of the two it is, so that
    /// what it makes has other names.
    pub async fn measure_warm(
        &mut self,
        name: &str,
        mut load: impl AsyncFnMut(Duration, &str) -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<&mut Report> {
        load(WARM_UP, "warm").await?;
        let begun = self.begin().await?;
        let outcome = load(self.length, "measured").await?;

        self.end(name, begun, outcome).await
    }

    /// Reads the counters once all is quiet.
    pub async fn begin(&mut self) -> anyhow::Result<Begun> {
        let groups = self.server.groups();
        self.meter.quiet(&groups).await;
        let daemons = groups.iter().filter(|group| group.is_server);
        daemons.for_each(|group| forget_peaks(&group.processes));
        if self.tells_statements {
            self.meter.forget_statements().await?;
        }
        let reading = self.meter.read(&groups).await?;

        Ok(Begun { reading, at: Instant::now() })
    }

    /// Waits until all is quiet again, and reports what happened since.
    pub async fn end(&mut self, name: &str, begun: Begun, outcome: Outcome) -> anyhow::Result<&mut Report> {
        let groups = self.server.groups();
        let mut report = measured(&self.meter, name, groups, begun, outcome).await?;
        self.topology.name().clone_into(&mut report.topology);
        report.server_cpu_x_empty_handler = self.references.as_multiple(report.server_cpu_ms_per_op);
        if self.tells_statements {
            self.tell_statements(&report).await?;
        }
        self.reports.push(report);

        Ok(self.reports.last_mut().expect("one was just added"))
    }
}

impl Run {
    async fn tell_statements(&self, report: &Report) -> anyhow::Result<()> {
        let ops = report.ops.max(1) as f64;
        eprintln!("{} ({}): calls and milliseconds per operation", report.scenario, report.topology);
        for (calls, milliseconds, text) in self.meter.statements().await? {
            eprintln!("  {:9.3} {:9.4}  {text}", calls as f64 / ops, milliseconds / ops);
        }

        Ok(())
    }
}

/// Measures something that is no homeserver.
pub async fn measure_other(
    meter: &Meter,
    name: &str,
    groups: Vec<Group>,
    load: impl Future<Output = anyhow::Result<Outcome>>,
) -> anyhow::Result<Report> {
    meter.quiet(&groups).await;
    let begun = Begun { reading: meter.read(&groups).await?, at: Instant::now() };
    let outcome = load.await?;
    let mut report = measured(meter, name, groups, begun, outcome).await?;
    "reference".clone_into(&mut report.topology);

    Ok(report)
}

async fn measured(
    meter: &Meter,
    name: &str,
    groups: Vec<Group>,
    begun: Begun,
    outcome: Outcome,
) -> anyhow::Result<Report> {
    let length = begun.at.elapsed();
    let quiet = meter.quiet(&groups).await;
    let after = Reading { cpu: quiet.cpu, ..meter.read(&groups).await? };
    let until_quiet = quiet.after;
    let measured = Measured { before: begun.reading, after, length, until_quiet, groups, outcome };

    Ok(Report::new(name, measured))
}

/// A closed loop: repeats an operation, at least once, until the time is over. It tells whether it was answered well; an
/// error ends the scenario.
pub async fn repeat(
    length: Duration,
    operation: impl AsyncFnMut(usize) -> anyhow::Result<bool>,
) -> anyhow::Result<Outcome> {
    repeat_at_most(length, usize::MAX, operation).await
}

/// As [`repeat`], until there is nothing more to be done.
pub async fn repeat_at_most(
    length: Duration,
    times: usize,
    mut operation: impl AsyncFnMut(usize) -> anyhow::Result<bool>,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let end = Instant::now() + length;
    for n in 0..times {
        let start = Instant::now();
        if n > 0 && start >= end {
            break;
        }
        match operation(n).await? {
            true => outcome.latencies.push(start.elapsed()),
            false => outcome.errors += 1,
        }
    }

    Ok(outcome)
}

/// Clients who each do their own load at the same time.
pub async fn at_once<C>(
    clients: impl IntoIterator<Item = C>,
    load: impl AsyncFn(usize, C) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Outcome> {
    let all = clients.into_iter().enumerate().map(|(number, client)| load(number, client));

    Ok(Outcome::merged(futures_util::future::try_join_all(all).await?))
}

/// How often something is to happen, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Times per second.
    pub per_second: usize,
    /// For how long.
    pub length: Duration,
}

impl Pace {
    /// How often that is in all.
    pub fn times(self) -> usize {
        (self.length.as_secs_f64() * self.per_second as f64) as usize
    }

    /// When the operation of a number is due.
    pub fn due(self, start: Instant, number: usize) -> Instant {
        start + Duration::from_secs_f64(number as f64 / self.per_second as f64)
    }
}

/// An open loop: operations begin when they are due, however long those before take, and their latency counts from then.
/// Each takes a client that is free; there must be enough of them.
pub async fn paced<C>(
    pace: Pace,
    clients: Vec<C>,
    operation: impl AsyncFn(&mut C, usize) -> anyhow::Result<bool>,
) -> anyhow::Result<Outcome> {
    let mut free = clients;
    let mut busy = FuturesUnordered::new();
    let mut outcome = Outcome::default();
    let start = Instant::now();
    for number in 0..pace.times() {
        let due = pace.due(start, number);
        loop {
            tokio::select! {
                () = sleep_until(due.into()), if !free.is_empty() => break,
                Some(done) = busy.next() => finish(done, &mut free, &mut outcome)?,
                else => ensure!(false, "an open loop needs a client"),
            }
        }
        let mut client = free.pop().expect("one is free");
        let operation = &operation;
        busy.push(async move {
            let succeeded = operation(&mut client, number).await;
            (client, succeeded, due.elapsed())
        });
    }
    while let Some(done) = busy.next().await {
        finish(done, &mut free, &mut outcome)?;
    }

    Ok(outcome)
}

fn finish<C>(
    (client, succeeded, latency): (C, anyhow::Result<bool>, Duration),
    free: &mut Vec<C>,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    free.push(client);
    match succeeded? {
        true => outcome.latencies.push(latency),
        false => outcome.errors += 1,
    }

    Ok(())
}
