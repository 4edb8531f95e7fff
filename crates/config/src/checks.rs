//! Contradictions between options, each an error with a remedy.

use crate::{
    config::Config,
    document::{Map, Origin},
    fault::Findings,
};

/// Where each option was written.
pub(crate) struct Places<'a> {
    root: &'a Map,
    fallback: &'a Origin,
}

impl<'a> Places<'a> {
    pub fn new(root: &'a Map, fallback: &'a Origin) -> Self {
        Self { root, fallback }
    }

    /// The place of the option at `path`, or of the nearest option above that was written.
    pub fn of(&self, path: &[&str]) -> &Origin {
        (1..=path.len())
            .rev()
            .find_map(|length| self.root.at(&path[..length]))
            .map_or(self.fallback, |node| &node.origin)
    }
}

/// Records a fault for each contradiction.
pub(crate) fn check(_config: &Config, _places: &Places<'_>, _findings: &mut Findings) {}
