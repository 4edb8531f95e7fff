//! A homeserver of many processes, on a database and a Redis of its own.

mod ends;
mod files;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use myelin_testing::{TestDatabase, TestRedis};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use self::ends::resident_bytes;
use self::files::{Plan, is_client_facing};
use crate::{
    Api, Options, User,
    daemon::{Daemon, Invocation, program},
    server::{SIGNING_KEY, Said},
};

/// Which processes there are beside main.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Generic workers that write rooms: `events1`, `events2`, …. Without any, main does.
    pub event_writers: usize,
    /// Generic workers that don't: `worker1`, `worker2`, ….
    pub workers: usize,
    /// One of each other daemon.
    pub others: bool,
    /// With [`Topology::others`], how many senders to other servers: `federation1`, `federation2`, ….
    pub federation_senders: usize,
    /// Whether processes speak TLS to each other.
    pub tls: bool,
    /// Settings of all processes.
    pub options: Options,
    /// Settings of single processes, by name.
    pub own_options: BTreeMap<String, Value>,
    /// Where other processes are told to reach a process, by name: a port that isn't its own.
    pub reached_at: BTreeMap<String, u16>,
    /// Where single processes, by name, are told to reach another one of this name, unlike all others.
    pub reaches_at: BTreeMap<String, (String, u16)>,
    /// What single processes find in their environment, by name.
    pub environment: BTreeMap<String, Vec<(String, OsString)>>,
    /// Where the programs of the processes are, if not beside the test.
    pub programs: Option<PathBuf>,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            event_writers: 2,
            workers: 2,
            others: false,
            federation_senders: 1,
            tls: false,
            options: Options::default(),
            own_options: BTreeMap::new(),
            reached_at: BTreeMap::new(),
            reaches_at: BTreeMap::new(),
            environment: BTreeMap::new(),
            programs: None,
        }
    }
}

impl Topology {
    /// All kinds of processes, two of each kind that shares its work.
    pub fn full() -> Self {
        Self { others: true, federation_senders: 2, ..Self::default() }
    }
}

