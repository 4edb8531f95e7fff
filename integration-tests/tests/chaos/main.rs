//! Nothing that was acknowledged is lost, repeated or reordered, whatever happens to the processes of a cluster and to what
//! they stand on.
//!
//! Each case breaks something in the middle of a conversation and lets the [`invariants`](myelin_integration_tests::invariants)
//! judge. `make chaos` runs all of them; what takes long is left out of `make test`. With `MYELIN_CHAOS_REPORT` each case
//! leaves its figures in that file.

mod fleet;
mod network;
mod overload;
mod postgres;
mod processes;
mod redis;
mod standing_still;

use std::time::Duration;

use myelin_integration_tests::{
    Api, Cluster, Topology,
    load::{Load, Plan},
    nginx::Nginx,
    report::Row,
};
use myelin_testing::TestDatabase;
use serde_json::{Value, json};

/// What a process that was replaced ends with.
const REPLACED: i32 = 75;

/// A case of a family: how clients reach the cluster, and how much they say.
struct Case {
    family: &'static str,
    name: &'static str,
    plan: Plan,
    has_proxy: bool,
    fails_no_request: bool,
    waits_at_most: Option<Duration>,
}

impl Case {
    /// A case without a proxy: each request of each client goes to another process than the one before.
    fn new(family: &'static str, name: &'static str) -> Self {
        Self {
            family,
            name,
            plan: Plan::steady(),
            has_proxy: false,
            fails_no_request: false,
            waits_at_most: None,
        }
    }

    /// Clients reach the cluster through nginx.
    fn behind_nginx(self) -> Self {
        Self { has_proxy: true, ..self }
    }

    /// Says so much.
    fn saying(self, plan: Plan) -> Self {
        Self { plan, ..self }
    }

    /// Nobody may wait longer for an acknowledgment.
    fn waiting_at_most(self, longest: Duration) -> Self {
        Self { waits_at_most: Some(longest), ..self }
    }

    /// No request may fail, not even one that is repeated with success.
    fn failing_no_request(self) -> Self {
        Self { fails_no_request: true, ..self }
    }

    /// Breaks something in the middle of a load, and judges what all clients saw and how the processes end up.
    async fn survives(self, mut cluster: Cluster, fault: impl AsyncFnOnce(&mut Cluster)) {
        let nginx = self.has_proxy.then(|| Nginx::start(cluster.folder()));
        let everywhere = cluster.everywhere();
        let api = nginx.as_ref().map_or(&everywhere, Nginx::api);
        let load = Load::prepare(api, self.plan).await;
        let mut history = load.run(async || fault(&mut cluster).await).await;
        let ends = cluster.ends().await;
        let is_ready = |name: &str| ends.iter().any(|end| end.name == name && end.ready);
        let ready = cluster.serving().filter(|daemon| is_ready(daemon.name()));
        let ready: Vec<(&str, &Api)> = ready.map(|daemon| (daemon.name(), daemon.api())).collect();
        load.audit(&ready, &mut history).await;
        ends.into_iter().for_each(|end| history.process(end));
        Row::new(self.family, self.name, &history).record();
        assert!(history.acknowledged() >= self.plan.total());
        history.assert_holds();
        if let Some(longest) = self.waits_at_most {
            let waited = history.figures().longest_wait;
            assert!(waited <= longest, "somebody waited {waited:?}");
        }
        if self.fails_no_request {
            history.assert_no_request_failed();
        }
    }
}

/// The section `database` of a cluster's files, with hosts of the test's choice.
fn section(database: &TestDatabase, hosts: &str) -> Value {
    let user = database.server().user();
    json!({
        "name": "psycopg2",
        "args": { "host": hosts, "port": database.server().port(), "user": user, "dbname": database.name(), "cp_max": 10 },
    })
}

/// A cluster with two of each kind of process that shares its work.
async fn full() -> Cluster {
    Cluster::start(Topology::full()).await
}
