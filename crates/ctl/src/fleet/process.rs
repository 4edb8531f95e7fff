//! Processes of the system: found by their pid files, started, ended.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::Member;

/// How long a process may take to end: ten seconds for what is under way, and some to spare.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// How often to look whether something happened.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where the process writes its id: as its configuration says, or `NAME.pid` in the current folder.
pub(crate) fn pid_file(member: &Member) -> PathBuf {
    member.pid_file().map_or_else(|| format!("{}.pid", member.process.name).into(), Path::to_path_buf)
}

/// The process of a pid file, if it lives and runs this program: after a crash its number may be another's.
pub(crate) fn find(member: &Member) -> Option<Pid> {
    let text = fs::read_to_string(pid_file(member)).ok()?;
    let pid = Pid::from_raw(text.trim().parse().ok()?)?;
    is_ours(pid, &member.program()).then_some(pid)
}

fn is_ours(pid: Pid, program: &str) -> bool {
    let proc = format!("/proc/{}", pid.as_raw_nonzero());
    // A zombie has ended; nobody has asked it how.
    let state = fs::read_to_string(format!("{proc}/stat")).unwrap_or_default();
    if state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')) {
        return false;
    }
    let name = |path: &Path| {
        path.file_name().map(|name| name.to_string_lossy().trim_end_matches(" (deleted)").to_owned())
    };
    let by_exe = fs::read_link(format!("{proc}/exe")).ok().and_then(|exe| name(&exe));
    // Scripts are known by what they were called as.
    let arguments = fs::read(format!("{proc}/cmdline")).unwrap_or_default();
    let mut by_call = arguments
        .split(|byte| *byte == 0)
        .take(2)
        .filter_map(|argument| name(Path::new(std::str::from_utf8(argument).ok()?)));
    by_exe.as_deref() == Some(program) || by_call.any(|called| called == program)
}

/// Starts a process, detached from this one, with its output in a log beside its pid file.
pub(crate) fn spawn(member: &Member) -> anyhow::Result<Child> {
    let program = program(&member.program())?;
    let pid_file = pid_file(member);
    let log_path = pid_file.with_file_name(format!("{}.log", member.process.name));
    let log = fs::File::options().create(true).append(true).open(&log_path);
    let log = log.with_context(|| format!("opening {}", log_path.display()))?;
    let variable = if member.process.is_main() { "MYELIN_PID_FILE" } else { "MYELIN_WORKER_PID_FILE" };
    let mut command = Command::new(&program);
    for path in &member.config_paths {
        command.arg("--config-path").arg(path);
    }
    command
        .env(variable, std::path::absolute(&pid_file).context("finding the pid file")?)
        // Ctrl-C is for whoever called us.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("opening the log twice")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))
}

/// A daemon's program: beside this one, or where programs are looked for.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe().context("finding this program")?.with_file_name(name);
    Ok(if beside.is_file() { beside } else { name.into() })
}

/// The last lines of a process's log.
pub(crate) fn last_words(member: &Member) -> String {
    let path = pid_file(member).with_file_name(format!("{}.log", member.process.name));
    let log = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// Tells a process to end, and waits until it has.
pub(crate) fn end(member: &Member, pid: Pid, kill: bool) -> anyhow::Result<()> {
    let program = member.program();
    // It may have ended in this moment.
    let _ = kill_process(pid, Signal::TERM);
    if wait_for_end(pid, &program) {
        return Ok(());
    }
    if !kill {
        bail!(
            "{} (process {}) has not ended after {} seconds; `--kill` ends it in any case",
            member.process.name,
            pid.as_raw_nonzero(),
            END_PATIENCE.as_secs()
        );
    }
    let _ = kill_process(pid, Signal::KILL);
    if !wait_for_end(pid, &program) {
        bail!("{} can't be ended", member.process.name);
    }
    Ok(())
}

fn wait_for_end(pid: Pid, program: &str) -> bool {
    let deadline = Instant::now() + END_PATIENCE;
    while is_ours(pid, program) {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}
