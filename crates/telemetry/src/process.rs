//! What the process itself uses, as Linux tells it.

use metrics::{counter, gauge};

/// Ticks of `/proc/self/stat` in a second: the same on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// Notes memory and CPU time under the names that Prometheus' own clients use. Does nothing where there is no `/proc`.
pub(crate) fn measure() {
    if let Some(bytes) = resident_bytes() {
        gauge!("process_resident_memory_bytes").set(bytes);
    }
    if let Some(seconds) = cpu_seconds() {
        // Whole seconds: a counter here is an integer.
        counter!("process_cpu_seconds_total").absolute(seconds as u64);
    }
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok().map(|kib| kib * 1024.0)
}

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_memory() {
        assert!(resident_bytes().is_none_or(|bytes| bytes > 100_000.0));
        assert!(cpu_seconds().is_none_or(|seconds| seconds >= 0.0));
    }
}
