//! Changes of devices: everybody who shares a room is told.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;

/// By user whose devices changed, who should have been told and who was.
#[derive(Clone, Debug, Default)]
pub(super) struct DeviceLists {
    changes: BTreeMap<String, Change>,
}

#[derive(Clone, Debug, Default)]
struct Change {
    observers: BTreeSet<String>,
    told: BTreeSet<String>,
}

impl DeviceLists {
    pub(super) fn note(&mut self, user: &str, observers: &[&str], told: &[&str]) {
        let change = self.changes.entry(user.to_owned()).or_default();
        change.observers.extend(observers.iter().map(|&observer| observer.to_owned()));
        change.told.extend(told.iter().map(|&observer| observer.to_owned()));
    }

    pub(super) fn violations(&self) -> impl Iterator<Item = Violation> {
        self.changes.iter().flat_map(|(user, change)| {
            let left_out = change.observers.difference(&change.told);
            left_out.map(move |observer| {
                Violation(format!("{observer} was not told that the devices of {user} changed"))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::invariants::{History, check};

    #[test]
    fn who_is_left_out_is_found() {
        let mut history = History::default();
        history.devices_changed("a", &["b", "c"], &["b", "c", "a"]);
        check(&history, &[]);
        history.devices_changed("b", &["a", "c"], &["c"]);
        check(&history, &["a was not told that the devices of b changed"]);
    }
}
