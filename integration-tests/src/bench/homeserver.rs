//! What is measured: one process, or a cluster behind nginx.

use clap::ValueEnum;
use myelin_integration_tests::{Api, Cluster, Daemon, Server, nginx::Nginx};
use myelin_testing::TestDatabase;

use crate::processes::Group;

/// How many processes there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Topology {
    /// `myelin-main` alone.
    Single,
    /// Main, two workers, two writers of rooms and one of each other daemon, behind nginx.
    Cluster,
}

impl Topology {
    /// What the report and the command line call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Cluster => "cluster",
        }
    }
}

/// A homeserver to be measured.
pub struct Homeserver {
    processes: Processes,
    /// The report tells each daemon's figures apart, not those of its role.
    pub is_told_by_name: bool,
}

enum Processes {
    Single(Box<Server>),
    Cluster(Box<Cluster>, Nginx),
}

impl Homeserver {
    /// Starts one.
    pub async fn start(topology: Topology) -> Self {
        let processes = match topology {
            Topology::Single => Processes::Single(Box::new(Server::start_default().await)),
            Topology::Cluster => {
                let topology = myelin_integration_tests::Topology { others: true, ..Default::default() };
                let cluster = Cluster::start(topology).await;
                let nginx = Nginx::start(cluster.folder());
                Processes::Cluster(Box::new(cluster), nginx)
            }
        };

        Self { processes, is_told_by_name: false }
    }

    /// The base URL of what clients speak to.
    pub fn url(&self) -> String {
        let api: &Api = match &self.processes {
            Processes::Single(server) => server.api(),
            Processes::Cluster(_, nginx) => nginx.api(),
        };

        api.base().to_owned()
    }

    /// The base URL of one process of a cluster, past nginx.
    pub fn url_of(&self, name: &str) -> Option<String> {
        match &self.processes {
            Processes::Single(_) => None,
            Processes::Cluster(cluster, _) => Some(cluster.api(name).base().to_owned()),
        }
    }

    /// The database.
    pub fn database(&self) -> &TestDatabase {
        match &self.processes {
            Processes::Single(server) => server.database(),
            Processes::Cluster(cluster, _) => cluster.database(),
        }
    }

    /// The processes that run now, by what they do; nginx and Redis, too.
    pub fn groups(&mut self) -> Vec<Group> {
        match &mut self.processes {
            Processes::Single(server) => {
                vec![Group::server("main", server.process_id().into_iter().collect())]
            }
            Processes::Cluster(cluster, nginx) => {
                let mut groups: Vec<Group> = Vec::new();
                for daemon in cluster.daemons() {
                    let name = if self.is_told_by_name { daemon.name() } else { role(daemon) };
                    let process = daemon.process_id();
                    match groups.iter_mut().find(|group| group.name == name) {
                        Some(group) => group.processes.extend(process),
                        None => groups.push(Group::server(name, process.into_iter().collect())),
                    }
                }
                groups.push(Group::helper("nginx", nginx.process_ids()));
                groups.push(Group::helper("redis", cluster.redis().process_id().into_iter().collect()));
                groups
            }
        }
    }

    /// Ends all daemons.
    pub async fn stop(&mut self) {
        match &mut self.processes {
            Processes::Single(server) => {
                server.stop().await;
            }
            Processes::Cluster(cluster, _) => {
                for name in names(cluster) {
                    cluster.daemon_mut(&name).stop().await;
                }
            }
        }
    }

    /// Starts all daemons again, and waits until they are ready.
    pub async fn start_again(&mut self) {
        match &mut self.processes {
            Processes::Single(server) => server.start_again().await,
            Processes::Cluster(cluster, _) => {
                for name in names(cluster) {
                    cluster.daemon_mut(&name).start_again().await;
                }
            }
        }
    }
}

fn names(cluster: &Cluster) -> Vec<String> {
    cluster.daemons().iter().map(|daemon| daemon.name().to_owned()).collect()
}

/// What a daemon is for, as the harness names it.
fn role(daemon: &Daemon) -> &'static str {
    match daemon.name() {
        "main" => "main",
        name if name.starts_with("events") => "event_writers",
        name if name.starts_with("worker") => "workers",
        _ => "others",
    }
}
