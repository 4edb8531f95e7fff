//! A database of its own and a registered writer, for tests.

use std::time::Duration;

use myelin_leases::Session;
use myelin_replication::{Feed, Stream, StreamWriter};
use myelin_storage::{Database, DatabaseOptions, migrate, migrations_fingerprint};
use myelin_testing::TestDatabase;

pub(crate) struct TestStreams {
    pub database: Database,
    pub session: Session,
    _dropped_last: TestDatabase,
}

impl TestStreams {
    pub async fn start(streams: &[&str]) -> Self {
        let test = TestDatabase::create(migrations_fingerprint(), async |url: String| {
            migrate(&Database::new(DatabaseOptions::from_address(&url)?)?).await
        })
        .await;
        let database = Database::new(DatabaseOptions::from_address(test.url()).unwrap()).unwrap();
        let session = Session::register(database.clone(), "main", streams, Duration::ZERO).await.unwrap();
        Self { database, session, _dropped_last: test }
    }

    pub async fn stream<S: Stream>(&self) -> (Feed<S>, StreamWriter<S>) {
        let feed = Feed::open(self.database.clone()).await.unwrap();
        let writer = StreamWriter::start(self.database.clone(), self.session.clone(), feed.clone());
        (feed, writer)
    }
}
