//! What is wrong with a configuration, said so that an operator can mend it.

use std::fmt;

use crate::document::Origin;

/// An error in the configuration: no daemon starts with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file (or environment variable) that holds the value; empty where no file is to blame.
    pub file: String,
    /// The line in `file`, counted from 1, where it is known.
    pub line: Option<u32>,
    /// The path of the key, such as `listeners[0].port`; empty when the whole file is meant.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// Something an operator should know but that stops nothing: an old spelling, a key without effect, a likely slip.
///
/// `myelin-ctl config check --strict` treats these as errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The file (or environment variable) that holds the value; empty where no file is to blame.
    pub file: String,
    /// The line in `file`, counted from 1, where it is known.
    pub line: Option<u32>,
    /// The path of the key, such as `redis.prot`.
    pub path: String,
    /// What was found and what follows from it.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// All faults of a configuration, and the warnings that came up on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Never empty; in the order of files and lines.
    pub faults: Vec<Fault>,
    /// The warnings that were collected before loading was given up.
    pub warnings: Vec<Warning>,
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_finding(f, "error", (&self.file, self.line), &self.path, &self.message, &self.remedy)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_finding(f, "warning", (&self.file, self.line), &self.path, &self.message, &self.remedy)
    }
}

fn write_finding(
    f: &mut fmt::Formatter<'_>,
    severity: &str,
    (file, line): (&str, Option<u32>),
    path: &str,
    message: &str,
    remedy: &str,
) -> fmt::Result {
    write!(f, "{severity}: ")?;
    if !file.is_empty() {
        write!(f, "{file}")?;
        if let Some(line) = line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
    }
    if !path.is_empty() {
        write!(f, "{path}: ")?;
    }
    f.write_str(message)?;
    if !remedy.is_empty() {
        write!(f, "\n  remedy: {remedy}")?;
    }
    Ok(())
}

/// Collects what is found while a configuration is read, and knows at which key the reader stands.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub faults: Vec<Fault>,
    pub warnings: Vec<Warning>,
    path: Vec<Segment>,
}

#[derive(Debug)]
enum Segment {
    Key(String),
    Index(usize),
}

impl Findings {
    /// Runs `read` with `key` appended to the current path.
    pub fn within<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Segment::Key(key.to_owned()));
        let result = read(self);
        self.path.pop();
        result
    }

    /// Runs `read` with `[index]` appended to the current path.
    pub fn within_item<T>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Segment::Index(index));
        let result = read(self);
        self.path.pop();
        result
    }

    /// Records an error at the current path.
    pub fn fault(&mut self, origin: &Origin, message: impl Into<String>, remedy: impl Into<String>) {
        let path = self.path();
        self.fault_at(origin, path, message, remedy);
    }

    /// Records an error at a path given in full.
    pub fn fault_at(
        &mut self,
        origin: &Origin,
        path: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.faults.push(Fault {
            file: origin.source.to_string(),
            line: origin.line,
            path: path.into(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    /// Records a warning at the current path.
    pub fn warn(&mut self, origin: &Origin, message: impl Into<String>, remedy: impl Into<String>) {
        let path = self.path();
        self.warn_at(origin, path, message, remedy);
    }

    /// Records a warning at a path given in full.
    pub fn warn_at(
        &mut self,
        origin: &Origin,
        path: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.warnings.push(Warning {
            file: origin.source.to_string(),
            line: origin.line,
            path: path.into(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    /// The current path, such as `listeners[0].port`.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for segment in &self.path {
            match segment {
                Segment::Key(key) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                Segment::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }
}
