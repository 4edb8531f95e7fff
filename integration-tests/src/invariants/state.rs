//! The current state of a room: what its state events make of it, replayed in the order of the timeline.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;

/// By type and state key, the event.
pub type State = BTreeMap<(String, String), String>;

/// A state event in the timeline of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEvent {
    /// Its type and state key.
    pub key: (String, String),
    /// Its ID.
    pub event_id: String,
}

/// What happened to the state of rooms, and what processes say that it is in the end.
#[derive(Clone, Debug, Default)]
pub(super) struct States {
    // By room.
    replayed: BTreeMap<String, State>,
    told: Vec<(String, String, State)>,
}

impl States {
    pub(super) fn happened(&mut self, room_id: &str, events: Vec<StateEvent>) {
        let state = events.into_iter().map(|event| (event.key, event.event_id)).collect();
        self.replayed.insert(room_id.to_owned(), state);
    }

    pub(super) fn told(&mut self, room_id: &str, process: &str, state: State) {
        self.told.push((room_id.to_owned(), process.to_owned(), state));
    }

    pub(super) fn violations(&self) -> Vec<Violation> {
        let differences = |(room_id, process, told): &(String, String, State)| {
            let replayed = self.replayed.get(room_id).cloned().unwrap_or_default();
            let keys: BTreeSet<_> = told.keys().chain(replayed.keys()).cloned().collect();
            let name = |event: Option<&String>| event.cloned().unwrap_or_else(|| "nothing".to_owned());
            let difference = |key: (String, String)| {
                let (told, replayed) = (told.get(&key), replayed.get(&key));
                let (kind, state_key) = &key;
                (told != replayed).then(|| {
                    Violation(format!(
                        "{process} says that {kind} of {state_key:?} in {room_id} is {}, by the timeline it is {}",
                        name(told),
                        name(replayed)
                    ))
                })
            };
            keys.into_iter().filter_map(difference).collect::<Vec<_>>()
        };

        self.told.iter().flat_map(differences).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::{History, check};

    /// `type/key=event`, one after the other.
    fn events(text: &str) -> Vec<StateEvent> {
        let event = |text: &str| {
            let (key, event_id) = text.split_once('=').expect("an event has an ID");
            let (kind, state_key) = key.split_once('/').expect("a state event has a key");
            StateEvent { key: (kind.to_owned(), state_key.to_owned()), event_id: event_id.to_owned() }
        };
        text.split_whitespace().map(event).collect()
    }

    #[track_caller]
    fn differs(happened: &str, told: &str, violations: &[&str]) {
        let mut history = History::default();
        history.state_events("!r", events(happened));
        let told = events(told).into_iter().map(|event| (event.key, event.event_id)).collect();
        history.state("!r", "main", told);
        check(&history, violations);
    }

    #[test]
    fn a_state_that_is_not_what_the_events_make_of_it_is_found() {
        differs("topic/=$1 member/a=$2 topic/=$3", "member/a=$2 topic/=$3", &[]);
        differs(
            "topic/=$1 member/a=$2 topic/=$3",
            "member/a=$2 topic/=$1",
            &[r#"main says that topic of "" in !r is $1, by the timeline it is $3"#],
        );
        differs(
            "topic/=$1",
            "",
            &[r#"main says that topic of "" in !r is nothing, by the timeline it is $1"#],
        );
        differs(
            "",
            "topic/x=$1",
            &[r#"main says that topic of "x" in !r is $1, by the timeline it is nothing"#],
        );
    }
}
