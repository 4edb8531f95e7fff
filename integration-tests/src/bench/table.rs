//! The figures as a table in a document: what was measured beside what is aimed at.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;

use crate::{report::Report, scenarios::SCENARIOS};

/// The document's places for the table.
const MARKS: [&str; 2] = ["<!-- figures: dev/bench --table writes them -->\n", "<!-- end of the figures -->"];

/// What a request to the empty handler took over eight connections where the goals were set, in milliseconds: on a slower machine
/// those for our own CPU time are higher.
const EMPTY_HANDLER_MS: f64 = 0.007;

/// What is aimed at: CPU time per operation in milliseconds, of our daemons and of PostgreSQL, of main alone.
const GOALS: &[(&str, f64, f64)] = &[
    ("idle", 0.2, 0.0),
    ("idle_worker_40", 2.0, 0.0),
    ("idle_worker_400", 15.0, 0.0),
    ("register", 0.2, 0.2),
    ("login", 0.2, 0.2),
    ("whoami", 0.02, 0.0),
    ("invites_and_joins", 3.0, 2.0),
    ("membership_500", 0.3, 0.15),
    ("send_64", 0.15, 0.08),
    ("fan_out", 0.025, 0.0),
    ("fan_out_20", 0.025, 0.0),
    ("sync_noop", 0.025, 0.0),
    ("initial_sync_cold", 40.0, 20.0),
    ("initial_sync_warm", 12.0, 0.0),
    ("initial_sync_lazy_cold", 60.0, 30.0),
    ("initial_sync_lazy_warm", 18.0, 0.0),
    ("messages", 0.2, 0.1),
    ("members_2000", 1.0, 0.0),
    ("keys_upload", 0.1, 0.15),
    ("keys_query", 0.06, 0.04),
    ("keys_claim", 0.03, 0.05),
    ("to_device", 0.08, 0.06),
    ("receipts", 0.03, 0.05),
    ("typing", 0.025, 0.0),
    ("ephemeral_storm", 0.5, 0.0),
    ("mixed", 1.0, 0.0),
];

/// Puts the table into a document, in the place of the one before.
pub fn write(path: &Path, reports: &[Report]) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let text = in_document(&text, &table(reports))
        .with_context(|| format!("{} has no place for the figures", path.display()))?;
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn in_document(document: &str, table: &str) -> Option<String> {
    let (before, rest) = document.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    Some(format!("{before}{}\n{table}\n{}{after}", MARKS[0], MARKS[1]))
}

fn table(reports: &[Report]) -> String {
    let mut text = "| scenario | an operation | our CPU, ms | × empty handler | PostgreSQL's CPU, ms | goal | queries, reads | WAL, B | ops/s | p50, p99, ms | memory, MB |\n\
                    | --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n"
        .to_owned();
    let handler = reports.iter().find(|report| report.scenario == "empty_handler_8");
    let slowness = handler.map_or(1.0, |handler| handler.server_cpu_ms_per_op / EMPTY_HANDLER_MS).max(1.0);
    for report in reports {
        let about = SCENARIOS
            .iter()
            .filter(|scenario| report.scenario.starts_with(scenario.name))
            .max_by_key(|scenario| scenario.name.len());
        let about =
            about.filter(|scenario| scenario.name == report.scenario).map_or("", |scenario| scenario.about);
        let multiple =
            report.server_cpu_x_empty_handler.map(|times| format!("{times:.1}")).unwrap_or_default();
        let name = match report.topology.as_str() {
            "cluster" => format!("{}, cluster", report.scenario),
            _ => report.scenario.clone(),
        };
        // Writing to a string doesn't fail.
        let _ = writeln!(
            text,
            "| {name} | {about} | {} | {multiple} | {} | {} | {}, {} | {:.0} | {:.0} | {:.1}, {:.1} | {:.0} |",
            digits(report.server_cpu_ms_per_op - report.hashing_cpu_ms_per_op.unwrap_or_default()),
            digits(report.postgres_cpu_ms_per_op),
            goal(report, slowness),
            digits(report.queries_per_op),
            digits(report.reads_per_op),
            report.wal_bytes_per_op,
            report.ops_per_second,
            report.latency_ms_p50,
            report.latency_ms_p99,
            report.rss_mb,
        );
    }
    text
}

/// The goal, and whether it is met: bold as it was set, in italics on a machine that is so much slower.
fn goal(report: &Report, slowness: f64) -> String {
    let Some((_, ours, postgres)) = GOALS.iter().find(|(scenario, ..)| *scenario == report.scenario) else {
        return String::new();
    };
    let hashing = report.hashing_cpu_ms_per_op.unwrap_or_default();
    let is_met = |slowness: f64| {
        report.server_cpu_ms_per_op - hashing <= *ours * slowness
            && (*postgres == 0.0 || report.postgres_cpu_ms_per_op <= *postgres)
    };
    let both = match *postgres {
        0.0 => ours.to_string(),
        postgres => format!("{ours} / {postgres}"),
    };
    match (is_met(1.0), is_met(slowness)) {
        (true, _) => format!("**{both}**"),
        (false, true) => format!("*{both}*"),
        (false, false) => both,
    }
}

/// Two or three digits that say something.
fn digits(value: f64) -> String {
    match value {
        value if value >= 10.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_takes_the_place_of_the_one_before() {
        let report = |scenario: &str, cpu| Report {
            scenario: scenario.to_owned(),
            server_cpu_ms_per_op: cpu,
            ..Report::default()
        };
        let document = format!("before\n{}old{}\nafter\n", MARKS[0], MARKS[1]);
        let written = in_document(&document, &table(&[report("whoami", 0.01), report("typing", 3.0)]));
        let written = written.expect("it has a place");
        assert!(written.starts_with("before\n") && written.ends_with("\nafter\n"), "{written}");
        assert!(!written.contains("old"));
        assert!(written.contains("| whoami |") && written.contains("| **0.02** |"), "{written}");
        assert!(written.contains("| 0.025 |"), "a goal that is missed: {written}");
        let slow = [report("empty_handler_8", 0.014), report("whoami", 0.03), report("typing", 0.051)];
        let written = table(&slow);
        assert!(written.contains("| *0.02* |") && written.contains("| 0.025 |"), "a slow machine: {written}");
        assert_eq!(in_document("nothing", ""), None);
    }

    #[test]
    fn goals_are_of_scenarios_that_there_are() {
        for (goal, ..) in GOALS {
            assert!(SCENARIOS.iter().any(|scenario| goal.starts_with(scenario.name)), "{goal}");
        }
    }
}
