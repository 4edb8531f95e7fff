//! Finding and reading the files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    document::{self, Map, Value},
    fault::{Fault, Findings},
};

/// The largest file that is read: many times what any configuration needs.
const LARGEST_BYTES: u64 = 8 * 1024 * 1024;

/// The files that `paths` name, folders replaced by the `*.yaml` files in them.
pub(super) fn list(paths: &[PathBuf], findings: &mut Findings) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        match list_folder(path) {
            Ok(found) if found.is_empty() => {
                unreadable(path, "holds no `*.yaml` file", "put the configuration files there", findings);
            }
            Ok(found) => files.extend(found),
            Err(error) => {
                unreadable(path, &format!("can't be listed: {error}"), "make the folder readable", findings);
            }
        }
    }
    files
}

fn list_folder(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The top-level keys of a file, and the name by which findings call it.
pub(super) fn read(path: &Path, findings: &mut Findings) -> Option<(Map, Arc<str>)> {
    let source: Arc<str> = path.display().to_string().into();
    let text = match std::fs::metadata(path).and_then(|metadata| {
        if metadata.len() > LARGEST_BYTES {
            return Err(std::io::Error::other("it is too large for a configuration file"));
        }
        std::fs::read_to_string(path)
    }) {
        Ok(text) => text,
        Err(error) => {
            unreadable(
                path,
                &format!("can't be read: {error}"),
                "check the path and that the user who runs the daemon may read it",
                findings,
            );
            return None;
        }
    };
    let node = match document::parse(&text, &source) {
        Ok(node) => node,
        Err(fault) => {
            findings.faults.push(fault);
            return None;
        }
    };
    match node.value {
        Value::Map(map) => Some((map, source)),
        Value::Null => Some((Map::default(), source)),
        _ => {
            findings.fault(&node.origin, "is not a mapping of options", "write one `option: value` a line");
            None
        }
    }
}

fn unreadable(path: &Path, message: &str, remedy: &str, findings: &mut Findings) {
    findings.faults.push(Fault {
        file: path.display().to_string(),
        line: None,
        path: String::new(),
        message: message.to_owned(),
        remedy: remedy.to_owned(),
    });
}
