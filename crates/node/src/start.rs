//! The order of a start, and of an end.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use myelin_admin_api::AdminApi;
use myelin_client_api::App;
use myelin_config::{Config, Listener, ResourceName};
use myelin_daemon::{Arguments, Condition, Exit, Readiness, notify_ready, notify_stopping, until_stopped};
use myelin_events::ServerSigningKey;
use myelin_http::{Draining, Resource, RunningServer, Server, ServerOptions, health_routes, metrics_routes};
use myelin_leases::Session;
use myelin_replication::{Horizon, Notices, NoticesOptions};
use myelin_storage::{Database, DatabaseOptions, query_one};
use myelin_telemetry::{LogConfig, Telemetry};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    Failure, Role,
    duties::Duties,
    failure,
    forward::Forwarding,
    listeners,
    peers::Peers,
    postgres, redis, replication_api,
    requests::Writers,
    services,
    status::{Queues, Reporter},
};

/// How long a former process of the same name may take to end.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(15);
/// How long the background work may take to end.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(2);
/// How often the database is asked whether it answers, and how long it may take.
const DATABASE_CHECK: Duration = Duration::from_secs(2);

/// Runs the process until it is told to stop.
///
/// # Errors
/// With what was wrong and the exit code that says so to a service manager.
pub async fn run(role: Role, arguments: &Arguments) -> Result<(), Failure> {
    // Fails only if a provider is installed already, which then is this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (config, warnings) = myelin_config::load(&arguments.config_path).map_err(Failure::configuration)?;
    role.check(&config.process()).map_err(Failure::configuration)?;
    let log_config = LogConfig::load(config.logging.log_config.as_deref()).map_err(Failure::configuration)?;
    let postgres = postgres::options(&config).map_err(Failure::configuration)?;
    let redis = redis::options(&config).map_err(Failure::configuration)?;
    if role != Role::Main && redis.is_none() {
        return Err(Failure::configuration("redis.enabled: must be on where there are workers"));
    }
    let peers = Peers::new(&config).map_err(Failure::of(Exit::Configuration))?;
    if arguments.check_config {
        return failure::print_warnings(&warnings, &log_config.warnings);
    }
    let telemetry = Telemetry::start(&log_config).map_err(Failure::configuration)?;
    for warning in &warnings {
        warn!("{warning}");
    }
    for warning in &log_config.warnings {
        warn!("log_config: {warning}");
    }
    let (process, version) = (config.process().name, env!("CARGO_PKG_VERSION"));
    info!(server_name = %config.server.server_name, instance_name = process, version, "starting");
    let signing_key = has_services(role, &config).then(|| signing_key(&config)).transpose();
    let signing_key = signing_key.map_err(Failure::of(Exit::Configuration))?;
    serve(role, Prepared { config, telemetry, signing_key, postgres, redis, peers }).await
}

/// What was read before anything was opened.
struct Prepared {
    config: Config,
    telemetry: Telemetry,
    signing_key: Option<Arc<ServerSigningKey>>,
    postgres: DatabaseOptions,
    redis: Option<NoticesOptions>,
    peers: Peers,
}

