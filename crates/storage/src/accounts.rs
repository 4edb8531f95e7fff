//! Users, their devices and tokens, profiles, and what registration and log-in remember.
//!
//! Start with [`users`] and [`sessions`]. Functions that write more than one table are one statement, so that a log-in
//! costs a single round trip.

pub mod devices;
pub mod profiles;
pub mod refresh_tokens;
pub mod registration;
pub mod revocations;
pub mod sessions;
pub mod threepids;
pub mod tokens;
pub mod ui_auth;
pub mod users;

use std::fmt;

use ruma::{OwnedDeviceId, OwnedUserId};

use crate::{Result, Row, StorageError};

/// The SHA-256 of a token: all that the database and the caches know of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// The hash as a parameter of a statement.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn from_row(row: &Row, index: usize) -> Result<Self> {
        Self::from_bytes(row.try_get(index)?)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let hash = bytes.try_into();
        hash.map(Self).map_err(|_| StorageError::Inconsistent("a token's hash is not 32 bytes".to_owned()))
    }

    /// The hashes of an array column.
    fn list(row: &Row, index: usize) -> Result<Vec<Self>> {
        row.try_get::<_, Vec<&[u8]>>(index)?.into_iter().map(Self::from_bytes).collect()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The beginning is enough to tell tokens apart in a log.
        write!(f, "TokenHash({:02x}{:02x}{:02x}…)", self.0[0], self.0[1], self.0[2])
    }
}

pub(crate) fn user_id(row: &Row, index: usize) -> Result<OwnedUserId> {
    let text: &str = row.try_get(index)?;
    text.try_into().map_err(|_| StorageError::Inconsistent(format!("{text:?} is no user ID")))
}

fn device_id(row: &Row, index: usize) -> Result<Option<OwnedDeviceId>> {
    Ok(row.try_get::<_, Option<&str>>(index)?.map(OwnedDeviceId::from))
}

#[cfg(test)]
pub(crate) mod tests {
    use myelin_testing::TestDatabase;
    use ruma::{UserId, user_id};

    use super::*;
    use crate::{Client, Database, DatabaseOptions, migrate, migrations_fingerprint};

    pub(crate) fn alice() -> &'static UserId {
        user_id!("@alice:example.org")
    }

    pub(crate) fn bob() -> &'static UserId {
        user_id!("@bob:example.org")
    }

    pub(crate) fn hash(number: u8) -> TokenHash {
        TokenHash([number; 32])
    }

    /// A freshly migrated database and a connection to it.
    pub(crate) async fn database() -> (TestDatabase, Client) {
        let connect = |url: &str| Database::new(DatabaseOptions::from_address(url)?);
        let test = TestDatabase::create(migrations_fingerprint(), async |url| migrate(&connect(&url)?).await);
        let test = test.await;
        let client = connect(test.url()).unwrap().get().await.unwrap();
        (test, client)
    }

    #[test]
    fn a_log_shows_only_the_beginning_of_a_hash() {
        assert_eq!(format!("{:?}", hash(0xab)), "TokenHash(ababab…)");
    }
}
