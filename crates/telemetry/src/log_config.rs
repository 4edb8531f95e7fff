//! The file that `log_config` names: ours, or a Python logging configuration as Synapse has it.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The lowest level that is logged: `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// How lines look.
    pub format: Format,
    /// Other levels for some parts: `myelin_rooms: debug`.
    pub filters: BTreeMap<String, String>,
    /// What the operator should know about the file.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: Format::Text,
            filters: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }
}

/// Libraries that talk too much at `info`: refinery of every migration that it looks at, ruma of every event that it
/// allows.
const QUIET: &str = "refinery_core=warn,ruma_state_res=warn";

/// A `log_config` file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("log_config: {0}")]
pub struct LogConfigError(String);

/// What we take from a file in the schema of Python's `logging.config`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PythonConfig {
    version: Option<u32>,
    root: PythonLogger,
    loggers: BTreeMap<String, PythonLogger>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PythonLogger {
    level: Option<String>,
}

impl LogConfig {
    /// Reads the file; none is the default.
    ///
    /// # Errors
    /// If it can't be read or is in neither format.
    pub fn load(path: Option<&Path>) -> Result<Self, LogConfigError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| LogConfigError(format!("{} can't be read: {error}", path.display())))?;
        Self::parse(&text).map_err(|error| LogConfigError(format!("{}: {error}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        match serde_saphyr::from_str::<PythonConfig>(text) {
            Ok(python) if python.version.is_some() => Ok(Self::from_python(&python)),
            _ => serde_saphyr::from_str(text).map_err(|error| error.to_string()),
        }
    }

    fn from_python(python: &PythonConfig) -> Self {
        let level = |logger: &PythonLogger| logger.level.as_deref().and_then(rust_level).map(str::to_owned);
        let synapse = python.loggers.get("synapse").and_then(level);
        let mut config = Self::default();
        if let Some(level) = synapse.or_else(|| level(&python.root)) {
            config.level = level;
        }
        config.warnings.push(
            "is a Python logging configuration: its levels are taken, its handlers and formatters have no effect; \
             write `level`, `format` and `filters` instead"
                .to_owned(),
        );
        config
    }

    /// The levels as tracing-subscriber takes them.
    pub(crate) fn directives(&self) -> String {
        let filters = self.filters.iter().map(|(target, level)| format!(",{target}={level}"));
        format!("{},{QUIET}", self.level) + &filters.collect::<String>()
    }
}

fn rust_level(python: &str) -> Option<&'static str> {
    match python.to_ascii_uppercase().as_str() {
        "CRITICAL" | "FATAL" | "ERROR" => Some("error"),
        "WARNING" | "WARN" => Some("warn"),
        "INFO" => Some("info"),
        "DEBUG" | "NOTSET" => Some("debug"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_format_has_level_format_and_filters() {
        let config = LogConfig::parse("level: warn\nformat: json\nfilters: {myelin_rooms: debug}\n").unwrap();
        assert_eq!(config.format, Format::Json);
        assert_eq!(config.directives(), "warn,refinery_core=warn,ruma_state_res=warn,myelin_rooms=debug");
        assert!(config.warnings.is_empty());
        assert!(LogConfig::parse("levle: warn\n").unwrap_err().contains("levle"));
    }

    #[test]
    fn of_a_python_configuration_the_levels_are_taken() {
        let text = "
version: 1
formatters: {precise: {format: '%(asctime)s'}}
handlers: {console: {class: logging.StreamHandler, formatter: precise}}
loggers: {synapse: {level: DEBUG}, synapse.storage.SQL: {level: INFO}}
root: {level: WARNING, handlers: [console]}
disable_existing_loggers: false
";
        let config = LogConfig::parse(text).unwrap();
        assert_eq!((config.level.as_str(), config.format), ("debug", Format::Text));
        assert!(config.warnings[0].contains("Python"), "{config:?}");
        assert_eq!(LogConfig::parse("version: 1\nroot: {level: ERROR}\n").unwrap().level, "error");
    }

    #[test]
    fn a_missing_file_is_told_by_its_name() {
        let error = LogConfig::load(Some(Path::new("/nowhere/log.yaml"))).unwrap_err();
        assert!(error.to_string().contains("/nowhere/log.yaml"));
        assert_eq!(LogConfig::load(None).unwrap(), LogConfig::default());
    }
}
