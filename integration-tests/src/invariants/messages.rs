//! Messages: each is there once, in one order, and a transaction ID makes one event.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Violation;

/// A sending that was answered 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The room it was sent to.
    pub room_id: String,
    /// Who sent it.
    pub sender: String,
    /// Under which transaction ID. The event's body must be this, so that it is known even if nobody heard the answer.
    pub txn_id: String,
    /// The event ID that the server answered.
    pub event_id: String,
}

/// An event in a member's timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The event's ID.
    pub event_id: String,
    /// Who sent it.
    pub sender: String,
    /// The content's `body`: for messages of the test, the transaction ID.
    pub body: Option<String>,
}

/// The messages that were sent, and the timelines of all members.
#[derive(Clone, Debug, Default)]
pub(super) struct Messages {
    pub(super) acknowledged: Vec<Acknowledged>,
    // By room, then by member; ordered, so that violations are told in the same order each time.
    pub(super) timelines: BTreeMap<String, BTreeMap<String, Vec<Seen>>>,
}

impl Messages {
    pub(super) fn violations(&self) -> Vec<Violation> {
        let mut violations = self.repeated_transactions();
        for (room_id, members) in &self.timelines {
            let sent: Vec<_> = self.acknowledged.iter().filter(|sent| sent.room_id == *room_id).collect();
            for (member, timeline) in members {
                violations.extend(repetitions(room_id, member, timeline));
                violations.extend(losses_and_swaps(member, timeline, &sent));
            }
            // One order for all is one order between each and the first.
            let mut members = members.iter();
            if let Some(first) = members.next() {
                violations.extend(members.filter_map(|other| different_order(room_id, first, other)));
            }
        }

        violations
    }

    fn repeated_transactions(&self) -> Vec<Violation> {
        let acknowledged =
            self.acknowledged.iter().map(|sent| (&sent.room_id, &sent.sender, &sent.txn_id, &sent.event_id));
        let seen = self.timelines.iter().flat_map(|(room_id, members)| {
            members.values().flatten().filter_map(move |seen| {
                seen.body.as_ref().map(|txn_id| (room_id, &seen.sender, txn_id, &seen.event_id))
            })
        });
        let mut events: BTreeMap<_, Vec<&String>> = BTreeMap::new();
        for (room_id, sender, txn_id, event_id) in acknowledged.chain(seen) {
            let made = events.entry((room_id, sender, txn_id)).or_default();
            if !made.contains(&event_id) {
                made.push(event_id);
            }
        }

        events
            .into_iter()
            .filter(|(_, made)| made.len() > 1)
            .map(|((room_id, sender, txn_id), made)| {
                let events: Vec<_> = made.into_iter().map(String::as_str).collect();
                Violation(format!(
                    "{txn_id} of {sender} made several events in {room_id}: {}",
                    events.join(", ")
                ))
            })
            .collect()
    }
}

/// Events that a member sees more than once.
fn repetitions(room_id: &str, member: &str, timeline: &[Seen]) -> Vec<Violation> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for seen in timeline {
        *times.entry(&seen.event_id).or_default() += 1;
    }

    times
        .into_iter()
        .filter(|(_, times)| *times > 1)
        .map(|(event_id, times)| Violation(format!("{member} sees {event_id} in {room_id} {times} times")))
        .collect()
}

/// Acknowledged events that a member doesn't see, or sees in another order than their sender's.
fn losses_and_swaps(member: &str, timeline: &[Seen], sent: &[&Acknowledged]) -> Vec<Violation> {
    let places = places(timeline);
    let mut violations = Vec::new();
    let mut latest: HashMap<&str, (usize, &Acknowledged)> = HashMap::new();
    for &acknowledged in sent {
        let Some(&place) = places.get(acknowledged.event_id.as_str()) else {
            let Acknowledged { room_id, sender, txn_id, event_id } = acknowledged;
            violations.push(Violation(format!(
                "{member} doesn't see {event_id} in {room_id}, sent by {sender} as {txn_id}"
            )));
            continue;
        };
        match latest.get(acknowledged.sender.as_str()) {
            Some(&(before, earlier)) if before > place => violations.push(Violation(format!(
                "{member} sees {} in {} after {}, which {} sent later",
                earlier.event_id, earlier.room_id, acknowledged.event_id, earlier.sender
            ))),
            _ => drop(latest.insert(&acknowledged.sender, (place, acknowledged))),
        }
    }

    violations
}

/// The first two events that both members see, but in different orders.
fn different_order(
    room_id: &str,
    (one, theirs): (&String, &Vec<Seen>),
    (other, others): (&String, &Vec<Seen>),
) -> Option<Violation> {
    let places = places(others);
    let mut once = HashSet::new();
    let shared: Vec<_> = theirs
        .iter()
        .filter(|seen| once.insert(seen.event_id.as_str()))
        .filter_map(|seen| places.get(seen.event_id.as_str()).map(|place| (seen.event_id.clone(), *place)))
        .collect();
    let (first, second) =
        shared.iter().zip(shared.iter().skip(1)).find(|(first, second)| first.1 > second.1)?;

    let (first, second) = (&first.0, &second.0);
    Some(Violation(format!("in {room_id}, {one} sees {first} before {second}, but {other} after it")))
}

