//! How the processes of a cluster are in the end.

use std::{collections::BTreeMap, fs, time::Duration};

use reqwest::Method;
use tokio::time::{Instant, interval};

use super::{Cluster, Plan, files::SECRET};
use crate::{Api, PATIENCE, invariants::ProcessEnd};

/// What a process may hold after a load of the size that tests make, in a build with debug assertions.
const MEMORY_BOUND: u64 = 192 << 20;

impl Cluster {
    /// How each process that should run is, as soon as all have recovered, or when they have had enough time.
    pub async fn ends(&self) -> Vec<ProcessEnd> {
        let deadline = Instant::now() + PATIENCE;
        let mut tick = interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            let mut ends = Vec::new();
            for (plan, daemon) in self.plans.iter().zip(&self.daemons) {
                // Those that myelin-ctl started in their place are not our children.
                if self.is_controlled || daemon.process_id().is_some() {
                    ends.push(end(plan).await);
                }
            }
            let have_recovered = ends.iter().all(|end| end.ready && end.lags.values().all(|lag| *lag == 0));
            if have_recovered || Instant::now() > deadline {
                return ends;
            }
        }
    }
}

async fn end(plan: &Plan) -> ProcessEnd {
    let api = Api::new(format!("http://127.0.0.1:{}", plan.replication_port));
    let answer = api.try_request(Method::GET, "/_myelin/status", Some(SECRET), None).await;
    let status = answer.map(|answer| answer.body).unwrap_or_default();
    let streams = status["streams"].as_object().into_iter().flatten();
    let lags: BTreeMap<_, _> =
        streams.map(|(name, stream)| (name.clone(), stream["lag"].as_i64().unwrap_or(i64::MAX))).collect();

    ProcessEnd {
        name: plan.name.clone(),
        ready: status["ready"] == true,
        lags,
        memory_bytes: status["pid"].as_u64().map_or(0, resident_bytes),
        memory_bound: MEMORY_BOUND,
    }
}

/// The resident memory of a process; none if it is gone.
pub fn resident_bytes(process: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = resident.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());

    kibibytes.unwrap_or_default() << 10
}
