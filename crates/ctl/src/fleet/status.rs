//! `status`: how every process is.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use clap::Args;
use myelin_config::{Address, ResourceName};
use reqwest::Client as HttpClient;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::{Fleet, Member, control::Which, process};

/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells how processes are.
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    which: Which,
    /// As JSON, an array of objects.
    #[arg(long)]
    json: bool,
}

/// How a process is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    pub process: String,
    pub role: String,
    pub version: Option<String>,
    pub pid: Option<i32>,
    /// `ready`, `not ready`, `not answering` or `stopped`.
    pub state: String,
    pub ready: bool,
    pub conditions: BTreeMap<String, bool>,
    pub leases: BTreeMap<String, u64>,
    pub streams: BTreeMap<String, Stream>,
    pub queues: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stream {
    pub position: String,
    pub lag: i64,
}

/// Asks one process.
pub(crate) struct Client {
    runtime: Runtime,
    http: HttpClient,
    health: String,
    status: Option<String>,
    secret: Option<String>,
}

impl Client {
    /// `None` for a process that listens nowhere.
    pub fn new(member: &Member) -> anyhow::Result<Option<Self>> {
        let Some(health) = member.health_address() else { return Ok(None) };
        // What answers for its status answers for its health too.
        let replication = member.address(&[ResourceName::Replication]);
        let address = replication.clone().unwrap_or(health);
        // A certificate is for the name by which others know the server; here it is only asked whether it is there.
        let builder =
            HttpClient::builder().timeout(PATIENCE).no_proxy().tls_danger_accept_invalid_certs(true);
        let builder = match &address {
            Address::Tcp { .. } => builder,
            Address::Unix(path) => builder.unix_socket(path.as_path()),
        };
        let base = address.base_url();
        let secret = member.config.workers.worker_replication_secret.as_ref();
        Ok(Some(Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("a runtime")?,
            http: builder.build().context("an HTTP client")?,
            health: format!("{base}/health/ready"),
            status: replication.map(|_| format!("{base}/_myelin/status")),
            secret: secret.map(|secret| secret.expose().to_owned()),
        }))
    }

    /// Whether the process says that it is ready.
    pub fn is_ready(&self) -> bool {
        self.state().is_some_and(|is_ready| is_ready)
    }

    /// `None`: it does not answer.
    fn state(&self) -> Option<bool> {
        let answer = self.runtime.block_on(async { self.http.get(&self.health).send().await });
        answer.ok().map(|answer| answer.status().is_success())
    }

    fn report(&self) -> Option<Report> {
        let url = self.status.as_ref()?;
        let mut request = self.http.get(url);
        if let Some(secret) = &self.secret {
            request = request.bearer_auth(secret);
        }
        let asked = async { request.send().await?.error_for_status()?.json::<Report>().await };
        self.runtime.block_on(asked).ok()
    }
}

/// Prints how the processes are; fails if one is not ready.
#[expect(clippy::print_stdout, reason = "a command line program talks to its terminal")]
pub(crate) fn run(arguments: &Status) -> anyhow::Result<()> {
    let fleet = arguments.which.load()?;
    let reports = reports(&fleet)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    } else {
        print!("{}", table(&reports));
    }
    let unready = reports.iter().filter(|report| !report.ready).count();
    match unready {
        0 => Ok(()),
        _ => anyhow::bail!("{unready} of {} processes are not ready", reports.len()),
    }
}

fn reports(fleet: &Fleet) -> anyhow::Result<Vec<Report>> {
    fleet.members.iter().map(report).collect()
}

fn report(member: &Member) -> anyhow::Result<Report> {
    let client = Client::new(member)?;
    let pid = process::find(member).map(|pid| pid.as_raw_nonzero().get());
    let mut report = client.as_ref().and_then(Client::report).unwrap_or_default();
    let answer = client.as_ref().and_then(Client::state);
    report.process.clone_from(&member.process.name);
    member.role().name().clone_into(&mut report.role);
    report.pid = report.pid.or(pid);
    // Who listens nowhere and runs has nobody to tell.
    report.ready = answer.unwrap_or(client.is_none() && pid.is_some());
    report.state = match (answer, pid) {
        _ if report.ready => "ready",
        (Some(_), _) => "not ready",
        (None, Some(_)) => "not answering",
        (None, None) => "stopped",
    }
    .to_owned();
    Ok(report)
}

fn table(reports: &[Report]) -> String {
    let heads = ["PROCESS", "ROLE", "VERSION", "PID", "STATE", "LEASES", "LAG", "QUEUES"].map(str::to_owned);
    let rows = reports.iter().map(|report| {
        let counts = |counts: &BTreeMap<String, u64>| {
            let present = counts.iter().filter(|(_, count)| **count > 0);
            let words: Vec<String> = present.map(|(name, count)| format!("{name} {count}")).collect();
            if words.is_empty() { "-".to_owned() } else { words.join(", ") }
        };
        let unmet: Vec<&str> =
            report.conditions.iter().filter(|(_, met)| !**met).map(|(name, _)| name.as_str()).collect();
        let state = if unmet.is_empty() {
            report.state.clone()
        } else {
            format!("{}: no {}", report.state, unmet.join(", "))
        };
        let behind: Vec<String> = report
            .streams
            .iter()
            .filter(|(_, stream)| stream.lag > 0)
            .map(|(name, stream)| format!("{name} {}", stream.lag))
            .collect();
        let lag = match (report.streams.is_empty(), behind.is_empty()) {
            (true, _) => "-".to_owned(),
            (false, true) => "0".to_owned(),
            (false, false) => behind.join(", "),
        };
        [
            report.process.clone(),
            report.role.clone(),
            report.version.clone().unwrap_or_else(|| "-".to_owned()),
            report.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            state,
            counts(&report.leases),
            lag,
            counts(&report.queues),
        ]
    });
    let rows: Vec<[String; 8]> = [heads].into_iter().chain(rows).collect();
    let widths: Vec<usize> = (0..8)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
        .collect();
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_wrong() {
        let well = Report {
            process: "main".to_owned(),
            role: "main".to_owned(),
            version: Some("0.1.0".to_owned()),
            pid: Some(12),
            state: "ready".to_owned(),
            ready: true,
            conditions: [("database".to_owned(), true)].into(),
            leases: [("events".to_owned(), 64)].into(),
            streams: [("events".to_owned(), Stream::default())].into(),
            queues: [("look".to_owned(), 0), ("write events".to_owned(), 5)].into(),
        };
        let behind = Stream { position: "3".to_owned(), lag: 7 };
        let ill = Report {
            process: "w1".to_owned(),
            role: "generic-worker".to_owned(),
            state: "not ready".to_owned(),
            conditions: [("database".to_owned(), false)].into(),
            streams: [("events".to_owned(), behind)].into(),
            ..Report::default()
        };
        assert_eq!(
            table(&[well, ill]),
            "PROCESS  ROLE            VERSION  PID  STATE                   LEASES     LAG       QUEUES\n\
             main     main            0.1.0    12   ready                   events 64  0         write events 5\n\
             w1       generic-worker  -        -    not ready: no database  -          events 7  -\n"
        );
    }
}