/// Where each event is seen first.
fn places(timeline: &[Seen]) -> HashMap<&str, usize> {
    let mut places = HashMap::new();
    for (place, seen) in timeline.iter().enumerate() {
        places.entry(seen.event_id.as_str()).or_insert(place);
    }

    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::History;

    /// The history of one room: what was answered, as `sender/txn=event`, and what each member saw, as
    /// `sender/txn=event` again, or `event` alone for one that is no message of the test.
    fn history(acknowledged: &str, timelines: &[(&str, &str)]) -> History {
        let mut history = History::default();
        for sent in acknowledged.split_whitespace() {
            let (sender, txn_id, event_id) = parse(sent);
            let txn_id = txn_id.expect("what is answered has a transaction");
            history.acknowledge(Acknowledged { room_id: "!r".to_owned(), sender, txn_id, event_id });
        }
        for (member, timeline) in timelines {
            let timeline: Vec<_> = timeline
                .split_whitespace()
                .map(parse)
                .map(|(sender, body, event_id)| Seen { event_id, sender, body })
                .collect();
            history.saw("!r", member, &timeline);
        }

        history
    }

    fn parse(text: &str) -> (String, Option<String>, String) {
        match text.split_once('=').and_then(|(left, event_id)| Some((left.split_once('/')?, event_id))) {
            Some(((sender, txn_id), event_id)) => {
                (sender.to_owned(), Some(txn_id.to_owned()), event_id.to_owned())
            }
            None => ("somebody".to_owned(), None, text.to_owned()),
        }
    }

    #[track_caller]
    fn check(acknowledged: &str, timelines: &[(&str, &str)], violations: &[&str]) {
        let found: Vec<_> =
            history(acknowledged, timelines).violations().iter().map(ToString::to_string).collect();
        assert_eq!(found, violations);
    }

    #[test]
    fn a_good_history_has_no_violations() {
        check("", &[], &[]);
        check(
            "a/1=$1 b/1=$2 a/2=$3",
            &[("a", "$create a/1=$1 b/1=$2 $other a/2=$3"), ("b", "a/1=$1 b/1=$2 $other a/2=$3")],
            &[],
        );
        // Two senders answered at about the same time may be persisted in either order.
        check("a/1=$1 b/1=$2", &[("a", "b/1=$2 a/1=$1"), ("b", "b/1=$2 a/1=$1")], &[]);
        // Sent, but the answer was lost with the server: it may be there or not.
        check("a/1=$1", &[("a", "a/1=$1 a/2=$2"), ("b", "a/1=$1 a/2=$2")], &[]);
    }

    #[test]
    fn a_lost_event_is_found() {
        check(
            "a/1=$1 a/2=$2",
            &[("a", "a/1=$1 a/2=$2"), ("b", "a/1=$1")],
            &["b doesn't see $2 in !r, sent by a as 2"],
        );
    }

    #[test]
    fn a_repeated_event_is_found_even_if_it_is_no_message() {
        check("a/1=$1", &[("a", "a/1=$1"), ("b", "a/1=$1 a/1=$1")], &["b sees $1 in !r 2 times"]);
        check("", &[("a", "$join $x $join $join")], &["a sees $join in !r 3 times"]);
    }

    #[test]
    fn members_that_disagree_on_the_order_are_found() {
        check(
            "a/1=$1 b/1=$2",
            &[("a", "a/1=$1 b/1=$2"), ("b", "b/1=$2 a/1=$1"), ("c", "a/1=$1 b/1=$2")],
            &["in !r, a sees $1 before $2, but b after it"],
        );
        // Events that one of them doesn't see stand between.
        check("", &[("a", "$1 $x $2"), ("b", "$2 $y $1")], &["in !r, a sees $1 before $2, but b after it"]);
    }

    #[test]
    fn a_senders_events_in_another_order_than_sent_are_found() {
        check(
            "a/1=$1 a/2=$2 a/3=$3",
            &[("a", "a/2=$2 a/1=$1 a/3=$3")],
            &["a sees $1 in !r after $2, which a sent later"],
        );
    }

    #[test]
    fn a_transaction_that_made_two_events_is_found() {
        // The repetition was answered with another event.
        check("a/1=$1 a/1=$2", &[("a", "a/1=$1 a/1=$2")], &["1 of a made several events in !r: $1, $2"]);
        // The first answer never came, but the event is there.
        check("a/1=$2", &[("a", "a/1=$1 a/1=$2")], &["1 of a made several events in !r: $2, $1"]);
        // The same transaction ID of another sender is another transaction.
        check("a/1=$1 b/1=$2", &[("a", "a/1=$1 b/1=$2")], &[]);
    }

    #[test]
    #[should_panic(expected = "1 violations:\n- b doesn't see $1 in !r, sent by a as 1")]
    fn a_violation_fails_the_test() {
        history("a/1=$1", &[("a", "a/1=$1"), ("b", "")]).assert_holds();
    }
}
