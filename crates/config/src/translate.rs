//! Old spellings, rewritten to those of today with a warning that names the new one.

use crate::{document::Map, fault::Findings};

/// Rewrites what `root` says in old words.
pub(crate) fn translate(_root: &mut Map, _findings: &mut Findings) {}
