//! Filters (<https://spec.matrix.org/v1.19/client-server-api/#filtering>).

use std::sync::Arc;

use myelin_storage::{Database, Result, StorageError, filters};
use quick_cache::sync::Cache;
use ruma::{OwnedUserId, UserId, api::client::filter::FilterDefinition, canonical_json::try_from_json_map};
use serde_json::Value as JsonValue;
use sha2::{Digest as _, Sha256};

/// Filters that are kept in memory: they are small, and each client uses one or two.
const CACHED_FILTERS: usize = 20_000;

/// The filters that clients have made. Clones share one cache.
#[derive(Clone)]
pub struct Filters {
    database: Database,
    /// Filters never change.
    cache: Arc<Cache<(OwnedUserId, i64), Arc<FilterDefinition>>>,
}

impl std::fmt::Debug for Filters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filters").field("cached", &self.cache.len()).finish_non_exhaustive()
    }
}

impl Filters {
    /// The service.
    pub fn new(database: Database) -> Self {
        Self { database, cache: Arc::new(Cache::new(CACHED_FILTERS)) }
    }

    /// Keeps a filter and gives its ID; equal filters of a user get the same one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn create(&self, user: &UserId, filter: &FilterDefinition) -> Result<String> {
        let canonical = canonical(filter)?;
        let hash = Sha256::digest(&canonical);
        let id = filters::intern_filter(&self.database.get().await?, user, &canonical, &hash).await?;
        Ok(id.to_string())
    }

    /// A filter by its ID; `None` if the user has none of that ID.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn get(&self, user: &UserId, filter_id: &str) -> Result<Option<Arc<FilterDefinition>>> {
        let Ok(id) = filter_id.parse::<i64>() else { return Ok(None) };
        let key = (user.to_owned(), id);
        if let Some(filter) = self.cache.get(&key) {
            return Ok(Some(filter));
        }
        let Some(text) = filters::get_filter(&self.database.get().await?, user, id).await? else {
            return Ok(None);
        };
        let filter: FilterDefinition = serde_json::from_str(&text)
            .map_err(|error| StorageError::Inconsistent(format!("a filter can't be read: {error}")))?;
        let filter = Arc::new(filter);
        self.cache.insert(key, filter.clone());
        Ok(Some(filter))
    }
}

/// Canonical JSON, so that equal filters are equal texts.
fn canonical(filter: &FilterDefinition) -> Result<String> {
    let wrong =
        |error: &dyn std::fmt::Display| StorageError::Inconsistent(format!("a filter is not JSON: {error}"));
    match serde_json::to_value(filter).map_err(|error| wrong(&error))? {
        JsonValue::Object(object) => {
            let canonical = try_from_json_map(object).map_err(|error| wrong(&error))?;
            serde_json::to_string(&canonical).map_err(|error| wrong(&error))
        }
        _ => Err(wrong(&"no object")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{alice, database};

    fn filter(json: JsonValue) -> FilterDefinition {
        serde_json::from_value(json).unwrap()
    }

    #[tokio::test]
    async fn a_filter_is_found_by_its_id_and_kept_once() {
        let (_test, database) = database().await;
        let filters = Filters::new(database);
        let one = filter(json!({ "room": { "timeline": { "limit": 10 } }, "event_fields": ["type"] }));
        let same = filter(json!({ "event_fields": ["type"], "room": { "timeline": { "limit": 10 } } }));
        let other = filter(json!({ "room": { "timeline": { "limit": 11 } } }));
        let id = filters.create(alice(), &one).await.unwrap();
        assert_eq!(filters.create(alice(), &same).await.unwrap(), id);
        assert_ne!(filters.create(alice(), &other).await.unwrap(), id);

        let found = filters.get(alice(), &id).await.unwrap().unwrap();
        assert_eq!(json!(*found), json!(one));
        assert!(Arc::ptr_eq(&found, &filters.get(alice(), &id).await.unwrap().unwrap()));
        assert!(filters.get(ruma::user_id!("@bob:example.org"), &id).await.unwrap().is_none());
        for nonsense in ["", "x", "99", "-1", "99999999999999999999"] {
            assert!(filters.get(alice(), nonsense).await.unwrap().is_none(), "{nonsense:?}");
        }
    }
}
