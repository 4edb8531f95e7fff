//! Streams of which only the newest row of a key counts (receipts, account data, presence), and what only memory knows (typing): whoever
//! should know of it ends up with the last one that was acknowledged.

use std::collections::BTreeMap;

use super::Violation;

/// By what was written again and again, such as "the receipt of @a:b in !c:d".
#[derive(Clone, Debug, Default)]
pub(super) struct Latest {
    keys: BTreeMap<String, Key>,
}

#[derive(Clone, Debug, Default)]
struct Key {
    written: String,
    /// By observer, what they were told last.
    told: BTreeMap<String, Option<String>>,
}

impl Latest {
    pub(super) fn note(&mut self, key: &str, written: &str, observer: &str, told: Option<&str>) {
        let key = self.keys.entry(key.to_owned()).or_default();
        written.clone_into(&mut key.written);
        key.told.insert(observer.to_owned(), told.map(str::to_owned));
    }

    pub(super) fn violations(&self) -> impl Iterator<Item = Violation> {
        self.keys.iter().flat_map(|(name, key)| {
            let wrong = key.told.iter().filter(|(_, told)| told.as_ref() != Some(&key.written));
            wrong.map(move |(observer, told)| {
                let (written, told) = (&key.written, told.as_deref().unwrap_or("nothing"));
                Violation(format!("{observer} ends with {told} for {name}, which is {written}"))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::invariants::{History, check};

    #[test]
    fn who_ends_with_an_old_row_or_none_is_found() {
        let mut history = History::default();
        history.latest("the receipt of a", "$2", "b", Some("$2"));
        check(&history, &[]);
        history.latest("the receipt of a", "$2", "c", Some("$1"));
        history.latest("the receipt of a", "$2", "d", None);
        check(
            &history,
            &[
                "c ends with $1 for the receipt of a, which is $2",
                "d ends with nothing for the receipt of a, which is $2",
            ],
        );
    }
}
