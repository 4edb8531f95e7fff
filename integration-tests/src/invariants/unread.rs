//! Unread counts: what the server says equals a recount of the timeline.

use std::collections::BTreeMap;

use super::{
    Violation,
    messages::{Messages, Seen},
};

/// The receipts of members, and what processes say of what is unread in the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Unread {
    // By room and member.
    receipts: BTreeMap<(String, String), String>,
    told: Vec<Told>,
}

#[derive(Clone, Debug)]
struct Told {
    room_id: String,
    member: String,
    process: String,
    notifications: u64,
}

impl Unread {
    pub(super) fn read_up_to(&mut self, room_id: &str, member: &str, event_id: &str) {
        self.receipts.insert((room_id.to_owned(), member.to_owned()), event_id.to_owned());
    }

    pub(super) fn told(&mut self, room_id: &str, member: &str, process: &str, notifications: u64) {
        let (room_id, member, process) = (room_id.to_owned(), member.to_owned(), process.to_owned());
        self.told.push(Told { room_id, member, process, notifications });
    }

    pub(super) fn violations(&self, messages: &Messages) -> Vec<Violation> {
        let violation = |told: &Told| {
            let Told { room_id, member, process, notifications } = told;
            let timeline = messages.timelines.get(room_id).and_then(|members| members.get(member))?;
            let receipt = self.receipts.get(&(room_id.clone(), member.clone()));
            let counted = recount(timeline, member, receipt.map(String::as_str));
            (counted != *notifications).then(|| {
                Violation(format!(
                    "{process} says that {member} has {notifications} unread messages in {room_id}, which are {counted}"
                ))
            })
        };

        self.told.iter().filter_map(violation).collect()
    }
}

/// The messages of others after the last receipt. Every message notifies, by the default rules.
fn recount(timeline: &[Seen], member: &str, receipt: Option<&str>) -> u64 {
    let read = receipt.and_then(|receipt| timeline.iter().rposition(|seen| seen.event_id == receipt));
    let unread = &timeline[read.map_or(0, |place| place + 1)..];
    let notify = unread.iter().filter(|seen| seen.body.is_some() && seen.sender != member).count();

    u64::try_from(notify).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use crate::invariants::{History, Seen, check};

    /// The history of a room with the messages `sender=event`, or events alone that are no messages.
    fn history(timeline: &str) -> History {
        let seen = |text: &str| match text.split_once('=') {
            Some((sender, event_id)) => Seen {
                event_id: event_id.to_owned(),
                sender: sender.to_owned(),
                body: Some(event_id.to_owned()),
            },
            None => Seen { event_id: text.to_owned(), sender: "x".to_owned(), body: None },
        };
        let timeline: Vec<_> = timeline.split_whitespace().map(seen).collect();
        let mut history = History::default();
        history.saw("!r", "a", &timeline);
        history
    }

    #[test]
    fn a_count_that_differs_from_the_timeline_is_found() {
        let mut history = history("$join b=$1 a=$2 b=$3 $topic c=$4");
        history.unread("!r", "a", "main", 3);
        check(&history, &[]);
        history.read_up_to("!r", "a", "$2");
        check(&history, &["main says that a has 3 unread messages in !r, which are 2"]);
        history.unread("!r", "a", "worker1", 2);
        history.unread("!r", "a", "worker2", 1);
        check(
            &history,
            &[
                "main says that a has 3 unread messages in !r, which are 2",
                "worker2 says that a has 1 unread messages in !r, which are 2",
            ],
        );
    }

    #[test]
    fn the_last_receipt_counts() {
        let mut history = history("b=$1 b=$2 b=$3");
        history.read_up_to("!r", "a", "$1");
        history.read_up_to("!r", "a", "$3");
        history.unread("!r", "a", "main", 0);
        check(&history, &[]);
    }
}
