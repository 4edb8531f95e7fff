//! A connection to a freshly migrated database, for the tests of this crate.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use myelin_testing::TestDatabase;

use crate::{Client, Database, DatabaseOptions, migrate, migrations_fingerprint};

/// A connection to a database of its own.
pub(crate) struct TestClient {
    client: Client,
    // Dropped last: dropping it drops the database.
    _database: TestDatabase,
}

impl TestClient {
    pub(crate) async fn new() -> Self {
        let test = TestDatabase::create(migrations_fingerprint(), |url| async move {
            migrate(&connect(&url).await).await
        })
        .await;
        let client = connect(test.url()).await.get().await.expect("the pool has a connection");
        Self { client, _database: test }
    }
}

impl Deref for TestClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for TestClient {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

async fn connect(url: &str) -> Database {
    let options = DatabaseOptions::from_address(url).expect("the harness gives valid URLs");
    Database::connect(options, Duration::from_secs(10)).await.expect("the test server answers")
}
