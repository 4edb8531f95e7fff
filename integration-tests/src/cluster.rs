//! A homeserver of many processes, on a database and a Redis of its own.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use myelin_testing::{TestDatabase, TestRedis, certificate, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Api, Options, User,
    daemon::{Daemon, Invocation, program},
    server::{SIGNING_KEY, Said, configuration},
};

/// The secret that the processes of a cluster share.
const SECRET: &str = "of no use outside of this test";

/// Which processes there are beside main.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Generic workers that write rooms: `events1`, `events2`, …. Without any, main does.
    pub event_writers: usize,
    /// Generic workers that don't: `worker1`, `worker2`, ….
    pub workers: usize,
    /// One of each other daemon.
    pub others: bool,
    /// Whether processes speak TLS to each other.
    pub tls: bool,
    /// Settings of all processes.
    pub options: Options,
}

impl Default for Topology {
    fn default() -> Self {
        Self { event_writers: 2, workers: 2, others: false, tls: false, options: Options::default() }
    }
}

/// The daemons that a cluster may have one of each of: program, `worker_app`, name.
const OTHERS: [(&str, &str, &str); 5] = [
    ("myelin-pusher", "synapse.app.pusher", "pusher1"),
    ("myelin-appservice-sender", "synapse.app.appservice", "appservice1"),
    ("myelin-federation-sender", "synapse.app.federation_sender", "federation1"),
    ("myelin-media-repo", "synapse.app.media_repository", "media1"),
    ("myelin-user-dir", "synapse.app.user_dir", "users1"),
];

/// A homeserver of many processes under test. All of it is gone when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    daemons: Vec<Daemon>,
    /// Some processes are not children of ours.
    is_controlled: bool,
    redis: Option<TestRedis>,
    // Dropped after the processes, which use both.
    database: TestDatabase,
    folder: TempDir,
}

/// A process to be: its program and name, what it listens on, and its own file.
struct Plan {
    program: &'static str,
    app: Option<&'static str>,
    name: String,
    port: u16,
    replication_port: u16,
    tls: bool,
}

impl Plan {
    fn new(program: &'static str, app: Option<&'static str>, name: impl Into<String>) -> Self {
        Self { program, app, name: name.into(), port: free_port(), replication_port: free_port(), tls: false }
    }

    fn listeners(&self) -> Value {
        json!([
            {
                "port": self.port, "type": "http", "bind_addresses": ["127.0.0.1"], "x_forwarded": true,
                "resources": [{ "names": ["client", "federation"] }],
            },
            {
                "port": self.replication_port, "type": "http", "bind_addresses": ["127.0.0.1"], "tls": self.tls,
                "resources": [{ "names": ["replication"] }],
            },
        ])
    }

    fn instance(&self) -> Value {
        // The name that the certificate is for.
        let host = if self.tls { "localhost" } else { "127.0.0.1" };
        json!({ "host": host, "port": self.replication_port, "tls": self.tls })
    }

    /// Who speaks TLS trusts the authority of the tests.
    fn environment(&self) -> Vec<(String, OsString)> {
        let authority = self.tls.then(|| ("SSL_CERT_FILE".to_owned(), certificate("ca.crt").into()));
        authority.into_iter().collect()
    }

    fn worker_file(&self, folder: &Path) -> Value {
        json!({
            "worker_app": self.app,
            "worker_name": self.name,
            "worker_listeners": self.listeners(),
            "worker_pid_file": folder.join(format!("{}.pid", self.name)),
        })
    }
}

impl Cluster {
    /// Starts all processes and waits until they are ready.
    ///
    /// # Panics
    ///
    /// With the daemons' logs, if one doesn't become ready.
    pub async fn start(topology: Topology) -> Self {
        let redis = TestRedis::start();
        let mut cluster = Self::start_on(redis.socket(), topology).await;
        cluster.redis = Some(redis);
        cluster
    }

