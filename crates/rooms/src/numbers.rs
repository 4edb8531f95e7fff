//! Numbers of events and strings, taken from memory nearly always.

use std::sync::Arc;

use myelin_storage::{
    Database, GenericClient, Result,
    rooms::{self, EVENT_NID_BLOCK},
    strings::{StringId, Strings},
};
use parking_lot::Mutex;

use crate::EventNid;

/// Gives out event numbers and interns strings.
#[derive(Debug)]
pub(crate) struct Numbers {
    database: Database,
    strings: Strings,
    /// The numbers that are left of the last block.
    block: Mutex<std::ops::Range<i64>>,
}

impl Numbers {
    pub fn new(database: Database, strings: Strings) -> Self {
        Self { database, strings, block: Mutex::new(0..0) }
    }

    /// A number for a new event; asks the database once in a thousand times.
    pub async fn event_nid(&self) -> Result<EventNid> {
        if let Some(nid) = self.block.lock().next() {
            return Ok(EventNid(nid));
        }
        let first = rooms::take_event_nids(&self.database.get().await?).await?;
        // Two tasks may have found the block empty: what the slower one got is used for its own event only.
        let mut block = self.block.lock();
        if block.is_empty() {
            *block = first + 1..first + EVENT_NID_BLOCK;
        }
        Ok(EventNid(first))
    }

    /// The numbers of strings; asks the database for those that are not in memory.
    pub async fn strings<const N: usize>(&self, values: [&str; N]) -> Result<[StringId; N]> {
        if let Some(ids) = self.strings.cached(values) {
            return Ok(ids);
        }
        let ids = self.strings.intern_all(&self.database.get().await?, &values).await?;
        let mut array = [0; N];
        array.iter_mut().zip(ids).for_each(|(place, id)| *place = id);
        Ok(array)
    }

    /// The strings of numbers; asks the database for those that are not in memory.
    pub async fn resolve_strings(&self, ids: &[StringId]) -> Result<Vec<Arc<str>>> {
        match ids.is_empty() {
            true => Ok(Vec::new()),
            false => self.strings.resolve_all(&self.database.get().await?, ids).await,
        }
    }

    /// As [`Numbers::strings`], for any number of them.
    pub async fn all_strings(&self, values: &[&str]) -> Result<Vec<StringId>> {
        match self.strings.cached_all(values) {
            Some(ids) => Ok(ids),
            None => self.all_strings_on(&self.database.get().await?, values).await,
        }
    }

    /// As [`Numbers::all_strings`], for who has a connection already and must not wait for another.
    pub async fn all_strings_on(&self, db: &impl GenericClient, values: &[&str]) -> Result<Vec<StringId>> {
        self.strings.intern_all(db, values).await
    }
}
