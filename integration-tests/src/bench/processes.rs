//! What the kernel knows of processes: their CPU time and memory.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::Context as _;

/// How many ticks of `/proc/*/stat` are a second: on Linux, always this many.
const TICKS_PER_SECOND: u64 = 100;

/// Processes whose figures are told together.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they are called in the report.
    pub name: String,
    /// They are what is measured, not something around it (nginx, Redis).
    pub is_server: bool,
    /// Their numbers.
    pub processes: Vec<u32>,
}

impl Group {
    /// Processes of the homeserver.
    pub fn server(name: impl Into<String>, processes: Vec<u32>) -> Self {
        Self { name: name.into(), is_server: true, processes }
    }

    /// Processes that stand around it.
    pub fn helper(name: impl Into<String>, processes: Vec<u32>) -> Self {
        Self { name: name.into(), is_server: false, processes }
    }
}

/// CPU time of processes since each began, by their number.
#[derive(Clone, Debug, Default)]
pub struct CpuTimes(BTreeMap<u32, Duration>);

impl CpuTimes {
    /// Reads those of some processes. Who has ended meanwhile is left out.
    pub fn read(processes: impl IntoIterator<Item = u32>) -> Self {
        Self(processes.into_iter().filter_map(|id| Some((id, cpu_time(id).ok()?))).collect())
    }

    /// What some processes have used since; a process that was not there yet began with nothing.
    pub fn since(&self, before: &Self, processes: &[u32]) -> Duration {
        let used = |id: &u32| {
            let now = self.0.get(id).copied().unwrap_or_default();
            now.saturating_sub(before.0.get(id).copied().unwrap_or_default())
        };

        processes.iter().map(used).sum()
    }

    /// What all processes have used since.
    pub fn all_since(&self, before: &Self) -> Duration {
        self.since(before, &self.0.keys().copied().collect::<Vec<_>>())
    }
}

/// The processes that a process has started and that still run.
pub fn children(id: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();

    children.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// The process that has started a process.
pub fn parent(id: u32) -> anyhow::Result<u32> {
    u32::try_from(Stat::read(id)?.number(1)).context("process numbers are small")
}

/// What those children of a process have used that have ended.
pub fn cpu_of_ended_children(id: u32) -> anyhow::Result<Duration> {
    Ok(Stat::read(id)?.ticks(13))
}

/// The CPU time of a process: to the nanosecond by its threads, unless some of them have ended, whose share only the
/// clock of the whole process knows, in steps of 10 ms.
fn cpu_time(id: u32) -> anyhow::Result<Duration> {
    let mut threads = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{id}/task"))?.flatten() {
        // One that ends at this moment is in the other sum.
        let line = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        threads +=
            Duration::from_nanos(line.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default());
    }

    Ok(threads.max(Stat::read(id)?.ticks(11)))
}

/// The fields of `/proc/*/stat` after the program's name.
struct Stat(Vec<u64>);

impl Stat {
    fn read(id: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))
            .with_context(|| format!("process {id} is gone"))?;
        // The name of the program, in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(") ").context("/proc/*/stat has a name in it")?;

        Ok(Self(fields.split(' ').map(|field| field.parse().unwrap_or_default()).collect()))
    }

    fn number(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or_default()
    }

    /// User and system time, which stand side by side.
    fn ticks(&self, index: usize) -> Duration {
        Duration::from_millis((self.number(index) + self.number(index + 1)) * 1_000 / TICKS_PER_SECOND)
    }
}

/// The memory of some processes, in units of 10^6 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// What they hold now.
    pub resident: f64,
    /// The most that they held at any time since [`forget_peaks`].
    pub peak: f64,
}

impl Memory {
    /// Reads that of some processes. Who has ended has none.
    pub fn read(processes: &[u32]) -> Self {
        let one = |id: &u32| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let size = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key));
                let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
                kib.unwrap_or_default() * 1024.0 / 1e6
            };
            Self { resident: size("VmRSS:"), peak: size("VmHWM:") }
        };

        processes.iter().map(one).fold(Self::default(), |all, one| Self {
            resident: all.resident + one.resident,
            peak: all.peak + one.peak,
        })
    }
}

/// Lets the peaks of the processes' memory begin with what they hold now.
pub fn forget_peaks(processes: &[u32]) {
    for id in processes {
        // Where the kernel doesn't let us, the peak is that since the start.
        drop(fs::write(format!("/proc/{id}/clear_refs"), "5"));
    }
}
