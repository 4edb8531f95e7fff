//! Transaction ids: a request that is repeated gives the event that it made the first time
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers)).

use std::collections::{HashMap, VecDeque};

use myelin_storage::strings::StringId;
use myelin_types::MillisSinceEpoch;
use ruma::OwnedEventId;

/// How long a transaction id is remembered, in milliseconds.
pub(crate) const REMEMBERED_MS: u64 = 24 * 60 * 60 * 1000;
/// How many of a room are remembered at most: what a client repeats, it repeats soon.
pub(crate) const REMEMBERED: usize = 2000;

/// The scope of a transaction id: the device that used it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TransactionKey {
    sender_sid: StringId,
    device_id: Box<str>,
    txn_id: Box<str>,
}

impl TransactionKey {
    pub fn new(sender_sid: StringId, device_id: &str, txn_id: &str) -> Self {
        Self { sender_sid, device_id: device_id.into(), txn_id: txn_id.into() }
    }
}

/// The transaction ids that a room's latest events were sent with.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    events: HashMap<TransactionKey, OwnedEventId>,
    order: VecDeque<(MillisSinceEpoch, TransactionKey)>,
}

impl Transactions {
    pub fn get(&self, key: &TransactionKey) -> Option<&OwnedEventId> {
        self.events.get(key)
    }

    pub fn add(&mut self, key: TransactionKey, event_id: OwnedEventId, sent_at: MillisSinceEpoch) {
        if self.events.insert(key.clone(), event_id).is_none() {
            self.order.push_back((sent_at, key));
        }
        let is_over = |(then, _): &(MillisSinceEpoch, _)| then.saturating_add(REMEMBERED_MS) < sent_at;
        while self.order.len() > REMEMBERED || self.order.front().is_some_and(is_over) {
            if let Some((_, key)) = self.order.pop_front() {
                self.events.remove(&key);
            }
        }
    }

    pub fn size_bytes(&self) -> usize {
        self.order.len() * 320
    }
}
