//! A [`Database`] as the daemons see it, on a fresh copy of the migrated template.

use std::ops::Deref;

use myelin_storage::{Database, DatabaseOptions, StorageError, migrate, migrations_fingerprint};

use crate::{TestDatabase, TestServer};

/// Connections that one test may have open at once.
const MAX_CONNECTIONS: usize = 8;

/// A freshly migrated database and a pool over it; both go when it is dropped.
#[derive(Debug)]
pub struct MigratedDatabase {
    pool: Database,
    database: TestDatabase,
}

impl MigratedDatabase {
    /// A database with the schema of today and nothing in it.
    ///
    /// # Panics
    /// With a sentence that says why, if there is no server or the migrations fail.
    pub async fn create() -> Self {
        let migrate_template = async |url: String| migrate(&Database::new(options(&url)?)?).await;
        let database = TestDatabase::create(migrations_fingerprint(), migrate_template).await;
        let pool = options(database.url())
            .and_then(Database::new)
            .unwrap_or_else(|error| panic!("no pool for this test: {error}"));
        Self { pool, database }
    }

    /// Where it is, for connections of one's own.
    pub fn url(&self) -> &str {
        self.database.url()
    }

    /// The server that it is on.
    pub fn server(&self) -> &TestServer {
        self.database.server()
    }
}

impl Deref for MigratedDatabase {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.pool
    }
}

fn options(url: &str) -> Result<DatabaseOptions, StorageError> {
    let mut options = DatabaseOptions::from_address(url)?;
    options.max_connections = MAX_CONNECTIONS;
    Ok(options)
}