/// A homeserver of many processes under test. All of it is gone when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    daemons: Vec<Daemon>,
    plans: Vec<Plan>,
    topology: Topology,
    /// Some processes are not children of ours.
    is_controlled: bool,
    redis: Option<TestRedis>,
    // Dropped after the processes, which use both.
    database: TestDatabase,
    folder: TempDir,
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
        Self::start_in(TestDatabase::empty().await, redis, topology).await
    }

    /// As [`Cluster::start`], on a database and a Redis of the test's choice.
    pub async fn start_in(database: TestDatabase, redis: PathBuf, topology: Topology) -> Self {
        Self::start_led(database, redis, topology, |_, _| {}).await
    }

    /// As [`Cluster::start_in`], once `lead` was told at which port each process listens for the others, of which
    /// [`Topology::reached_at`] may say something else.
    pub async fn start_led(
        database: TestDatabase,
        redis: PathBuf,
        topology: Topology,
        lead: impl Fn(&str, u16),
    ) -> Self {
        let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
        let plans = files::plans(&topology);
        let shared = files::shared_file(&topology, &plans, &database, &redis, folder.path());
        let write = |name: &str, text: String| {
            fs::write(folder.path().join(name), text).expect("a new folder can be written to");
        };
        write("signing.key", SIGNING_KEY.to_owned());
        write("homeserver.yaml", format!("{shared:#}\n"));
        fs::create_dir(folder.path().join("workers")).expect("a new folder can be written to");
        let mut cluster = Self {
            daemons: Vec::new(),
            plans: Vec::new(),
            topology,
            is_controlled: false,
            redis: None,
            database,
            folder,
        };
        for plan in plans {
            lead(&plan.name, plan.replication_port);
            cluster.spawn(plan);
        }
        for daemon in &mut cluster.daemons {
            daemon.wait_until_ready().await;
        }
        cluster
    }

    fn spawn(&mut self, plan: Plan) {
        let folder = self.folder.path();
        let write = |path: &Path, file: Value| {
            fs::write(path, format!("{file:#}\n")).expect("a new folder can be written to");
        };
        let mut config_paths = vec![folder.join("homeserver.yaml")];
        let mut own = self.topology.own_options.get(&plan.name).cloned();
        if let Some((other, port)) = self.topology.reaches_at.get(&plan.name) {
            // A worker's own map stands instead of the one that all share.
            let mut instances = self.shared_file()["instance_map"].take();
            instances[other]["port"] = (*port).into();
            own.get_or_insert_with(|| json!({}))["instance_map"] = instances;
        }
        if let Some(mut file) = plan.worker_file(folder) {
            if let (Some(file), Some(Value::Object(own))) = (file.as_object_mut(), own) {
                file.extend(own);
            }
            let path = folder.join("workers").join(format!("{}.yaml", plan.name));
            write(&path, file);
            config_paths.push(path);
        } else if let Some(own) = own {
            let path = folder.join("main.yaml");
            write(&path, own);
            config_paths.push(path);
        }
        let own_environment = self.topology.environment.get(&plan.name).cloned().unwrap_or_default();
        self.daemons.push(Daemon::start(Invocation {
            program: plan.program,
            name: plan.name.clone(),
            config_paths,
            folder: folder.to_owned(),
            port: plan.port,
            environment: [plan.environment(), own_environment].concat(),
            programs: self.topology.programs.clone(),
        }));
        self.plans.push(plan);
    }

    fn shared_file(&self) -> Value {
        let text = fs::read_to_string(self.folder.path().join("homeserver.yaml"));
        serde_json::from_str(&text.expect("the file was written")).expect("it was written as JSON")
    }

    /// Changes the file that all processes share. Those that run don't notice before they are restarted.
    fn change_shared_file(&self, change: impl FnOnce(&mut Value)) {
        let path = self.folder.path().join("homeserver.yaml");
        let mut shared = self.shared_file();
        change(&mut shared);
        fs::write(&path, format!("{shared:#}\n")).expect("the file can be written to");
    }

    /// Starts one more writer of rooms, which the others were not told of, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// With its log, if it doesn't become ready.
    pub async fn add_event_writer(&mut self, name: &str) {
        self.change_shared_file(|shared| {
            if let Some(writers) = shared["stream_writers"]["events"].as_array_mut() {
                writers.push(name.into());
            }
        });
        self.add(Plan::new("myelin-generic-worker", Some("synapse.app.generic_worker"), name)).await;
    }

    /// Starts one more process of a kind that there is one of in [`Topology::others`], and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If there is no such kind, or with its log, if it doesn't become ready.
    pub async fn add_other(&mut self, app: &str, name: &str) {
        self.add(Plan::other(app, name)).await;
    }

    async fn add(&mut self, mut plan: Plan) {
        plan.tls = self.topology.tls;
        self.change_shared_file(|shared| {
            shared["instance_map"][&plan.name] = plan.instance(plan.replication_port);
        });
        self.spawn(plan);
        let daemon = self.daemons.last_mut().expect("it was just started");
        daemon.wait_until_ready().await;
    }

    /// Takes a process off the list of writers of rooms and restarts that process alone.
    ///
    /// # Panics
    ///
    /// If it does not stop, or doesn't become ready.
    pub async fn remove_event_writer(&mut self, name: &str) {
        self.change_shared_file(|shared| {
            if let Some(writers) = shared["stream_writers"]["events"].as_array_mut() {
                writers.retain(|writer| writer != name);
            }
        });
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
        Api::over(self.serving().map(|daemon| daemon.api().base().to_owned()).collect())
    }

    /// The processes that serve clients, main first.
    pub fn serving(&self) -> impl Iterator<Item = &Daemon> {
        let serving = self.plans.iter().zip(&self.daemons).filter(|(plan, _)| is_client_facing(plan));
        serving.map(|(_, daemon)| daemon)
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
