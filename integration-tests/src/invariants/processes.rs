//! Processes in the end: ready, with nothing left to catch up with, and not grown.

use std::collections::BTreeMap;

use super::Violation;

/// How a process ended up, after it was given time to recover.
#[derive(Clone, Debug)]
pub struct ProcessEnd {
    /// Its name.
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// By stream, how many IDs it is behind what is committed.
    pub lags: BTreeMap<String, i64>,
    /// The memory that it holds.
    pub memory_bytes: u64,
    /// What it may hold at most.
    pub memory_bound: u64,
}

impl ProcessEnd {
    pub(super) fn violations(&self) -> Vec<Violation> {
        let name = &self.name;
        let mut violations = Vec::new();
        if !self.ready {
            violations.push(Violation(format!("{name} is not ready")));
        }
        for (stream, lag) in self.lags.iter().filter(|(_, lag)| **lag != 0) {
            violations.push(Violation(format!("{name} is {lag} behind in the stream {stream}")));
        }
        if self.memory_bytes > self.memory_bound {
            let mebibytes = |bytes: u64| bytes / (1 << 20);
            let (held, bound) = (mebibytes(self.memory_bytes), mebibytes(self.memory_bound));
            violations.push(Violation(format!("{name} holds {held} MiB, more than {bound}")));
        }

        violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::{History, check};

    fn end(ready: bool, lag: i64, mebibytes: u64) -> History {
        let mut history = History::default();
        history.process(ProcessEnd {
            name: "main".to_owned(),
            ready,
            lags: [("events".to_owned(), lag), ("receipts".to_owned(), 0)].into(),
            memory_bytes: mebibytes << 20,
            memory_bound: 100 << 20,
        });
        history
    }

    #[test]
    fn a_process_that_has_not_recovered_is_found() {
        check(&end(true, 0, 100), &[]);
        check(&end(false, 0, 50), &["main is not ready"]);
        check(&end(true, 3, 50), &["main is 3 behind in the stream events"]);
        check(&end(true, 0, 101), &["main holds 101 MiB, more than 100"]);
    }
}
