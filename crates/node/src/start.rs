//! The order of a start, and of an end.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use myelin_client_api::App;
use myelin_config::{Config, Listener, ResourceName};
use myelin_daemon::{Arguments, Exit, Role, notify_ready, notify_stopping, until_stopped};
use myelin_events::ServerSigningKey;
use myelin_http::RunningServer;
use myelin_replication::NoticesOptions;
use myelin_storage::DatabaseOptions;
use myelin_telemetry::{LogConfig, Telemetry};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{Failure, duties::Duties, failure, listeners, peers::Peers, postgres, process::Process, redis};

/// How long the background work may take to end.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(2);
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
    serve(role, Prepared { config, telemetry, postgres, redis, peers }, signing_key).await
}

/// What was read before anything was opened.
pub(crate) struct Prepared {
    pub config: Config,
    pub telemetry: Telemetry,
    pub postgres: DatabaseOptions,
    pub redis: Option<NoticesOptions>,
    pub peers: Peers,
}

async fn serve(
    role: Role,
    prepared: Prepared,
    signing_key: Option<Arc<ServerSigningKey>>,
) -> Result<(), Failure> {
    let process = Process::join(role, prepared).await?;
    let app = match signing_key {
        Some(signing_key) => Some(process.compose(signing_key).await.map_err(Failure::of(Exit::Database))?),
        None => None,
    };
    let duties = Duties::start(&process.config, &process.session, app.as_ref())
        .await
        .map_err(Failure::of(Exit::Database))?;
    let listeners = listeners::compose(&process.config);
    let server = match listeners.is_empty() && role != Role::Main {
        true => None,
        false => {
            let server = process.server(app.as_ref(), &duties);
            Some(server.start(&listeners).map_err(Failure::of(Exit::Listener))?)
        }
    };
    let _pid_file = failure::PidFile::write(process.config.server.pid_file.as_deref())
        .context("writing the pid file")
        .map_err(Failure::of(Exit::Failed))?;
    let flushing = Flushing::start(app.as_ref());
    notify_ready();
    info!("ready");

    let replaced = tokio::select! {
        stopped = until_stopped(|| reload(&process.config, &process.telemetry, server.as_ref())) => {
            stopped.map_err(Failure::of(Exit::Failed))?;
            false
        }
        () = process.session.lost() => true,
    };
    notify_stopping();
    let leaving = async {
        if !replaced {
            leave(app.as_ref(), &duties).await;
        }
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
    flushing.end().await;
    if replaced {
        return Err(Failure::replaced());
    }
    if let Err(error) = process.session.release().await {
        warn!(%error, "the registration could not be given back; it runs out by itself");
    }
    info!("stopped");
    Ok(())
}

/// Gives the rooms and the duties to other processes.
async fn leave(app: Option<&App>, duties: &Duties) {
    if let Some(app) = app
        && let Err(error) = app.rooms.leave().await
    {
        warn!(%error, "the rooms could not be handed over; they come free by themselves");
    }
    duties.leave().await;
}

/// What each process writes now and then.
struct Flushing {
    stop: CancellationToken,
    work: JoinHandle<()>,
}

impl Flushing {
    fn start(app: Option<&App>) -> Self {
        let stop = CancellationToken::new();
        let (accounts, stopped) = (app.map(|app| app.accounts.clone()), stop.clone());
        let work = async move {
            if let Some(accounts) = accounts {
                accounts.run(stopped.cancelled()).await;
            }
        };
        Self { stop, work: tokio::spawn(work) }
    }

    /// Has what is left written.
    async fn end(self) {
        self.stop.cancel();
        if tokio::time::timeout(BACKGROUND_PATIENCE, self.work).await.is_err() {
            warn!("some background work was cut off");
        }
    }
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
