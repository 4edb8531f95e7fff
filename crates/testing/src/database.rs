//! Databases that live as long as a test.

use std::{
    fmt,
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::Context as _;
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use crate::TestServer;

/// Every database of ours starts with one of these, so that leftovers can be told from others' databases.
const TEST_PREFIX: &str = "myelin_test_";
const TEMPLATE_PREFIX: &str = "myelin_template_";

/// Serializes the making of templates among all processes on a server: an arbitrary, but fixed, number.
const TEMPLATE_LOCK: i64 = 0x6d79_656c_696e;

/// A database of its own for one test. It is dropped, with all connections to it, when this is dropped.
#[derive(Debug)]
pub struct TestDatabase {
    server: TestServer,
    name: String,
    url: String,
}

impl TestDatabase {
    /// A fresh copy of a migrated database, on the [shared server](TestServer::shared).
    ///
    /// `migrate` is called with the URL of an empty database the first time that a `fingerprint` (one that changes
    /// whenever the migrations do) is seen on this server; all later calls copy the outcome.
    ///
    /// # Panics
    ///
    /// With a sentence that says why, if there is no server or `migrate` fails.
    pub async fn create<Migrate, Done, Error>(fingerprint: impl fmt::Display, migrate: Migrate) -> Self
    where
        Migrate: FnOnce(String) -> Done,
        Done: Future<Output = Result<(), Error>>,
        Error: Into<anyhow::Error>,
    {
        let server = TestServer::shared().await;
        let template = template_name(&fingerprint.to_string());
        let made = async {
            let admin = server.connect("postgres").await?;
            sweep_once(&admin).await;
            ensure_template(server, &admin, &template, async |url| migrate(url).await.map_err(Into::into))
                .await?;
            Self::copy_of(server, &admin, &template).await
        };

        made.await.unwrap_or_else(|error| panic!("no database for this test: {error:#}"))
    }

    /// A database without any table, on the [shared server](TestServer::shared).
    ///
    /// # Panics
    ///
    /// With a sentence that says why, if there is no server.
    pub async fn empty() -> Self {
        Self::empty_on(TestServer::shared().await).await
    }

    /// A database without any table, on a server of the test's choice.
    ///
    /// # Panics
    ///
    /// With a sentence that says why, if the server can't be reached.
    pub async fn empty_on(server: &TestServer) -> Self {
        let made = async {
            let admin = server.connect("postgres").await?;
            sweep_once(&admin).await;
            Self::copy_of(server, &admin, "template0").await
        };

        made.await.unwrap_or_else(|error| panic!("no database for this test: {error:#}"))
    }

    async fn copy_of(server: &TestServer, admin: &Client, template: &str) -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);

        // A process number may have been used by an earlier run, whose leftovers may still be there.
        let started =
            admin.query_one("SELECT to_char(clock_timestamp(), 'SSSSUS')", &[]).await?.get::<_, String>(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{TEST_PREFIX}{}_{number}_{started}", process::id());
        create_database(admin, &name, template).await?;

        Ok(Self { url: server.url(&name), server: server.clone(), name })
    }

    /// The URL to connect to it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name, for configurations that don't take a URL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server it lives on.
    pub fn server(&self) -> &TestServer {
        &self.server
    }

    /// A connection to it, which ends when the client is dropped.
    ///
    /// # Errors
    ///
    /// If the server does not take the connection.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        self.server.connect(&self.name).await
    }
}

impl Drop for TestDatabase {
    /// Best effort: what is left over is swept by a later run.
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let server = self.server.clone();
        // A thread with a runtime of its own, because this may run inside of one that can't be waited in.
        let dropped = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                anyhow::Ok(server.connect("postgres").await?.batch_execute(&statement).await?)
            })
        });
        drop(dropped.join());
    }
}

/// The template's name for a fingerprint of any length and characters.
fn template_name(fingerprint: &str) -> String {
    let mut hasher = DefaultHasher::new();
    fingerprint.hash(&mut hasher);

    format!("{TEMPLATE_PREFIX}{:016x}", hasher.finish())
}

async fn create_database(admin: &Client, name: &str, template: &str) -> anyhow::Result<()> {
    // Copying files takes 24 ms for a schema of sixty tables, writing them through the log 60. Before PostgreSQL 15
    // there was no choice.
    let version: i32 =
        admin.query_one("SELECT current_setting('server_version_num')::int", &[]).await?.get(0);
    let strategy = if version >= 150_000 { "STRATEGY FILE_COPY" } else { "" };

    admin
        .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template} {strategy}"))
        .await
        .with_context(|| format!("making the database {name} from {template}"))
}

/// Makes the template unless it is there, once, however many processes ask.
async fn ensure_template(
    server: &TestServer,
    admin: &Client,
    template: &str,
    migrate: impl AsyncFnOnce(String) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if exists(admin, template).await? {
        return Ok(());
    }
    // Held by the connection, so that it is given back even if we panic.
    admin.execute("SELECT pg_advisory_lock($1)", &[&TEMPLATE_LOCK]).await?;
    let made = if exists(admin, template).await? {
        Ok(())
    } else {
        make_template(server, admin, template, migrate).await
    };
    admin.execute("SELECT pg_advisory_unlock($1)", &[&TEMPLATE_LOCK]).await?;

    made
}

