//! Measures a release build of `myelin-main`: one JSON line per scenario.
//!
//! `make bench` builds and runs it, with a PostgreSQL of its own that syncs to disk. By hand:
//! `MYELIN_TEST_POSTGRES=socket-folder target/release/myelin-bench [--seconds N] [SCENARIO…]`

mod connection;
mod meter;
mod scenarios;

use std::{env, time::Duration};

use anyhow::{Context as _, bail};
use myelin_integration_tests::Server;

use crate::meter::Report;

/// How long each scenario is measured unless the command line says otherwise.
const DEFAULT_SECONDS: u64 = 10;

const SCENARIOS: [&str; 5] = ["idle", "send", "sync_noop", "fan_out", "initial_sync"];

// One thread is enough for this load, and leaves the other core to the homeserver and PostgreSQL.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (scenarios, length) = arguments()?;
    for scenario in scenarios {
        for report in run(&scenario, length).await.with_context(|| format!("measuring {scenario}"))? {
            #[expect(clippy::print_stdout, reason = "the output of this program")]
            {
                println!("{}", serde_json::to_string(&report)?);
            }
        }
    }

    Ok(())
}

/// Runs a scenario on a homeserver and a database of its own.
async fn run(scenario: &str, length: Duration) -> anyhow::Result<Vec<Report>> {
    let mut server = Server::start_default().await;
    match scenario {
        "idle" => scenarios::idle(&mut server, length).await,
        "send" => scenarios::send(&mut server, length).await,
        "sync_noop" => scenarios::sync_noop(&mut server, length).await,
        "fan_out" => scenarios::fan_out(&mut server, length).await,
        "initial_sync" => scenarios::initial_sync(&mut server, length).await,
        other => bail!("there is no scenario {other}, only {}", SCENARIOS.join(", ")),
    }
}

/// The scenarios to run, all of them by default, and the length of each.
fn arguments() -> anyhow::Result<(Vec<String>, Duration)> {
    let mut arguments = env::args().skip(1);
    let mut scenarios = Vec::new();
    let mut seconds = DEFAULT_SECONDS;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => {
                let value = arguments.next().context("--seconds needs a number")?;
                seconds = value.parse().with_context(|| format!("{value} is no number of seconds"))?;
            }
            option if option.starts_with('-') => bail!("there is no option {option}, only --seconds N"),
            scenario => scenarios.push(scenario.to_owned()),
        }
    }
    if scenarios.is_empty() {
        scenarios = SCENARIOS.map(str::to_owned).to_vec();
    }

    Ok((scenarios, Duration::from_secs(seconds)))
}
