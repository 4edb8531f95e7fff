//! The main process: everything which no worker was given.
//!
//! [`run`] is the order of its start: configuration, logs, PostgreSQL, migrations, registration, listeners, ready. The
//! parts themselves are other crates; here they are put together, and taken apart again when the process ends.

mod failure;
mod listeners;
mod postgres;
mod redis;
mod services;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
pub use failure::Failure;
use myelin_admin_api::AdminApi;
use myelin_client_api::App;
use myelin_config::Config;
use myelin_daemon::{Arguments, Condition, Exit, Readiness, notify_ready, notify_stopping, until_stopped};
use myelin_events::ServerSigningKey;
use myelin_http::{Draining, Resource, RunningServer, Server, ServerOptions, health_routes, metrics_routes};
use myelin_leases::Session;
use myelin_replication::NoticesOptions;
use myelin_storage::{Database, DatabaseOptions, query_one};
use myelin_telemetry::{LogConfig, Telemetry};
use tracing::{error, info, warn};

/// How long a former process of the same name may take to end.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(15);
/// How long the background work may take to end.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(2);
/// How often the database is asked whether it answers, and how long it may take.
const DATABASE_CHECK: Duration = Duration::from_secs(2);
/// The streams that this process may write.
const STREAMS: [&str; 7] =
    ["events", "account_data", "receipts", "presence", "push_rules", "to_device", "device_lists"];

/// Runs the process until it is told to stop.
///
/// # Errors
/// With what was wrong and the exit code that says so to a service manager.
pub async fn run(arguments: &Arguments) -> Result<(), Failure> {
    // Fails only if a provider is installed already, which then is this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (config, warnings) = myelin_config::load(&arguments.config_path).map_err(Failure::configuration)?;
    let log_config = LogConfig::load(config.logging.log_config.as_deref()).map_err(Failure::configuration)?;
    let postgres = postgres::options(&config).map_err(Failure::configuration)?;
    let redis = redis::options(&config).map_err(Failure::configuration)?;
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
    info!(server_name = %config.server.server_name, version = env!("CARGO_PKG_VERSION"), "starting");
    let signing_key = signing_key(&config).map_err(Failure::of(Exit::Configuration))?;
    serve(&config, &telemetry, signing_key, postgres, redis).await
}

async fn serve(
    config: &Config,
    telemetry: &Telemetry,
    signing_key: Arc<ServerSigningKey>,
    postgres: DatabaseOptions,
    redis: Option<NoticesOptions>,
) -> Result<(), Failure> {
    let readiness = Readiness::default();
    let answering = readiness.condition("database");
    let registered = readiness.condition("registered");

    let database = postgres::connect(postgres).await.map_err(Failure::of(Exit::Database))?;
    let process = config.process();
    let session = Session::register(database.clone(), &process.name, &STREAMS, PREDECESSOR_PATIENCE)
        .await
        .map_err(Failure::of(Exit::Database))?;
    registered.set(true);
    tokio::spawn(watch_database(database.clone(), answering));

    let (services, _notices) = services::compose(config, &database, &session, signing_key, redis)
        .await
        .map_err(Failure::of(Exit::Database))?;
    let (stop_background, background) = services::start_background(&services);
    let app = App::new(services);
    let mut server = Server::new(ServerOptions::default(), Draining::default());
    server.mount(Resource::Health, health_routes(move || conditions(&readiness)));
    server.mount(Resource::Metrics, metrics_routes(telemetry.renderer()));
    let secret = config.registration.registration_shared_secret.clone();
    let admin_api = AdminApi::new(app.accounts.clone(), config.server.server_name.as_str(), secret);
    server.mount(Resource::Client, myelin_admin_api::routes(admin_api).build());
    server.mount(Resource::Client, myelin_client_api::routes(app).build());
    let server = server.start(&listeners::compose(config)).map_err(Failure::of(Exit::Listener))?;
    let _pid_file = failure::PidFile::write(config.server.pid_file.as_deref())
        .context("writing the pid file")
        .map_err(Failure::of(Exit::Failed))?;
    notify_ready();
    info!("ready");

    let replaced = tokio::select! {
        stopped = until_stopped(|| reload(config, telemetry, &server)) => {
            stopped.map_err(Failure::of(Exit::Failed))?;
            false
        }
        () = session.lost() => true,
    };
    notify_stopping();
    if !server.stop().await {
        warn!("some requests were cut off");
    }
    stop_background.cancel();
    if tokio::time::timeout(BACKGROUND_PATIENCE, background).await.is_err() {
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
fn reload(config: &Config, telemetry: &Telemetry, server: &RunningServer) {
    let reloaded = LogConfig::load(config.logging.log_config.as_deref())
        .map_err(anyhow::Error::from)
        .and_then(|log_config| Ok(telemetry.reload(&log_config)?));
    if let Err(error) = reloaded {
        error!(%error, "the log levels stay as they are");
    }
    if let Err(error) = server.reload() {
        error!(%error, "a certificate stays as it is");
    }
}
