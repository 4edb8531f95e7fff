//! Measures a release build, of `myelin-main` alone and of a cluster behind nginx: one JSON line per scenario.
//!
//! `make bench` builds and runs it, with a PostgreSQL of its own that syncs to disk. By hand:
//! `MYELIN_TEST_POSTGRES=socket-folder target/release/myelin-bench [--seconds N] [--topology single|cluster] [SCENARIO…]`
//!
//! Start reading at [`scenarios::SCENARIOS`], the table of what is measured; [`run::Run`] is what a scenario is given.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the output of this program")]

mod connection;
mod crew;
mod floors;
mod homeserver;
mod instructions;
mod meter;
mod nothing;
mod processes;
mod references;
mod report;
mod run;
mod scenarios;
mod table;
mod writer;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Parser;

use crate::{
    homeserver::Topology,
    references::References,
    report::Report,
    run::Run,
    scenarios::{SCENARIOS, Scenario},
};

/// How long a scenario may take, its preparations included, beside what it measures.
const PATIENCE: Duration = Duration::from_secs(240);

/// Measures what requests cost, one JSON line per measurement.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long each scenario is measured, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// One process, or a cluster behind nginx. Without it, each scenario runs where it says something.
    #[arg(long)]
    topology: Option<Topology>,
    /// Tell the scenarios, and measure nothing.
    #[arg(long)]
    list: bool,
    /// Tell the statements that took the most of PostgreSQL's time, on standard error.
    #[arg(long)]
    statements: bool,
    /// Also write the figures as a table into this document.
    #[arg(long, value_name = "DOCUMENT")]
    table: Option<PathBuf>,
    /// Count the instructions of the hot paths, of a daemon that runs under callgrind: see dev/bench-check.
    #[arg(long, hide = true)]
    instructions: bool,
    /// Serve the empty handler on a port; for the program's own use.
    #[arg(long, hide = true)]
    serve_nothing: Option<u16>,
    /// The database in which it writes what somebody wants written.
    #[arg(long, hide = true, requires = "serve_nothing")]
    database: Option<String>,
    /// Hear what a Redis tells, at this socket; for the program's own use.
    #[arg(long, hide = true)]
    hear_nothing: Option<PathBuf>,
    /// Scenarios, by their names or how these begin. Without any, all.
    scenarios: Vec<String>,
}

// One thread is enough for this load, and leaves the other core to the homeserver and PostgreSQL.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(port) = arguments.serve_nothing {
        nothing::serve(port, arguments.database).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(socket) = arguments.hear_nothing {
        floors::hear(socket).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.list {
        for Scenario { name, about, .. } in SCENARIOS {
            println!("{name:20} {about}");
        }
        println!("{:20} what lies below scenarios whatever a homeserver does", floors::NAME);
        return Ok(ExitCode::SUCCESS);
    }

    if arguments.instructions {
        for (path, count) in instructions::count().await? {
            println!("{path}\t{count}");
        }
        return Ok(ExitCode::SUCCESS);
    }

    let chosen = chosen(&arguments.scenarios)?;
    let (references, reports) = References::measure(Duration::from_secs(arguments.seconds))
        .await
        .context("measuring the references")?;
    print(&reports)?;
    let mut all = reports;
    if arguments.scenarios.is_empty() || arguments.scenarios.iter().any(|name| name == floors::NAME) {
        let floors = floors::measure(Duration::from_secs(arguments.seconds));
        let floors = floors.await.context("measuring the floors")?;
        print(&floors)?;
        all.extend(floors);
    }
    let mut exit = ExitCode::SUCCESS;
    for scenario in chosen {
        let topologies = match &arguments.topology {
            Some(topology) => std::slice::from_ref(topology),
            None => scenario.topologies,
        };
        for topology in topologies {
            if let Err(error) = run(scenario, *topology, &arguments, references, &mut all).await {
                eprintln!("{} ({}) failed: {error:#}", scenario.name, topology.name());
                exit = ExitCode::FAILURE;
            }
        }
    }
    if let Some(document) = &arguments.table {
        table::write(document, &all)?;
    }

    Ok(exit)
}

/// Runs a scenario on a homeserver and a database of its own, prints its figures and adds them to `all`.
async fn run(
    scenario: &Scenario,
    topology: Topology,
    arguments: &Arguments,
    references: References,
    all: &mut Vec<Report>,
) -> anyhow::Result<()> {
    let length = Duration::from_secs(arguments.seconds);
    let mut run = Run::start(topology, length, references).await?;
    run.tells_statements = arguments.statements;
    let ended = tokio::time::timeout(PATIENCE + 4 * length, (scenario.run)(&mut run)).await;
    let reports = run.into_reports();
    print(&reports)?;
    ended.context("it takes too long")??;
    let errors: usize = reports.iter().map(|report| report.errors).sum();
    all.extend(reports);
    ensure!(errors == 0, "{errors} operations failed");

    Ok(())
}

fn print(reports: &[Report]) -> anyhow::Result<()> {
    for report in reports {
        println!("{}", serde_json::to_string(report)?);
    }

    Ok(())
}

/// The scenarios that were asked for.
fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Scenario>> {
    for name in names {
        if name == floors::NAME {
            continue;
        }
        ensure!(
            SCENARIOS.iter().any(|scenario| scenario.name.starts_with(name)),
            "there is no scenario {name}: --list tells which there are"
        );
    }
    // A whole name means that one alone, even if others begin with it.
    let is_whole = |name: &str| SCENARIOS.iter().any(|scenario| scenario.name == name);
    let means = |name: &str, scenario: &Scenario| match is_whole(name) {
        true => scenario.name == name,
        false => scenario.name.starts_with(name),
    };
    let wanted = |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| means(name, scenario));

    Ok(SCENARIOS.iter().filter(wanted).collect())
}
