//! The connection pool and the few ways in which statements are run.

mod connector;
mod transaction;

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, QueueMode, RecyclingMethod, Runtime};
use tokio::time::Instant;
use tokio_postgres::{Row, types::ToSql};
use tracing::{info, warn};

use self::connector::Connector;
pub use self::transaction::{Answer, Flight, Transaction, Write};
use crate::{Result, StorageError};

/// A pooled connection; goes back to the pool when dropped.
pub type Client = deadpool_postgres::Client;

/// A connection for life, outside the pool; closed when dropped.
pub type DetachedClient = deadpool_postgres::ClientWrapper;

/// What statements are run on: a connection, or a transaction on one.
pub trait GenericClient: Sync {
    /// The connection.
    fn connection(&self) -> &DetachedClient;
}

impl GenericClient for DetachedClient {
    fn connection(&self) -> &DetachedClient {
        self
    }
}

impl GenericClient for Client {
    fn connection(&self) -> &DetachedClient {
        self
    }
}

/// How to reach PostgreSQL.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    /// Hosts (of several, the one that takes writes is used), database, user, password.
    pub postgres: tokio_postgres::Config,
    /// TLS towards the server; `None` connects in the clear.
    pub tls: Option<rustls::ClientConfig>,
    /// Connections at most.
    pub max_connections: usize,
    /// How long a request waits for a free connection before it is refused.
    pub wait_timeout: Duration,
}

impl DatabaseOptions {
    /// Defaults for everything but the address, which is in libpq's form: a URL or `key=value` pairs.
    ///
    /// # Errors
    /// If `address` is neither.
    pub fn from_address(address: &str) -> Result<Self> {
        Ok(Self {
            postgres: address.parse()?,
            tls: None,
            max_connections: 10,
            wait_timeout: Duration::from_secs(10),
        })
    }
}

/// The database. Clones share one pool.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    connector: Connector,
}

/// How long one connection may take, all hosts being asked.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("pool", &self.pool.status()).finish()
    }
}

impl Database {
    /// A pool over `options`; connects only when a connection is asked for.
    pub fn new(options: DatabaseOptions) -> Result<Self> {
        let DatabaseOptions { mut postgres, tls, max_connections, wait_timeout } = options;
        if postgres.get_application_name().is_none() {
            postgres.application_name("myelin");
        }
        // A host that doesn't answer must not hold a request for minutes.
        if postgres.get_connect_timeout().is_none() {
            postgres.connect_timeout(Duration::from_secs(5));
        }
        // What was sent and is not confirmed for so long won't be: the other end is gone, or the way to it is.
        if postgres.get_tcp_user_timeout().is_none() {
            postgres.tcp_user_timeout(Duration::from_secs(30));
        }
        let connector = Connector::new(&postgres, tls);
        if connector.hosts() == 0 {
            return Err(StorageError::Unavailable("no host is named".to_owned()));
        }
        Self::over(connector, max_connections, wait_timeout, CONNECT_PATIENCE)
    }

    /// One connection beside the pool, for what must not wait behind requests. Who finds that it hangs [discards](discard) it,
    /// and is given another.
    ///
    /// # Errors
    /// Never in practice.
    pub fn apart(&self, patience: Duration) -> Result<Self> {
        Self::over(self.connector.clone(), 1, patience, patience)
    }

    fn over(
        connector: Connector,
        max_connections: usize,
        wait_timeout: Duration,
        create_timeout: Duration,
    ) -> Result<Self> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        // The connector knows all that is to be known of the hosts.
        let manager = Manager::from_connect(tokio_postgres::Config::new(), connector.clone(), recycling);
        let pool = Pool::builder(manager)
            .max_size(max_connections)
            // What was used last has everything at hand, here and in its process of the server.
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(Some(wait_timeout))
            .create_timeout(Some(create_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StorageError::Unavailable(error.to_string()))?;
        Ok(Self { pool, connector })
    }

    /// A pool over `options`, once a first connection stands; tries again for `patience`.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] with the last failure when the patience is over.
    pub async fn connect(options: DatabaseOptions, patience: Duration) -> Result<Self> {
        let database = Self::new(options)?;
        let give_up = Instant::now() + patience;
        let mut pause = Duration::from_millis(50);
        loop {
            match database.get().await {
                Ok(_) => return Ok(database),
                Err(error) if Instant::now() + pause >= give_up => return Err(error),
                Err(error) => {
                    if pause > Duration::from_millis(500) {
                        warn!(%error, "PostgreSQL does not answer yet, trying again");
                    } else {
                        info!(%error, "waiting for PostgreSQL");
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// A connection of the pool. Hold it for a few statements, never while waiting for something else.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] if none comes free in time.
    pub async fn get(&self) -> Result<Client> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => StorageError::Postgres(error),
            other => StorageError::Unavailable(other.to_string()),
        })
    }

    /// How many connections exist, are idle, and how many callers wait for one.
    pub fn status(&self) -> deadpool_postgres::Status {
        self.pool.status()
    }
}

/// Takes a connection out of its pool for good: its holder keeps it, and it does not count among the pool's.
pub fn detach(client: Client) -> DetachedClient {
    Client::take(client)
}

/// Closes a connection of a pool that does not answer any more, instead of giving it back.
pub fn discard(client: Client) {
    drop(Client::take(client));
}

/// Runs a constant statement, prepared once per connection, and gives its rows.
pub async fn query(
    db: &impl GenericClient,
    sql: &'static str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>> {
    let db = db.connection();
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query(&statement, params).await?)
}

/// Like [`query`], for at most one row.
pub async fn query_opt(
    db: &impl GenericClient,
    sql: &'static str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Option<Row>> {
    let db = db.connection();
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query_opt(&statement, params).await?)
}

/// Like [`query`], for exactly one row.
pub async fn query_one(
    db: &impl GenericClient,
    sql: &'static str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Row> {
    let db = db.connection();
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query_one(&statement, params).await?)
}

/// Runs a constant statement, prepared once per connection, and gives how many rows it touched.
pub async fn execute(
    db: &impl GenericClient,
    sql: &'static str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<u64> {
    let db = db.connection();
    let statement = db.prepare_cached(sql).await?;
    Ok(db.execute(&statement, params).await?)
}
