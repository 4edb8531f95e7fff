//! A process of the server that is registered, and what it is put together from.

use std::{sync::Arc, time::Duration};

use myelin_admin_api::AdminApi;
use myelin_client_api::{App, Parts, Services, Settings};
use myelin_config::Config;
use myelin_daemon::{Exit, Readiness, Role};
use myelin_events::ServerSigningKey;
use myelin_http::{Draining, Resource, Server, ServerOptions, health_routes, metrics_routes};
use myelin_leases::{LeaseError, Session};
use myelin_replication::{Horizon, Notices};
use myelin_storage::Database;
use myelin_telemetry::Telemetry;
use myelin_types::Clock;

use crate::{
    Failure,
    duties::Duties,
    forward::Forwarding,
    peers::Peers,
    postgres, replication_api,
    requests::Writers,
    start::Prepared,
    status::{Queues, Reporter},
};

/// How long a former process of the same name may take to end.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(15);

/// A registered process.
pub(crate) struct Process {
    pub role: Role,
    pub config: Config,
    pub telemetry: Telemetry,
    pub session: Session,
    peers: Peers,
    readiness: Readiness,
    database: Database,
    /// The other processes, if there are any.
    notices: Option<Notices>,
    horizon: Horizon,
    queues: Queues,
}

impl Process {
    /// Connects to the database, registers under the process's name, and tells the others where they reach it.
    pub async fn join(role: Role, prepared: Prepared) -> Result<Self, Failure> {
        let Prepared { config, telemetry, postgres, redis, peers } = prepared;
        let readiness = Readiness::default();
        let registered = readiness.condition("registered");
        let database = postgres::connect(postgres).await.map_err(Failure::of(Exit::Database))?;
        // Positions in streams are taken when they are first written: a process that writes none is nobody's to remember.
        let session = Session::register(database.clone(), &config.process().name, &[], PREDECESSOR_PATIENCE)
            .await
            .map_err(Failure::of(Exit::Database))?;
        registered.set(true);
        let heard = session.clone();
        readiness.depend_on("database", move || heard.is_heard());

        let notices = redis.map(Notices::start).transpose().map_err(Failure::of(Exit::Configuration))?;
        let horizon = Horizon::new(database.clone());
        let queues = Queues::default();
        let asking = horizon.clone();
        queues.add("look", move || asking.waiting());
        if let Some(notices) = notices.clone() {
            queues.add("publish", move || notices.waiting());
        }
        if let Some(address) = peers.own_address(&config) {
            session.set_address(&address.to_string()).await.map_err(Failure::of(Exit::Database))?;
        }
        Ok(Self { role, config, telemetry, session, peers, readiness, database, notices, horizon, queues })
    }

    /// Puts the services together, and takes part in writing the streams that the configuration names it for.
    pub async fn compose(&self, signing_key: Arc<ServerSigningKey>) -> Result<App, LeaseError> {
        let writers = &self.config.workers.stream_writers;
        let name = self.config.process().name;
        let parts = Parts {
            settings: Settings::new(&self.config),
            clock: Clock::System,
            database: &self.database,
            session: &self.session,
            signing_key,
            writes_rooms: writers.events.contains(&name),
            horizon: &self.horizon,
            notices: self.notices.as_ref(),
        };
        let (services, waiting) = Services::compose(parts).await?;
        for (stream, waiting) in waiting {
            self.queues.add(format!("write {stream}"), waiting);
        }
        for (stream, writers) in writers.by_stream() {
            // Rooms are taken part in by their engine.
            if stream != "events" && writers.contains(&name) {
                self.session.take_part(stream).await?;
            }
        }
        if let Some(assignment) = services.rooms.writers() {
            services.rooms.set_other_writers(Arc::new(Writers { peers: self.peers.clone(), assignment }));
        }
        Ok(App::new(services))
    }

    /// What the process serves, wherever it listens. Without services, that is how it is.
    pub fn server(&self, app: Option<&App>, duties: &Duties) -> Server {
        let max_working = usize::try_from(self.config.http.max_concurrent_requests).unwrap_or(usize::MAX);
        let options = ServerOptions { max_working, ..ServerOptions::default() };
        let mut server = Server::new(options, Draining::default());
        let readiness = self.readiness.clone();
        server.mount(Resource::Health, health_routes(move || conditions(&readiness)));
        server.mount(Resource::Metrics, metrics_routes(self.telemetry.renderer()));
        let clients = app.map(|app| myelin_client_api::routes(app.clone()).build());
        let reporter = Arc::new(self.reporter(app, duties));
        let replication = replication_api::routes(self.peers.clone(), clients.clone(), reporter);
        server.mount(Resource::Replication, replication);
        if let (Some(app), Some(mut clients)) = (app, clients) {
            let secret = self.config.registration.registration_shared_secret.clone();
            let server_name = self.config.server.server_name.as_str();
            let admin_api = AdminApi::new(app.accounts.clone(), server_name, secret);
            let mut admin = myelin_admin_api::routes(admin_api).build();
            if let Some(forwarding) = self.forwarding(app) {
                let forwarding = Arc::new(forwarding);
                admin = admin.around(forwarding.clone());
                clients = clients.around(forwarding);
            }
            server.mount(Resource::Client, admin);
            server.mount(Resource::Client, clients);
        }
        server
    }

    /// A process that is alone passes nothing on.
    fn forwarding(&self, app: &App) -> Option<Forwarding> {
        self.notices.as_ref()?;
        Forwarding::new(self.session.clone(), app.rooms.clone(), self.horizon.clone(), self.peers.clone())
    }

    fn reporter(&self, app: Option<&App>, duties: &Duties) -> Reporter {
        Reporter {
            process: self.config.process().name,
            role: self.role,
            readiness: self.readiness.clone(),
            database: self.database.clone(),
            horizon: self.horizon.clone(),
            rooms: app.map(|app| app.rooms.clone()),
            shares: duties.shares(),
            queues: self.queues.clone(),
        }
    }
}

fn conditions(readiness: &Readiness) -> Vec<myelin_http::Condition> {
    let conditions = readiness.conditions().into_iter();
    conditions.map(|(name, met)| myelin_http::Condition { name, met }).collect()
}
