//! What is measured: one process, or a cluster behind nginx.

use anyhow::Context as _;
use myelin_integration_tests::{Api, Cluster, Server, Topology, User, nginx::Nginx};
use myelin_testing::TestDatabase;

/// A homeserver to be measured.
pub enum Homeserver {
    /// `myelin-main` alone.
    Single(Box<Server>),
    /// Main, two workers and two writers of rooms behind nginx.
    Cluster(Box<Cluster>, Nginx),
}

impl Homeserver {
    /// Starts one.
    pub async fn start(topology: &str) -> Self {
        match topology {
            "cluster" => {
                let cluster = Cluster::start(Topology::default()).await;
                let nginx = Nginx::start(cluster.folder());
                Self::Cluster(Box::new(cluster), nginx)
            }
            _ => Self::Single(Box::new(Server::start_default().await)),
        }
    }

    /// What clients speak to.
    pub fn api(&self) -> &Api {
        match self {
            Self::Single(server) => server.api(),
            Self::Cluster(_, nginx) => nginx.api(),
        }
    }

    /// The base URL of that.
    pub fn url(&self) -> &str {
        self.api().base()
    }

    /// Registers a user.
    pub async fn register(&self, localpart: &str) -> User {
        User::register(self.api(), localpart).await
    }

    /// The database.
    pub fn database(&self) -> &TestDatabase {
        match self {
            Self::Single(server) => server.database(),
            Self::Cluster(cluster, _) => cluster.database(),
        }
    }

    /// The daemons' processes.
    pub fn process_ids(&self) -> anyhow::Result<Vec<u32>> {
        const GONE: &str = "a daemon is not running";
        match self {
            Self::Single(server) => Ok(vec![server.process_id().context(GONE)?]),
            Self::Cluster(cluster, _) => {
                cluster.daemons().iter().map(|daemon| daemon.process_id().context(GONE)).collect()
            }
        }
    }

    /// What stands around the daemons: nginx with its worker, and Redis.
    pub fn helper_ids(&mut self) -> Vec<u32> {
        match self {
            Self::Single(_) => Vec::new(),
            Self::Cluster(cluster, nginx) => {
                let redis = cluster.redis().process_id();
                nginx.process_ids().into_iter().chain(redis).collect()
            }
        }
    }

    /// Ends all daemons and starts them again.
    pub async fn restart(&mut self) {
        match self {
            Self::Single(server) => {
                server.stop().await;
                server.start_again().await;
            }
            Self::Cluster(cluster, _) => {
                let names: Vec<String> =
                    cluster.daemons().iter().map(|daemon| daemon.name().to_owned()).collect();
                for name in &names {
                    cluster.daemon_mut(name).stop().await;
                }
                for name in &names {
                    cluster.daemon_mut(name).start_again().await;
                }
            }
        }
    }
}
