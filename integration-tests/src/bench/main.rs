//! Measures a release build, of `myelin-main` alone and of a cluster behind nginx: one JSON line per scenario.
//!
//! `make bench` builds and runs it, with a PostgreSQL of its own that syncs to disk. By hand:
//! `MYELIN_TEST_POSTGRES=socket-folder target/release/myelin-bench [--seconds N] [--topology single|cluster] [SCENARIO…]`

mod connection;
mod homeserver;
mod meter;
mod scenarios;

use std::{env, time::Duration};

use anyhow::{Context as _, bail};

use crate::{homeserver::Homeserver, meter::Report};

/// How long each scenario is measured unless the command line says otherwise.
const DEFAULT_SECONDS: u64 = 10;

const SCENARIOS: [&str; 5] = ["idle", "send", "sync_noop", "fan_out", "initial_sync"];

const TOPOLOGIES: [&str; 2] = ["single", "cluster"];

// One thread is enough for this load, and leaves the other core to the homeserver and PostgreSQL.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments { scenarios, length, topologies } = arguments()?;
    let runs =
        topologies.iter().flat_map(|topology| scenarios.iter().map(move |scenario| (topology, scenario)));
    for (topology, scenario) in runs {
        let reports = run(topology, scenario, length).await;
        for mut report in reports.with_context(|| format!("measuring {scenario} ({topology})"))? {
            report.topology.clone_from(topology);
            #[expect(clippy::print_stdout, reason = "the output of this program")]
            {
                println!("{}", serde_json::to_string(&report)?);
            }
        }
    }

    Ok(())
}

/// Runs a scenario on a homeserver and a database of its own.
async fn run(topology: &str, scenario: &str, length: Duration) -> anyhow::Result<Vec<Report>> {
    let mut server = Homeserver::start(topology).await;
    match scenario {
        "idle" => scenarios::idle(&mut server, length).await,
        "send" => scenarios::send(&mut server, length).await,
        "sync_noop" => scenarios::sync_noop(&mut server, length).await,
        "fan_out" => scenarios::fan_out(&mut server, length).await,
        "initial_sync" => scenarios::initial_sync(&mut server, length).await,
        other => bail!("there is no scenario {other}, only {}", SCENARIOS.join(", ")),
    }
}

/// What is measured.
struct Arguments {
    scenarios: Vec<String>,
    length: Duration,
    topologies: Vec<String>,
}

/// All scenarios by default, on both topologies.
fn arguments() -> anyhow::Result<Arguments> {
    let mut arguments = env::args().skip(1);
    let mut scenarios = Vec::new();
    let mut seconds = DEFAULT_SECONDS;
    let mut topologies = TOPOLOGIES.map(str::to_owned).to_vec();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => {
                let value = arguments.next().context("--seconds needs a number")?;
                seconds = value.parse().with_context(|| format!("{value} is no number of seconds"))?;
            }
            "--topology" => {
                let value = arguments.next().context("--topology needs a name")?;
                if !TOPOLOGIES.contains(&value.as_str()) {
                    bail!("there is no topology {value}, only {}", TOPOLOGIES.join(", "));
                }
                topologies = vec![value];
            }
            option if option.starts_with('-') => {
                bail!("there is no option {option}, only --seconds N and --topology NAME")
            }
            scenario => scenarios.push(scenario.to_owned()),
        }
    }
    if scenarios.is_empty() {
        scenarios = SCENARIOS.map(str::to_owned).to_vec();
    }

    Ok(Arguments { scenarios, length: Duration::from_secs(seconds), topologies })
}
