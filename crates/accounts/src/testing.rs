//! A service over a fresh database, with one user and a clock that stands still.

use std::sync::Arc;

use myelin_storage::{Database, DatabaseOptions, migrate, migrations_fingerprint};
use myelin_testing::TestDatabase;
use myelin_types::{Clock, ManualClock};
use ruma::{UserId, user_id};

use crate::{Accounts, AccountsConfig, LogIn, LoggedIn, NewAccount};

pub const PASSWORD: &str = "correct horse";

pub fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

pub struct Fixture {
    pub accounts: Accounts,
    pub database: Database,
    pub hands: ManualClock,
    test: Arc<TestDatabase>,
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With a configuration that was changed.
    pub async fn with(change: impl FnOnce(&mut AccountsConfig)) -> Self {
        let (test, database) = database().await;
        let hands = ManualClock::starting_at(1_700_000_000_000);
        let mut config = AccountsConfig::new(ruma::owned_server_name!("example.org"));
        config.bcrypt_rounds = 4;
        change(&mut config);
        let accounts = Accounts::new(config, database.clone(), Clock::Manual(hands.clone()));
        let account =
            NewAccount { localpart: Some("alice"), password: Some(PASSWORD), ..NewAccount::default() };
        assert_eq!(accounts.register(account).await.unwrap().user_id, alice());
        Self { accounts, database, hands, test: Arc::new(test) }
    }

    pub async fn log_in(&self, device: &str) -> LoggedIn {
        let log_in = LogIn { device_id: Some(device.into()), ..LogIn::default() };
        self.accounts.log_in(alice(), log_in).await.unwrap()
    }

    /// The service as another process has it: with caches of its own.
    pub fn another_process(&self) -> Accounts {
        let inner = &self.accounts.0;
        Accounts::new(inner.config.clone(), inner.database.clone(), inner.clock.clone())
    }

    /// Renames the table that all authentication reads: from now on, a query is an error.
    pub async fn lose_database(&self) {
        let client = self.test.connect().await.unwrap();
        client.batch_execute("ALTER TABLE access_tokens RENAME TO gone").await.unwrap();
    }
}

/// A freshly migrated database.
pub async fn database() -> (TestDatabase, Database) {
    let connect = |url: &str| Database::new(DatabaseOptions::from_address(url)?);
    let test =
        TestDatabase::create(migrations_fingerprint(), async |url| migrate(&connect(&url)?).await).await;
    let database = connect(test.url()).unwrap();
    (test, database)
}