async fn serve(role: Role, prepared: Prepared) -> Result<(), Failure> {
    let Prepared { config, telemetry, signing_key, postgres, redis, peers } = prepared;
    let readiness = Readiness::default();
    let answering = readiness.condition("database");
    let registered = readiness.condition("registered");

    let database = postgres::connect(postgres).await.map_err(Failure::of(Exit::Database))?;
    let process = config.process();
    // Positions in streams are taken when they are first written: a process that writes none is nobody's to remember.
    let session = Session::register(database.clone(), &process.name, &[], PREDECESSOR_PATIENCE)
        .await
        .map_err(Failure::of(Exit::Database))?;
    registered.set(true);
    tokio::spawn(watch_database(database.clone(), answering));

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
    let app = match signing_key {
        Some(signing_key) => {
            let parts = services::Parts {
                config: &config,
                database: &database,
                session: &session,
                signing_key,
                notices: notices.as_ref(),
                horizon: &horizon,
                queues: &queues,
            };
            let services = services::compose(parts).await.map_err(Failure::of(Exit::Database))?;
            for (stream, writers) in config.workers.stream_writers.by_stream() {
                // Rooms are taken part in by their engine.
                if stream != "events" && writers.contains(&process.name) {
                    session.take_part(stream).await.map_err(Failure::of(Exit::Database))?;
                }
            }
            if let Some(assignment) = services.rooms.writers() {
                services.rooms.set_other_writers(Arc::new(Writers { peers: peers.clone(), assignment }));
            }
            Some(App::new(services))
        }
        None => None,
    };
    let duties = Duties::start(&config, &session, app.as_ref()).await.map_err(Failure::of(Exit::Database))?;
    let reporter = Arc::new(Reporter {
        process: process.name.clone(),
        role,
        readiness: readiness.clone(),
        database: database.clone(),
        horizon: horizon.clone(),
        rooms: app.as_ref().map(|app| app.rooms.clone()),
        shares: duties.shares(),
        queues,
    });

    let max_working = usize::try_from(config.http.max_concurrent_requests).unwrap_or(usize::MAX);
    let options = ServerOptions { max_working, ..ServerOptions::default() };
    let mut server = Server::new(options, Draining::default());
    server.mount(Resource::Health, health_routes(move || conditions(&readiness)));
    server.mount(Resource::Metrics, metrics_routes(telemetry.renderer()));
    let clients = app.as_ref().map(|app| myelin_client_api::routes(app.clone()).build());
    server.mount(Resource::Replication, replication_api::routes(peers.clone(), clients.clone(), reporter));
    if let (Some(app), Some(clients)) = (&app, clients) {
        let secret = config.registration.registration_shared_secret.clone();
        let admin_api = AdminApi::new(app.accounts.clone(), config.server.server_name.as_str(), secret);
        let (mut admin, mut clients) = (myelin_admin_api::routes(admin_api).build(), clients);
        let forwarding = Forwarding::new(session.clone(), app.rooms.clone(), horizon, peers);
        if let Some(forwarding) = forwarding.filter(|_| notices.is_some()) {
            let forwarding = Arc::new(forwarding);
            admin = admin.around(forwarding.clone());
            clients = clients.around(forwarding);
        }
        server.mount(Resource::Client, admin);
        server.mount(Resource::Client, clients);
    }
    let listeners = listeners::compose(&config);
    let server = match listeners.is_empty() && role != Role::Main {
        true => None,
        false => Some(server.start(&listeners).map_err(Failure::of(Exit::Listener))?),
    };
    let _pid_file = failure::PidFile::write(config.server.pid_file.as_deref())
        .context("writing the pid file")
        .map_err(Failure::of(Exit::Failed))?;
    let (stop_flushing, flushing) = start_flushing(app.as_ref());
    notify_ready();
    info!("ready");

    let replaced = tokio::select! {
        stopped = until_stopped(|| reload(&config, &telemetry, server.as_ref())) => {
            stopped.map_err(Failure::of(Exit::Failed))?;
            false
        }
        () = session.lost() => true,
    };
    notify_stopping();
    let leaving = async {
        if replaced {
            return;
        }
        if let Some(app) = &app
            && let Err(error) = app.rooms.leave().await
        {
            warn!(%error, "the rooms could not be handed over; they come free by themselves");
        }
        duties.leave().await;
    };
    let stopping = async {
        match server {
            Some(server) => server.stop().await,
            None => true,
        }
    };
    // What is asked of rooms that were handed over is passed on while the listeners come to their end.
    let (_, all_answered) = tokio::join!(leaving, stopping);
    if !all_answered {
        warn!("some requests were cut off");
    }
    stop_flushing.cancel();
    if tokio::time::timeout(BACKGROUND_PATIENCE, flushing).await.is_err() {
        warn!("some background work was cut off");
    }
    if replaced {
        return Err(Failure::replaced());
    }
    if let Err(error) = session.release().await {
        warn!(%error, "the registration could not be given back; it runs out by itself");
    }
    info!("stopped");
    Ok(())
}

/// Starts what each process writes now and then; it ends some time after the token is canceled.
fn start_flushing(app: Option<&App>) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let (accounts, stopped) = (app.map(|app| app.accounts.clone()), stop.clone());
    let work = async move {
        if let Some(accounts) = accounts {
            accounts.run(stopped.cancelled()).await;
        }
    };
    (stop, tokio::spawn(work))
}

/// Whether the process serves requests of clients or writes streams: it needs all services then.
fn has_services(role: Role, config: &Config) -> bool {
    let serves = |listener: &Listener| {
        [ResourceName::Client, ResourceName::Federation, ResourceName::Media]
            .into_iter()
            .any(|resource| listener.serves(resource))
    };
    role == Role::Main
        || config.http.listeners.iter().any(serves)
        || config.workers.stream_writers.all().contains(config.process().name.as_str())
        || config.workers.run_background_tasks_on.contains(&config.process().name)
}

/// The key that events are signed with.
fn signing_key(config: &Config) -> anyhow::Result<Arc<ServerSigningKey>> {
    let default = || format!("{}.signing.key", config.server.server_name).into();
    let path: PathBuf = config.keys.signing_key_path.clone().unwrap_or_else(default);
    let file = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "signing_key_path: {} can't be read; `myelin-ctl generate-signing-key` makes a key",
            path.display()
        )
    })?;
    let key = ServerSigningKey::parse(&file)
        .with_context(|| format!("signing_key_path: {} holds no signing key", path.display()))?;
    Ok(Arc::new(key))
}

fn conditions(readiness: &Readiness) -> Vec<myelin_http::Condition> {
    let conditions = readiness.conditions().into_iter();
    conditions.map(|(name, met)| myelin_http::Condition { name, met }).collect()
}

/// Keeps the condition true to whether the database answers.
async fn watch_database(database: Database, answering: Condition) {
    loop {
        let ask = async {
            let client = database.get().await?;
            query_one(&client, "SELECT 1", &[]).await
        };
        let answers = matches!(tokio::time::timeout(DATABASE_CHECK, ask).await, Ok(Ok(_)));
        answering.set(answers);
        tokio::time::sleep(DATABASE_CHECK).await;
    }
}

/// Takes up the log levels and the certificates as their files are now.
fn reload(config: &Config, telemetry: &Telemetry, server: Option<&RunningServer>) {
    let reloaded = LogConfig::load(config.logging.log_config.as_deref())
        .map_err(anyhow::Error::from)
        .and_then(|log_config| Ok(telemetry.reload(&log_config)?));
    if let Err(error) = reloaded {
        error!(%error, "the log levels stay as they are");
    }
    if let Some(server) = server
        && let Err(error) = server.reload()
    {
        error!(%error, "a certificate stays as it is");
    }
}
