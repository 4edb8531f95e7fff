//! Messages to devices: each arrives, perhaps more than once.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;

/// By device, the messages that were sent to it and those that arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct ToDevice {
    devices: BTreeMap<String, Mailbox>,
}

#[derive(Clone, Debug, Default)]
struct Mailbox {
    sent: BTreeSet<String>,
    arrived: BTreeSet<String>,
}

impl ToDevice {
    pub(super) fn note(&mut self, device: &str, message: &str, arrived: bool) {
        let mailbox = self.devices.entry(device.to_owned()).or_default();
        let messages = if arrived { &mut mailbox.arrived } else { &mut mailbox.sent };
        messages.insert(message.to_owned());
    }

    pub(super) fn violations(&self) -> impl Iterator<Item = Violation> {
        self.devices.iter().flat_map(|(device, mailbox)| {
            let lost = mailbox.sent.difference(&mailbox.arrived);
            lost.map(move |message| Violation(format!("{message} never arrived at the device {device}")))
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::invariants::{History, check};

    fn history(sent: &[(&str, &str)], arrived: &[(&str, &str)]) -> History {
        let mut history = History::default();
        for (device, message) in sent {
            history.message_to_device(device, message, false);
        }
        for (device, message) in arrived {
            history.message_to_device(device, message, true);
        }
        history
    }

    #[test]
    fn what_arrives_more_than_once_or_without_an_answer_to_the_sender_is_fine() {
        check(&history(&[("a", "1")], &[("a", "1"), ("a", "1"), ("a", "2")]), &[]);
    }

    #[test]
    fn a_lost_message_to_a_device_is_found() {
        let lost = history(&[("a", "1"), ("a", "2"), ("b", "2")], &[("a", "1"), ("b", "2")]);
        check(&lost, &["2 never arrived at the device a"]);
        // That it arrived at another device is no excuse.
        check(&history(&[("a", "1")], &[("b", "1")]), &["1 never arrived at the device a"]);
    }
}
