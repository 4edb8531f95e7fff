//! `strings`: event types, state keys and user ids as numbers, cached in memory.

use std::{collections::HashMap, sync::Arc};

use quick_cache::sync::Cache;

use crate::{GenericClient, Result, StorageError, query};

/// The number of an interned string.
pub type StringId = i64;

/// Strings by number and numbers by string, for ever the same: safe to cache in every process. Clones share the cache.
#[derive(Clone, Debug)]
pub struct Strings {
    by_value: Arc<Cache<Arc<str>, StringId>>,
    by_id: Arc<Cache<StringId, Arc<str>>>,
}

impl Strings {
    /// A cache of at most `capacity` strings.
    pub fn new(capacity: usize) -> Self {
        Self { by_value: Arc::new(Cache::new(capacity)), by_id: Arc::new(Cache::new(capacity)) }
    }

    /// The numbers of strings, in their order, if all of them are in the cache: no query then.
    pub fn cached<const N: usize>(&self, values: [&str; N]) -> Option<[StringId; N]> {
        let mut ids = [0; N];
        for (id, value) in ids.iter_mut().zip(values) {
            *id = self.by_value.get(value)?;
        }
        Some(ids)
    }

    /// As [`Strings::cached`], for any number of strings.
    pub fn cached_all(&self, values: &[&str]) -> Option<Vec<StringId>> {
        values.iter().map(|value| self.by_value.get(*value)).collect()
    }

    /// The number of one string, which is interned if it is new.
    pub async fn intern(&self, db: &impl GenericClient, value: &str) -> Result<StringId> {
        if let Some(id) = self.by_value.get(value) {
            return Ok(id);
        }
        let ids = self.intern_all(db, &[value]).await?;
        ids.first().copied().ok_or_else(|| StorageError::Inconsistent("a string has no number".to_owned()))
    }

    /// The numbers of many strings, in their order; new ones are interned. At most two queries, none if all are cached.
    ///
    /// Call it outside of long transactions: strings that two transactions intern at once make one wait for the other.
    pub async fn intern_all(&self, db: &impl GenericClient, values: &[&str]) -> Result<Vec<StringId>> {
        const FIND: &str = "SELECT string_id, value FROM strings WHERE value = ANY ($1)";
        // Sorted, so that two processes that intern the same strings don't wait for each other in a circle.
        const ADD: &str = "
            INSERT INTO strings (value) SELECT DISTINCT v FROM unnest($1::text[]) AS u (v) ORDER BY v
                ON CONFLICT (value) DO NOTHING";
        // Taken out of the cache once: what is found now may be evicted a moment later.
        let mut known: HashMap<Arc<str>, StringId> = HashMap::new();
        let mut unknown: Vec<String> = Vec::new();
        for value in values {
            match self.by_value.get(*value) {
                Some(id) => _ = known.insert((*value).into(), id),
                None => unknown.push((*value).to_owned()),
            }
        }
        for attempt in 0..2 {
            if unknown.is_empty() {
                break;
            }
            if attempt == 1 {
                crate::execute(db, ADD, &[&unknown]).await?;
            }
            for row in query(db, FIND, &[&unknown]).await? {
                let value: Arc<str> = row.get::<_, &str>(1).into();
                self.remember(row.get(0), &value);
                known.insert(value, row.get(0));
            }
            unknown.retain(|value| !known.contains_key(value.as_str()));
        }
        values
            .iter()
            .map(|value| known.get(*value).copied())
            .map(|id| id.ok_or_else(|| StorageError::Inconsistent("a string has no number".to_owned())))
            .collect()
    }

    /// The number of a string, if it was ever interned.
    pub async fn find(&self, db: &impl GenericClient, value: &str) -> Result<Option<StringId>> {
        const SQL: &str = "SELECT string_id FROM strings WHERE value = $1";
        if let Some(id) = self.by_value.get(value) {
            return Ok(Some(id));
        }
        let Some(row) = crate::query_opt(db, SQL, &[&value]).await? else { return Ok(None) };
        self.remember(row.get(0), &value.into());
        Ok(Some(row.get(0)))
    }

    /// The strings of many numbers, in their order. One query, none if all are cached.
    ///
    /// # Errors
    /// [`StorageError::Inconsistent`] if a number was never given out.
    pub async fn resolve_all(&self, db: &impl GenericClient, ids: &[StringId]) -> Result<Vec<Arc<str>>> {
        const SQL: &str = "SELECT string_id, value FROM strings WHERE string_id = ANY ($1)";
        let mut known: HashMap<StringId, Arc<str>> = HashMap::new();
        let mut unknown: Vec<StringId> = Vec::new();
        for id in ids {
            match self.by_id.get(id) {
                Some(value) => _ = known.insert(*id, value),
                None => unknown.push(*id),
            }
        }
        if !unknown.is_empty() {
            for row in query(db, SQL, &[&unknown]).await? {
                let value: Arc<str> = row.get::<_, &str>(1).into();
                self.remember(row.get(0), &value);
                known.insert(row.get(0), value);
            }
        }
        ids.iter()
            .map(|id| known.get(id).cloned())
            .map(|value| value.ok_or_else(|| StorageError::Inconsistent("a number has no string".to_owned())))
            .collect()
    }

    fn remember(&self, id: StringId, value: &Arc<str>) {
        self.by_value.insert(value.clone(), id);
        self.by_id.insert(id, value.clone());
    }
}