    /// As [`Cluster::start`], on a Redis that others use too.
    pub async fn start_on(redis: PathBuf, topology: Topology) -> Self {
        let database = TestDatabase::empty().await;
        let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
        let plans = plans(&topology);
        let writers: Vec<String> =
            (1..=topology.event_writers).map(|number| format!("events{number}")).collect();
        let shared = shared_file(topology.options, &plans, &writers, &database, &redis, folder.path());
        let write = |name: &str, text: String| {
            fs::write(folder.path().join(name), text).expect("a new folder can be written to");
        };
        write("signing.key", SIGNING_KEY.to_owned());
        write("homeserver.yaml", format!("{shared:#}\n"));
        fs::create_dir(folder.path().join("workers")).expect("a new folder can be written to");
        let mut cluster = Self { daemons: Vec::new(), is_controlled: false, redis: None, database, folder };
        for plan in &plans {
            cluster.spawn(plan);
        }
        for daemon in &mut cluster.daemons {
            daemon.wait_until_ready().await;
        }
        cluster
    }

    fn spawn(&mut self, plan: &Plan) {
        let folder = self.folder.path();
        let mut config_paths = vec![folder.join("homeserver.yaml")];
        if plan.app.is_some() {
            let path = folder.join("workers").join(format!("{}.yaml", plan.name));
            fs::write(&path, format!("{:#}\n", plan.worker_file(folder)))
                .expect("a new folder can be written to");
            config_paths.push(path);
        }
        self.daemons.push(Daemon::start(Invocation {
            program: plan.program,
            name: plan.name.clone(),
            config_paths,
            folder: folder.to_owned(),
            port: plan.port,
            environment: plan.environment(),
        }));
    }

    /// Starts one more writer of rooms, which the others were not told of, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// With its log, if it doesn't become ready.
    pub async fn add_event_writer(&mut self, name: &str) {
        let path = self.folder.path().join("homeserver.yaml");
        let text = fs::read_to_string(&path).expect("the file was written");
        let mut shared: Value = serde_json::from_str(&text).expect("it was written as JSON");
        let plan = Plan::new("myelin-generic-worker", Some("synapse.app.generic_worker"), name);
        shared["instance_map"][name] = plan.instance();
        if let Some(writers) = shared["stream_writers"]["events"].as_array_mut() {
            writers.push(name.into());
        }
        fs::write(&path, format!("{shared:#}\n")).expect("the file can be written to");
        self.spawn(&plan);
        let daemon = self.daemons.last_mut().expect("it was just started");
        daemon.wait_until_ready().await;
    }

    /// Takes a process off the list of writers of rooms and restarts that process alone.
    ///
    /// # Panics
    ///
    /// If it does not stop, or doesn't become ready.
    pub async fn remove_event_writer(&mut self, name: &str) {
        let path = self.folder.path().join("homeserver.yaml");
        let text = fs::read_to_string(&path).expect("the file was written");
        let mut shared: Value = serde_json::from_str(&text).expect("it was written as JSON");
        if let Some(writers) = shared["stream_writers"]["events"].as_array_mut() {
            writers.retain(|writer| writer != name);
        }
        fs::write(&path, format!("{shared:#}\n")).expect("the file can be written to");
        let daemon = self.daemon_mut(name);
        daemon.stop().await;
        daemon.start_again().await;
    }

    /// Runs `myelin-ctl COMMAND homeserver.yaml -a workers` on the cluster's files. Processes that it starts are ended with the
    /// cluster.
    ///
    /// # Panics
    ///
    /// If it can't be run.
    pub async fn control(&mut self, command: &[&str]) -> Said {
        self.is_controlled = true;
        let output = tokio::process::Command::from(control(self.folder.path(), command)).output().await;
        Said::new(&output.expect("a program that was built can be run"))
    }

