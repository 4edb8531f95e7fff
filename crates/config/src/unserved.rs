//! Options of Synapse that have no effect here, with what is lost by that.

use crate::{document::Node, fault::Findings, load};

/// Each option of Synapse that no section reads, and what its holder has to do without.
///
/// When a part is built that serves an option, its row goes away and a section gets a field.
const UNSERVED: &[(&str, &str)] = &[
    ("account_threepid_delegates", "phone numbers can't be confirmed by another server"),
];

/// The options of the table.
pub(crate) fn keys<'a>() -> impl Iterator<Item = &'a str> {
    UNSERVED.iter().map(|(key, _)| *key)
}

/// Warns of a top-level key that no section reads.
pub(crate) fn explain(key: &str, node: &Node, served: &[String], findings: &mut Findings) {
    findings.within(key, |findings| {
        if let Some((_, lost)) = UNSERVED.iter().find(|(unserved, _)| *unserved == key) {
            // Said only of what would have an effect: files made by Synapse hold many options that are off.
            if !node.is_null() {
                findings.warn(
                    &node.origin,
                    format!("is an option of Synapse that has no effect here: {lost}"),
                    "remove it, or live without it",
                );
            }
            return;
        }
        let remedy = match load::closest_key(key, served) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "remove it".to_owned(),
        };
        findings.warn(&node.origin, "is not an option; it has no effect", remedy);
    });
}
