//! What each case of the fault suite cost, one line of JSON a case, for the table in `docs/reliability.md`.

use std::{env, fs, io::Write as _, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::invariants::History;

/// The environment's name for the file that rows are appended to.
const FILE: &str = "MYELIN_CHAOS_REPORT";

/// A case and what it cost.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Row {
    /// The kind of fault.
    pub family: String,
    /// What was broken.
    pub case: String,
    /// How many messages were acknowledged.
    pub messages: usize,
    /// How many requests failed and were repeated.
    pub requests_failed: usize,
    /// The longest time that anybody waited until a message was acknowledged.
    pub longest_wait_seconds: f64,
    /// From the last acknowledgment until everybody had seen everything.
    pub seen_after_seconds: f64,
    /// How many invariants did not hold.
    pub violations: usize,
}

impl Row {
    /// What is told of a case.
    pub fn new(family: &str, case: &str, history: &History) -> Self {
        let figures = history.figures();
        Self {
            family: family.to_owned(),
            case: case.to_owned(),
            messages: history.acknowledged(),
            requests_failed: history.requests_failed(),
            longest_wait_seconds: figures.longest_wait.as_secs_f64(),
            seen_after_seconds: figures.seen_after.as_secs_f64(),
            violations: history.violations().len(),
        }
    }

    /// Appends the row to the file that `MYELIN_CHAOS_REPORT` names, if there is one.
    ///
    /// # Panics
    ///
    /// If it can't be written.
    pub fn record(&self) {
        let Some(path) = env::var_os(FILE).map(PathBuf::from) else { return };
        let line = serde_json::to_string(self).expect("a row has only texts and numbers") + "\n";
        let file = fs::File::options().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// Where the table stands in a document.
const MARKS: [&str; 2] = ["<!-- table: make chaos writes it -->\n", "<!-- end of the table -->"];

/// The rows of a file that cases appended to.
///
/// # Errors
///
/// With the first line that is no row.
pub fn rows(text: &str) -> Result<Vec<Row>, serde_json::Error> {
    text.lines().map(serde_json::from_str).collect()
}

/// A document with the table of these rows in the place of the one before; `None` if it has no such place.
pub fn in_document(document: &str, rows: &[Row]) -> Option<String> {
    let (before, rest) = document.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;

    Some(format!("{before}{}\n{}\n{}{after}", MARKS[0], table(rows), MARKS[1]))
}

/// The rows as a table in Markdown, by family. Of rows of the same case the last one counts.
pub fn table(rows: &[Row]) -> String {
    let mut text = "| fault | what is broken | messages | requests that failed | longest wait | all seen after | violations |\n\
                    | --- | --- | --: | --: | --: | --: | --: |\n"
        .to_owned();
    let mut last: Vec<&Row> = Vec::new();
    for row in rows {
        match last.iter_mut().find(|known| (&known.family, &known.case) == (&row.family, &row.case)) {
            Some(known) => *known = row,
            None => last.push(row),
        }
    }
    last.sort_by(|one, other| one.family.cmp(&other.family));
    for row in last {
        text += &format!(
            "| {} | {} | {} | {} | {:.1} s | {:.1} s | {} |\n",
            row.family,
            row.case,
            row.messages,
            row.requests_failed,
            row.longest_wait_seconds,
            row.seen_after_seconds,
            row.violations
        );
    }

    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_takes_the_place_of_the_one_before() {
        let [begin, end] = MARKS;
        let written = in_document(&format!("above\n{begin}old\n{end}\nbelow\n"), &[]).unwrap();
        assert!(written.starts_with(&format!("above\n{begin}\n| fault |")), "{written}");
        assert!(written.ends_with(&format!("|\n\n{end}\nbelow\n")), "{written}");
        assert!(!written.contains("old"));
        assert_eq!(in_document(&written, &[]).as_deref(), Some(&*written));
        assert_eq!(in_document("nothing", &[]), None);
    }

    #[test]
    fn a_table_has_the_last_row_of_each_case() {
        let row = |family: &str, case: &str, messages| Row {
            family: family.to_owned(),
            case: case.to_owned(),
            messages,
            requests_failed: 2,
            longest_wait_seconds: 1.25,
            seen_after_seconds: 0.0,
            violations: 0,
        };
        let rows = [row("redis", "gone", 1), row("processes", "killed", 2), row("redis", "gone", 3)];
        let lines: Vec<_> = table(&rows).lines().skip(2).map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "| processes | killed | 2 | 2 | 1.2 s | 0.0 s | 0 |",
                "| redis | gone | 3 | 2 | 1.2 s | 0.0 s | 0 |"
            ]
        );
    }
}