async fn make_template(
    server: &TestServer,
    admin: &Client,
    template: &str,
    migrate: impl AsyncFnOnce(String) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // A new schema is when those of the past can go.
    sweep(admin, TEMPLATE_PREFIX, "1 day").await;
    let unfinished = format!("{template}_unfinished");
    admin.batch_execute(&format!("DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)")).await?;
    create_database(admin, &unfinished, "template0").await?;
    migrate(server.url(&unfinished)).await.context("migrating the template of the test databases")?;
    // A database can't be copied or renamed while the migration's connections are still being closed.
    admin
        .execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = $1",
            &[&unfinished],
        )
        .await?;
    admin.batch_execute(&format!("ALTER DATABASE {unfinished} RENAME TO {template}")).await?;

    Ok(())
}

async fn exists(admin: &Client, database: &str) -> anyhow::Result<bool> {
    Ok(admin.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&database]).await?.is_some())
}

/// Drops the databases that earlier runs left behind, once in the life of this process.
async fn sweep_once(admin: &Client) {
    static SWEPT: OnceCell<()> = OnceCell::const_new();

    SWEPT.get_or_init(async || sweep(admin, TEST_PREFIX, "1 hour").await).await;
}

/// Drops the databases of that prefix and age that nobody is connected to. Best effort: others may be sweeping, too.
async fn sweep(admin: &Client, prefix: &str, age: &str) {
    const SQL: &str = "
        SELECT datname
          FROM pg_database
         WHERE starts_with(datname, $1)
           AND (pg_stat_file('base/' || oid || '/PG_VERSION', true)).modification < now() - $2::text::interval
           AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE datid = pg_database.oid)";

    for leftover in admin.query(SQL, &[&prefix, &age]).await.unwrap_or_default() {
        let name: &str = leftover.get(0);
        drop(admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name}")).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn make_a_table(url: String) -> Result<(), tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute("CREATE TABLE things (name text PRIMARY KEY)").await
    }

    #[tokio::test]
    async fn every_test_has_the_schema_and_none_of_the_others_rows() {
        let one = TestDatabase::create("a table", make_a_table).await;
        let other = TestDatabase::create("a table", make_a_table).await;
        assert_ne!(one.name(), other.name());

        one.connect().await.unwrap().execute("INSERT INTO things VALUES ('mine')", &[]).await.unwrap();

        let count =
            other.connect().await.unwrap().query_one("SELECT count(*) FROM things", &[]).await.unwrap();
        assert_eq!(count.get::<_, i64>(0), 0);
    }

    #[tokio::test]
    async fn a_fingerprint_is_migrated_once() {
        let fingerprint = format!("once {}", process::id());
        let migrations = AtomicU32::new(0);
        for _ in 0..3 {
            TestDatabase::create(&fingerprint, async |url| {
                migrations.fetch_add(1, Ordering::Relaxed);
                make_a_table(url).await
            })
            .await;
        }
        assert_eq!(migrations.load(Ordering::Relaxed), 1);

        let admin = TestServer::shared().await.connect("postgres").await.unwrap();
        admin.batch_execute(&format!("DROP DATABASE {}", template_name(&fingerprint))).await.unwrap();
    }

    #[tokio::test]
    async fn a_dropped_database_is_gone_even_while_something_is_connected() {
        let database = TestDatabase::empty().await;
        let name = database.name().to_owned();
        let _client = database.connect().await.unwrap();
        let admin = TestServer::shared().await.connect("postgres").await.unwrap();
        assert!(exists(&admin, &name).await.unwrap());

        drop(database);

        assert!(!exists(&admin, &name).await.unwrap());
    }

    #[tokio::test]
    async fn leftovers_are_swept_when_they_are_old_and_unused() {
        let admin = TestServer::shared().await.connect("postgres").await.unwrap();
        let prefix = format!("myelin_sweep_{}_", process::id());
        let (unused, used) = (format!("{prefix}unused"), format!("{prefix}used"));
        for name in [&unused, &used] {
            create_database(&admin, name, "template0").await.unwrap();
        }
        let client = TestServer::shared().await.connect(&used).await.unwrap();

        sweep(&admin, &prefix, "1 hour").await;
        assert!(exists(&admin, &unused).await.unwrap(), "nothing is an hour old");

        sweep(&admin, &prefix, "0 hours").await;
        assert!(!exists(&admin, &unused).await.unwrap());
        assert!(exists(&admin, &used).await.unwrap(), "somebody is connected");

        drop(client);
        admin.batch_execute(&format!("DROP DATABASE {used} WITH (FORCE)")).await.unwrap();
    }

    #[tokio::test]
    #[should_panic(expected = "no such migration")]
    async fn a_failing_migration_says_why() {
        TestDatabase::create("failing", async |_| Err(anyhow::anyhow!("no such migration"))).await;
    }
}
