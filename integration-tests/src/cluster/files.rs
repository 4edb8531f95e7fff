//! The processes of a cluster and their configuration.

use std::{ffi::OsString, path::Path};

use myelin_testing::{TestDatabase, certificate, free_port};
use serde_json::{Value, json};

use super::Topology;
use crate::server::configuration;

/// The secret that the processes of a cluster share.
pub(super) const SECRET: &str = "of no use outside of this test";

/// The senders to other servers, of which there may be several.
const FEDERATION_SENDER: &str = "synapse.app.federation_sender";

/// The daemons that a cluster may have one of each of: program, `worker_app`, name.
const OTHERS: [(&str, &str, &str); 5] = [
    ("myelin-pusher", "synapse.app.pusher", "pusher1"),
    ("myelin-appservice-sender", "synapse.app.appservice", "appservice1"),
    ("myelin-federation-sender", "synapse.app.federation_sender", "federation1"),
    ("myelin-media-repo", "synapse.app.media_repository", "media1"),
    ("myelin-user-dir", "synapse.app.user_dir", "users1"),
];

/// A process to be: its program and name, what it listens on, and its own file.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) program: &'static str,
    pub(super) app: Option<&'static str>,
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) replication_port: u16,
    pub(super) tls: bool,
}

impl Plan {
    pub(super) fn new(program: &'static str, app: Option<&'static str>, name: impl Into<String>) -> Self {
        Self { program, app, name: name.into(), port: free_port(), replication_port: free_port(), tls: false }
    }

    /// What it serves to the outside. Those who send have better to do, as in `deploy/example`; whether they are ready is told on
    /// any listener.
    fn serves(&self) -> &'static [&'static str] {
        match self.program {
            "myelin-pusher" | "myelin-appservice-sender" | "myelin-federation-sender" => &["metrics"],
            _ => &["client", "federation"],
        }
    }

    fn listeners(&self) -> Value {
        json!([
            {
                "port": self.port, "type": "http", "bind_addresses": ["127.0.0.1"], "x_forwarded": true,
                "resources": [{ "names": self.serves() }],
            },
            {
                "port": self.replication_port, "type": "http", "bind_addresses": ["127.0.0.1"], "tls": self.tls,
                "resources": [{ "names": ["replication"] }],
            },
        ])
    }

    /// A process of one of the kinds that serve no clients of ours yet.
    ///
    /// # Panics
    ///
    /// If there is no such kind.
    pub(super) fn other(app: &str, name: impl Into<String>) -> Self {
        let other = OTHERS.iter().find(|(_, other, _)| *other == app);
        let (program, app, _) = other.unwrap_or_else(|| panic!("there is no {app}"));
        Self::new(program, Some(app), name)
    }

    /// Where the other processes reach it.
    pub(super) fn instance(&self, port: u16) -> Value {
        // The name that the certificate is for.
        let host = if self.tls { "localhost" } else { "127.0.0.1" };
        json!({ "host": host, "port": port, "tls": self.tls })
    }

    /// Who speaks TLS trusts the authority of the tests.
    pub(super) fn environment(&self) -> Vec<(String, OsString)> {
        let authority = self.tls.then(|| ("SSL_CERT_FILE".to_owned(), certificate("ca.crt").into()));
        authority.into_iter().collect()
    }

    /// The file beside the shared one, which main does without.
    pub(super) fn worker_file(&self, folder: &Path) -> Option<Value> {
        self.app?;
        Some(json!({
            "worker_app": self.app,
            "worker_name": self.name,
            "worker_listeners": self.listeners(),
            "worker_pid_file": folder.join(format!("{}.pid", self.name)),
        }))
    }
}

/// Whether a process is there for requests of clients.
pub(super) fn is_client_facing(plan: &Plan) -> bool {
    !OTHERS.iter().any(|(program, ..)| *program == plan.program)
}

/// The processes of a cluster, main first.
pub(super) fn plans(topology: &Topology) -> Vec<Plan> {
    let generic = |name: String| Plan::new("myelin-generic-worker", Some("synapse.app.generic_worker"), name);
    let mut plans = vec![Plan::new("myelin-main", None, "main")];
    plans.extend((1..=topology.event_writers).map(|number| generic(format!("events{number}"))));
    plans.extend((1..=topology.workers).map(|number| generic(format!("worker{number}"))));
    if topology.others {
        plans.extend(OTHERS.map(|(program, app, name)| Plan::new(program, Some(app), name)));
        let more = 2..=topology.federation_senders;
        plans.extend(more.map(|number| Plan::other(FEDERATION_SENDER, format!("federation{number}"))));
    }
    plans.iter_mut().for_each(|plan| plan.tls = topology.tls);
    plans
}

/// What all processes read.
pub(super) fn shared_file(
    topology: &Topology,
    plans: &[Plan],
    database: &TestDatabase,
    redis: &Path,
    folder: &Path,
) -> Value {
    let main = &plans[0];
    let address = |plan: &Plan| {
        let port = topology.reached_at.get(&plan.name).unwrap_or(&plan.replication_port);
        plan.instance(*port)
    };
    let instances = plans.iter().map(|plan| (plan.name.clone(), address(plan)));
    let mut options = topology
        .options
        .clone()
        .set("listeners", main.listeners())
        .set("worker_replication_secret", json!(SECRET))
        .set("instance_map", Value::Object(instances.collect()));
    if !options.settings.contains_key("redis") {
        options = options.set("redis", json!({ "enabled": true, "path": redis }));
    }
    if topology.tls {
        options = options
            .set("tls_certificate_path", json!(certificate("server.crt")))
            .set("tls_private_key_path", json!(certificate("server.key")));
    }
    if topology.event_writers > 0 && !options.settings.contains_key("stream_writers") {
        let writers: Vec<_> = (1..=topology.event_writers).map(|number| format!("events{number}")).collect();
        options = options.set("stream_writers", json!({ "events": writers }));
    }
    configuration(options, main.port, database, folder)
}
