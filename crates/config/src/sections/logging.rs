//! Where the configuration of the logs is.

use std::path::PathBuf;

use crate::section::{all_defaulted, section};

section! {
    /// Logs and metrics.
    Logging {
        /// A YAML file that configures the logs: `level`, `format` and `filters`, or a Python logging configuration,
        /// of which the levels are taken. A worker has `worker_log_config` instead. Read again at SIGHUP.
        log_config: Option<PathBuf> = null,
        /// Whether to keep Prometheus metrics, for listeners with `type: metrics` or the resource `metrics`.
        enable_metrics: bool = false,
    }
}

all_defaulted!(Logging);
