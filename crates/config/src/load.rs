//! From paths to a [`Config`]: files, environment, old spellings, sections, checks.

mod environment;
mod files;

use std::path::PathBuf;

use crate::{
    checks,
    config::{self, Config},
    document::{Map, Origin},
    fault::{Fault, Faults, Findings, Warning},
    section, translate, unserved,
};

/// Environment variables that begin so replace options: `MYELIN_REDIS__HOST=redis` is `redis: {host: redis}`.
pub const ENVIRONMENT_PREFIX: &str = "MYELIN_";

/// Loads the configuration of one process.
///
/// `paths` are files, and folders of which all `*.yaml` files are taken in the order of their names. A later file
/// replaces whole top-level keys of earlier ones, so that a worker is started with the shared file and its own. The
/// environment of the process (see [`ENVIRONMENT_PREFIX`]) comes last.
///
/// # Errors
///
/// All faults of all files at once. No port should be opened and no database touched with any of them.
pub fn load(paths: &[PathBuf]) -> Result<(Config, Vec<Warning>), Faults> {
    load_with(paths, std::env::vars())
}

/// [`load`] with another environment than that of the process, for tests and for a look at other processes' files.
///
/// # Errors
///
/// As [`load`].
pub fn load_with(
    paths: &[PathBuf],
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<(Config, Vec<Warning>), Faults> {
    let mut findings = Findings::default();
    let config = read(paths, environment, &mut findings);
    let Findings { mut faults, mut warnings, .. } = findings;
    faults.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    warnings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    match config {
        Some(config) if faults.is_empty() => Ok((config, warnings)),
        _ => {
            debug_assert!(!faults.is_empty(), "what gives no configuration records a fault");
            Err(Faults { faults, warnings })
        }
    }
}

fn read(
    paths: &[PathBuf],
    environment: impl IntoIterator<Item = (String, String)>,
    findings: &mut Findings,
) -> Option<Config> {
    if paths.is_empty() {
        findings.faults.push(Fault {
            file: String::new(),
            line: None,
            path: String::new(),
            message: "no configuration file is given".to_owned(),
            remedy: "name one: `--config-path homeserver.yaml`; `myelin-ctl config generate` makes it"
                .to_owned(),
        });
        return None;
    }
    let mut root = Map::default();
    let mut origin = Origin::nowhere();
    for file in files::list(paths, findings) {
        if let Some((map, source)) = files::read(&file, findings) {
            for (key, node) in map.entries {
                root.set(&key, node);
            }
            // What is missing everywhere is best added to the first file, which the processes share.
            if origin.source.is_empty() {
                origin = Origin { source, line: None };
            }
        }
    }
    // Without the files, each option that they hold would be said to be missing.
    if !findings.faults.is_empty() {
        return None;
    }
    environment::apply(&mut root, environment, findings);
    translate::translate(&mut root, findings);
    let served = config::served_keys();
    for (key, node) in &root.entries {
        if !served.iter().any(|served| served == key) {
            unserved::explain(key, node, &served, findings);
        }
    }
    let mut config = Config::read(&root, &origin, findings)?;
    config.apply_worker_options();
    checks::check(&config, &checks::Places::new(&root, &origin), findings);
    Some(config)
}

/// The known key that `key` is likely to be a slip of, served or not.
pub(crate) fn closest_key<'a>(key: &str, served: &'a [String]) -> Option<&'a str> {
    section::closest(key, served.iter().map(String::as_str).chain(unserved::keys()))
}