    /// A process by its name.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn daemon(&self, name: &str) -> &Daemon {
        let found = self.daemons.iter().find(|daemon| daemon.name() == name);
        found.unwrap_or_else(|| panic!("there is no process {name}"))
    }

    /// A process by its name.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn daemon_mut(&mut self, name: &str) -> &mut Daemon {
        let found = self.daemons.iter_mut().find(|daemon| daemon.name() == name);
        found.unwrap_or_else(|| panic!("there is no process {name}"))
    }

    /// All processes, main first.
    pub fn daemons(&self) -> &[Daemon] {
        &self.daemons
    }

    /// The HTTP interface of a process.
    ///
    /// # Panics
    ///
    /// If there is none of this name.
    pub fn api(&self, name: &str) -> &Api {
        self.daemon(name).api()
    }

    /// The HTTP interface of all processes that serve clients: each request goes to the next one.
    pub fn everywhere(&self) -> Api {
        let serving =
            self.daemons.iter().filter(|daemon| !OTHERS.iter().any(|(.., name)| *name == daemon.name()));
        Api::over(serving.map(|daemon| daemon.api().base().to_owned()).collect())
    }

    /// Registers a user at a process; the password is the name.
    ///
    /// # Panics
    ///
    /// If the server doesn't let them.
    pub async fn register(&self, at: &str, localpart: &str) -> User {
        User::register(self.api(at), localpart).await
    }

    /// The Redis of the processes.
    ///
    /// # Panics
    ///
    /// If it is another cluster's.
    pub fn redis(&mut self) -> &mut TestRedis {
        self.redis.as_mut().expect("the Redis is ours")
    }

    /// The socket of the Redis of the processes.
    ///
    /// # Panics
    ///
    /// If it is another cluster's.
    pub fn redis_socket(&self) -> PathBuf {
        self.redis.as_ref().expect("the Redis is ours").socket()
    }

    /// The database of the processes.
    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// The folder of the configurations and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.is_controlled {
            // Whatever it says, nothing is left to be done here.
            let _ = control(self.folder.path(), &["stop", "--kill"]).output();
        }
    }
}

fn control(folder: &Path, command: &[&str]) -> std::process::Command {
    let program = program("myelin-ctl").unwrap_or_else(|error| panic!("{error:#}"));
    let mut control = std::process::Command::new(program);
    control.args(command).arg(folder.join("homeserver.yaml")).arg("-a").arg(folder.join("workers"));
    control.current_dir(folder);
    control
}

fn plans(topology: &Topology) -> Vec<Plan> {
    let generic = |name: String| Plan::new("myelin-generic-worker", Some("synapse.app.generic_worker"), name);
    let mut plans = vec![Plan::new("myelin-main", None, "main")];
    plans.extend((1..=topology.event_writers).map(|number| generic(format!("events{number}"))));
    plans.extend((1..=topology.workers).map(|number| generic(format!("worker{number}"))));
    if topology.others {
        plans.extend(OTHERS.map(|(program, app, name)| Plan::new(program, Some(app), name)));
    }
    plans.iter_mut().for_each(|plan| plan.tls = topology.tls);
    plans
}

fn shared_file(
    options: Options,
    plans: &[Plan],
    writers: &[String],
    database: &TestDatabase,
    redis: &Path,
    folder: &Path,
) -> Value {
    let main = &plans[0];
    let instances = plans.iter().map(|plan| (plan.name.clone(), plan.instance()));
    let mut options = options
        .set("listeners", main.listeners())
        .set("redis", json!({ "enabled": true, "path": redis }))
        .set("worker_replication_secret", json!(SECRET))
        .set("instance_map", Value::Object(instances.collect()));
    if main.tls {
        options = options
            .set("tls_certificate_path", json!(certificate("server.crt")))
            .set("tls_private_key_path", json!(certificate("server.key")));
    }
    if !writers.is_empty() && !options.settings.contains_key("stream_writers") {
        options = options.set("stream_writers", json!({ "events": writers }));
    }
    configuration(options, main.port, database, folder)
}
