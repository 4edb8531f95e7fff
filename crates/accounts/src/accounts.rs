//! What the service is made of.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use myelin_replication::StreamWriter;
use myelin_storage::{Client, Database, Result, accounts::users};
use myelin_types::Clock;
use ruma::{ServerName, UserId};

use crate::{
    AccountsConfig, Login, RevocationStream, TokenHash, User, last_seen::Sightings, password::Passwords,
    recent::Recent,
};

/// Users, their sessions and tokens, passwords and registration. Clones are the same service.
///
/// Its background work is [`Accounts::run`], which a process starts once.
#[derive(Clone)]
pub struct Accounts(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub config: AccountsConfig,
    pub clock: Clock,
    pub database: Database,
    /// The access tokens that were used of late.
    pub tokens: Recent<TokenHash, Arc<Login>>,
    /// Tells other processes which tokens ended, if there are any.
    pub revocations: OnceLock<StreamWriter<RevocationStream>>,
    pub passwords: Passwords,
    pub sightings: Sightings,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").field("server_name", &self.0.config.server_name).finish_non_exhaustive()
    }
}

impl Accounts {
    /// The service over a database that is migrated.
    pub fn new(config: AccountsConfig, database: Database, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            tokens: Recent::new(config.token_cache_capacity),
            revocations: OnceLock::new(),
            passwords: Passwords::new(&config),
            sightings: Sightings::default(),
            config,
            clock,
            database,
        }))
    }

    /// The server's name.
    pub fn server_name(&self) -> &ServerName {
        &self.0.config.server_name
    }

    /// Whether the user is one of this server; says nothing about whether they exist.
    pub fn is_local(&self, user: &UserId) -> bool {
        user.server_name() == self.server_name()
    }

    /// A user's account.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn user(&self, user: &UserId) -> Result<Option<User>> {
        users::get_user(&self.db().await?, user).await
    }

    pub(crate) async fn db(&self) -> Result<Client> {
        self.0.database.get().await
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.clock.now()
    }
}
