//! The figures as a table in a document: what was measured beside what is aimed at.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;

use crate::{report::Report, scenarios::SCENARIOS};

/// The document's places for the table.
const MARKS: [&str; 2] = ["<!-- figures: dev/bench --table writes them -->\n", "<!-- end of the figures -->"];

/// What a request to the empty handler took over eight connections where the goals were set, in milliseconds.
const EMPTY_HANDLER_MS: f64 = 0.007;

/// What a row committed alone took PostgreSQL there, in milliseconds.
const COMMIT_MS: f64 = 0.086;

/// How many times as much CPU time this machine takes for the references as the one where the goals were set: as much more may be
/// taken for what is aimed at.
struct Slowness {
    ours: f64,
    postgres: f64,
}

impl Slowness {
    fn of(reports: &[Report]) -> Self {
        let times = |scenario: &str, took: fn(&Report) -> f64, there: f64| {
            let here = reports.iter().find(|report| report.scenario == scenario);
            here.map_or(1.0, |report| took(report) / there).max(1.0)
        };
        Self {
            ours: times("empty_handler_8", |report| report.server_cpu_ms_per_op, EMPTY_HANDLER_MS),
            postgres: times("postgres_commit_of_1", |report| report.postgres_cpu_ms_per_op, COMMIT_MS),
        }
    }
}

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
    let slowness = Slowness::of(reports);
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
            goal(report, &slowness),
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

/// What is aimed at, and whether it is met.
fn goal(report: &Report, slowness: &Slowness) -> String {
    let Some((_, ours, postgres)) = GOALS.iter().find(|(scenario, ..)| *scenario == report.scenario) else {
        return String::new();
    };
    let hashing = report.hashing_cpu_ms_per_op.unwrap_or_default();
    let ours = marked(*ours, report.server_cpu_ms_per_op - hashing, slowness.ours);
    match *postgres {
        0.0 => ours,
        goal => format!("{ours} / {}", marked(goal, report.postgres_cpu_ms_per_op, slowness.postgres)),
    }
}

/// A goal: bold if it is met as it was set, in italics if it is on a machine that is so much slower.
fn marked(goal: f64, measured: f64, slowness: f64) -> String {
    match measured {
        measured if measured <= goal => format!("**{goal}**"),
        measured if measured <= goal * slowness => format!("*{goal}*"),
        _ => goal.to_string(),
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

    fn report(scenario: &str, cpu: f64) -> Report {
        Report { scenario: scenario.to_owned(), server_cpu_ms_per_op: cpu, ..Report::default() }
    }

    #[test]
    fn the_table_takes_the_place_of_the_one_before() {
        let document = format!("before\n{}old{}\nafter\n", MARKS[0], MARKS[1]);
        let written = in_document(&document, &table(&[report("whoami", 0.01), report("typing", 3.0)]));
        let written = written.expect("it has a place");
        assert!(written.starts_with("before\n") && written.ends_with("\nafter\n"), "{written}");
        assert!(!written.contains("old"));
        assert!(written.contains("| whoami |") && written.contains("| **0.02** |"), "{written}");
        assert!(written.contains("| 0.025 |"), "a goal that is missed: {written}");
        assert_eq!(in_document("nothing", ""), None);
    }

    #[test]
    fn goals_are_as_much_higher_as_the_machine_is_slower_than_where_they_were_set() {
        let commit = Report { postgres_cpu_ms_per_op: 0.172, ..report("postgres_commit_of_1", 0.0) };
        let login = Report { postgres_cpu_ms_per_op: 0.41, ..report("login", 0.19) };
        let register = Report { postgres_cpu_ms_per_op: 0.39, ..report("register", 0.41) };
        let slow = [report("empty_handler_8", 0.014), commit, report("whoami", 0.03), login, register];
        let goals: Vec<String> = slow.iter().map(|report| goal(report, &Slowness::of(&slow))).collect();
        assert_eq!(goals, ["", "", "*0.02*", "**0.2** / 0.2", "0.2 / *0.2*"]);
    }

    #[test]
    fn goals_are_of_scenarios_that_there_are() {
        for (goal, ..) in GOALS {
            assert!(SCENARIOS.iter().any(|scenario| goal.starts_with(scenario.name)), "{goal}");
        }
    }
}
