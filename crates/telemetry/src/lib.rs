//! Logs and metrics.
//!
//! [`Telemetry::start`] sets up structured logs (text or JSON) and the Prometheus recorder, once per process; what it
//! gives back renders the metrics and takes up changed levels at run time. Who serves the metrics over HTTP is none of
//! its business. Start reading there; [`LogConfig`] is what a `log_config` file may say.

mod log_config;
mod plain;
mod process;

use std::io::IsTerminal as _;

pub use log_config::{Format, LogConfig, LogConfigError};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use self::plain::Plain;

/// The buckets of request durations, in seconds.
const SECONDS: [f64; 10] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// Why logs or metrics can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// They are set up already, in this process.
    #[error("logs and metrics are set up already")]
    Twice,
    /// A directive is not one.
    #[error("the log level or filter {0:?} is not understood")]
    Filter(String),
}

/// The logs and metrics of this process.
#[derive(Debug)]
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
    metrics: PrometheusHandle,
}

impl Telemetry {
    /// Sets up logs to standard output, and metrics.
    ///
    /// # Errors
    /// If `config` has a filter that is none, or if it was done before.
    pub fn start(config: &LogConfig) -> Result<Self, TelemetryError> {
        let (filter, handle) = reload::Layer::new(env_filter(config)?);
        let lines = match config.format {
            Format::Text if std::io::stdout().is_terminal() => fmt::layer().boxed(),
            Format::Text => fmt::layer().with_ansi(false).fmt_fields(Plain).event_format(Plain).boxed(),
            Format::Json => fmt::layer().json().flatten_event(true).boxed(),
        };
        let subscriber = tracing_subscriber::registry().with(filter).with(lines);
        subscriber.try_init().map_err(|_| TelemetryError::Twice)?;
        let metrics = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(|_| TelemetryError::Twice)?;
        Ok(Self { filter: handle, metrics })
    }

    /// Takes up the levels of `config`; the format stays.
    ///
    /// # Errors
    /// If it has a filter that is none; the levels stay as they are then.
    pub fn reload(&self, config: &LogConfig) -> Result<(), TelemetryError> {
        self.filter.reload(env_filter(config)?).map_err(|_| TelemetryError::Twice)
    }

    /// A function that gives the metrics in the format of Prometheus.
    pub fn renderer(&self) -> impl Fn() -> String + Clone + Send + Sync + 'static {
        let metrics = self.metrics.clone();
        move || {
            process::measure();
            metrics.run_upkeep();
            metrics.render()
        }
    }
}

fn env_filter(config: &LogConfig) -> Result<EnvFilter, TelemetryError> {
    let directives = config.directives();
    EnvFilter::try_new(&directives).map_err(|_| TelemetryError::Filter(directives))
}
