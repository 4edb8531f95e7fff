//! Server-side key backups ([spec](https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups)).

use myelin_storage::{
    Client, Database, StorageError, Transaction,
    key_backups::{self, KeyBackupSessionRow, KeyBackupVersionRow},
};
use ruma::{OwnedRoomId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Why a backup could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no backup of this version, or none at all.
    #[error("Unknown backup version")]
    UnknownVersion,
    /// Only the newest backup can be written to, which is this one.
    #[error("Wrong backup version")]
    WrongVersion {
        /// The newest version.
        current: String,
    },
    /// A backup keeps its algorithm.
    #[error("Algorithm does not match")]
    OtherAlgorithm,
    /// The key is not in the backup.
    #[error("Key not found")]
    UnknownKey,
    /// A key does not have the form of one.
    #[error("A key is malformed: {0}")]
    Malformed(String),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A version of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupInfo {
    /// Its name.
    pub version: String,
    /// How its keys are encrypted.
    pub algorithm: String,
    /// What the algorithm needs: a JSON object.
    pub auth_data: String,
    /// The keys in it.
    pub state: BackupState,
}

/// What clients compare to see whether somebody else changed a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupState {
    /// Another one after each change.
    pub etag: String,
    /// How many keys there are.
    pub count: u64,
}

/// A key as clients send and get it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackupKey {
    /// The first message that it can decrypt.
    pub first_message_index: u64,
    /// How often it was passed on between devices.
    pub forwarded_count: u64,
    /// Whether the device that backed it up had verified the device that it came from.
    pub is_verified: bool,
    /// The encrypted key.
    pub session_data: Box<RawValue>,
}

/// Which keys of a backup are meant.
#[derive(Clone, Copy, Debug)]
pub enum KeySelection<'a> {
    /// All.
    All,
    /// Those of a room.
    Room(&'a RoomId),
    /// That of a session.
    Session(&'a RoomId, &'a str),
}

impl<'a> KeySelection<'a> {
    fn parts(self) -> (Option<&'a str>, Option<&'a str>) {
        match self {
            Self::All => (None, None),
            Self::Room(room_id) => (Some(room_id.as_str()), None),
            Self::Session(room_id, session_id) => (Some(room_id.as_str()), Some(session_id)),
        }
    }
}

/// The key backups of all users. Clones are the same.
#[derive(Clone, Debug)]
pub struct KeyBackups {
    database: Database,
}

impl KeyBackups {
    /// The backups in `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Begins a new backup and gives its version.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn create_version(
        &self,
        user_id: &UserId,
        algorithm: &str,
        auth_data: &RawValue,
    ) -> Result<String, BackupError> {
        let client = self.database.get().await?;
        // Two devices may begin one at once, and both take the next number.
        for _ in 0..10 {
            match key_backups::insert_version(&client, user_id.as_str(), algorithm, auth_data.get()).await {
                Err(error) if error.is_unique_violation() => {}
                outcome => return Ok(outcome?.to_string()),
            }
        }
        Err(StorageError::Inconsistent("backup versions are never free".to_owned()).into())
    }

    /// The newest backup.
    ///
    /// # Errors
    /// [`BackupError::UnknownVersion`] if there is none.
    pub async fn current_version(&self, user_id: &UserId) -> Result<BackupInfo, BackupError> {
        let client = self.database.get().await?;
        let row = key_backups::get_current_version(&client, user_id.as_str()).await?;
        row.map(info).ok_or(BackupError::UnknownVersion)
    }

    /// A backup by its version.
    ///
    /// # Errors
    /// [`BackupError::UnknownVersion`] if there is none.
    pub async fn version(&self, user_id: &UserId, version: &str) -> Result<BackupInfo, BackupError> {
        Ok(info(find(&self.database.get().await?, user_id, version).await?))
    }

    /// Replaces the `auth_data` of a backup.
    ///
    /// # Errors
    /// [`BackupError::OtherAlgorithm`] if `algorithm` is not the backup's.
    pub async fn update_version(
        &self,
        user_id: &UserId,
        version: &str,
        algorithm: &str,
        auth_data: &RawValue,
    ) -> Result<(), BackupError> {
        let client = self.database.get().await?;
        let row = find(&client, user_id, version).await?;
        if row.algorithm != algorithm {
            return Err(BackupError::OtherAlgorithm);
        }
        Ok(key_backups::set_auth_data(&client, user_id.as_str(), row.version, auth_data.get()).await?)
    }

    /// Deletes a backup with its keys; again, if need be.
    ///
    /// # Errors
    /// [`BackupError::UnknownVersion`] if there never was one of this version.
    pub async fn delete_version(&self, user_id: &UserId, version: &str) -> Result<(), BackupError> {
        let number = parse(version)?;
        let mut client = self.database.get().await?;
        let transaction = Transaction::begin(&mut client);
        let known = key_backups::delete_version(&transaction, user_id.as_str(), number).await?;
        transaction.commit().await?;
        if known { Ok(()) } else { Err(BackupError::UnknownVersion) }
    }

    /// Adds keys to the newest backup. Of two keys for a session the better one is kept.
    ///
    /// # Errors
    /// [`BackupError::WrongVersion`] if `version` is not the newest.
    pub async fn put_keys(
        &self,
        user_id: &UserId,
        version: &str,
        keys: impl IntoIterator<Item = (OwnedRoomId, String, BackupKey)>,
    ) -> Result<BackupState, BackupError> {
        let rows = keys.into_iter().map(|(room_id, session_id, key)| session_row(&room_id, session_id, &key));
        let rows: Vec<KeyBackupSessionRow> = rows.collect::<Result<_, _>>()?;
        let mut client = self.database.get().await?;
        let transaction = Transaction::begin(&mut client);
        let number = lock_current(&transaction, user_id, version).await?;
        let row = key_backups::put_sessions(&transaction, user_id.as_str(), number, &rows).await?;
        transaction.commit().await?;
        Ok(state(&row))
    }

    /// The keys of a backup, by room and session.
    ///
    /// # Errors
    /// [`BackupError::UnknownKey`] if one session is asked for and not there.
    pub async fn keys(
        &self,
        user_id: &UserId,
        version: &str,
        selection: KeySelection<'_>,
    ) -> Result<Vec<(OwnedRoomId, String, BackupKey)>, BackupError> {
        let client = self.database.get().await?;
        let version = find(&client, user_id, version).await?.version;
        let (room_id, session_id) = selection.parts();
        let rows =
            key_backups::list_sessions(&client, user_id.as_str(), version, room_id, session_id).await?;
        if rows.is_empty() && session_id.is_some() {
            return Err(BackupError::UnknownKey);
        }
        rows.into_iter().map(backup_key).collect()
    }

    /// Deletes keys of a backup.
    ///
    /// # Errors
    /// [`BackupError::UnknownVersion`] if there is no such backup; keys that are not there are no error.
    pub async fn delete_keys(
        &self,
        user_id: &UserId,
        version: &str,
        selection: KeySelection<'_>,
    ) -> Result<BackupState, BackupError> {
        let mut client = self.database.get().await?;
        let version = find(&client, user_id, version).await?.version;
        let transaction = Transaction::begin(&mut client);
        key_backups::lock_version(&transaction, user_id.as_str(), version).await?;
        let (room_id, session_id) = selection.parts();
        let row = key_backups::delete_sessions(&transaction, user_id.as_str(), version, room_id, session_id)
            .await?;
        transaction.commit().await?;
        Ok(state(&row))
    }
}

/// Versions are numbers to us and opaque to clients: what is no number is no version.
fn parse(version: &str) -> Result<i64, BackupError> {
    version.parse().map_err(|_| BackupError::UnknownVersion)
}

async fn find(client: &Client, user_id: &UserId, version: &str) -> Result<KeyBackupVersionRow, BackupError> {
    let row = key_backups::get_version(client, user_id.as_str(), parse(version)?).await?;
    row.filter(|row| !row.deleted).ok_or(BackupError::UnknownVersion)
}

/// Takes the lock on a version that has to be the newest.
async fn lock_current(
    transaction: &Transaction<'_>,
    user_id: &UserId,
    version: &str,
) -> Result<i64, BackupError> {
    let current = key_backups::get_current_version(transaction, user_id.as_str()).await?;
    let current = current.ok_or(BackupError::UnknownVersion)?.version;
    if parse(version).ok() != Some(current) {
        return Err(BackupError::WrongVersion { current: current.to_string() });
    }
    key_backups::lock_version(transaction, user_id.as_str(), current).await?;
    Ok(current)
}

fn info(row: KeyBackupVersionRow) -> BackupInfo {
    let state = state(&row);
    BackupInfo { version: row.version.to_string(), algorithm: row.algorithm, auth_data: row.auth_data, state }
}

fn state(row: &KeyBackupVersionRow) -> BackupState {
    BackupState { etag: row.etag.to_string(), count: row.count.unsigned_abs() }
}

fn session_row(
    room_id: &RoomId,
    session_id: String,
    key: &BackupKey,
) -> Result<KeyBackupSessionRow, BackupError> {
    let number = |number: u64| {
        i64::try_from(number).map_err(|_| BackupError::Malformed("a number is too large".to_owned()))
    };
    if !key.session_data.get().starts_with('{') {
        return Err(BackupError::Malformed("session_data is no object".to_owned()));
    }
    Ok(KeyBackupSessionRow {
        room_id: room_id.to_string(),
        session_id,
        first_message_index: number(key.first_message_index)?,
        forwarded_count: number(key.forwarded_count)?,
        is_verified: key.is_verified,
        session_data: key.session_data.get().to_owned(),
    })
}

fn backup_key(row: KeyBackupSessionRow) -> Result<(OwnedRoomId, String, BackupKey), BackupError> {
    let inconsistent =
        |error: &dyn std::fmt::Display| StorageError::Inconsistent(format!("a backed-up key: {error}"));
    let key = BackupKey {
        first_message_index: row.first_message_index.unsigned_abs(),
        forwarded_count: row.forwarded_count.unsigned_abs(),
        is_verified: row.is_verified,
        session_data: RawValue::from_string(row.session_data).map_err(|error| inconsistent(&error))?,
    };
    let room_id = RoomId::parse(row.room_id).map_err(|error| inconsistent(&error))?;
    Ok((room_id, row.session_id, key))
}

#[cfg(test)]
mod tests {
    use myelin_testing::MigratedDatabase;
    use serde_json::json;

    use super::*;
    use crate::test_support::*;

    fn key(index: u64) -> BackupKey {
        let session_data = raw(&json!({ "ciphertext": "abc" }));
        BackupKey { first_message_index: index, forwarded_count: 0, is_verified: true, session_data }
    }

    async fn backups() -> (KeyBackups, MigratedDatabase) {
        let database = MigratedDatabase::create().await;
        (KeyBackups::new((*database).clone()), database)
    }

    async fn begin(backups: &KeyBackups) -> String {
        backups.create_version(alice_id(), "alg", &raw(&json!({ "public_key": "k" }))).await.unwrap()
    }

    #[tokio::test]
    async fn only_the_newest_backup_is_written_to() {
        let (backups, _database) = backups().await;
        let put = async |version: &str| {
            backups.put_keys(alice_id(), version, [(the_room_id().to_owned(), "s".to_owned(), key(1))]).await
        };
        assert!(matches!(put("1").await, Err(BackupError::UnknownVersion)));
        let (first, second) = (begin(&backups).await, begin(&backups).await);
        assert!(matches!(put(&first).await, Err(BackupError::WrongVersion { current }) if current == second));
        assert!(matches!(put("nonsense").await, Err(BackupError::WrongVersion { .. })));
        let before = backups.current_version(alice_id()).await.unwrap().state;
        let after = put(&second).await.unwrap();
        assert_eq!(after.count, 1);
        assert_ne!(after.etag, before.etag);
        assert_eq!(put(&second).await.unwrap(), after, "the same key again changes nothing");
    }

    #[tokio::test]
    async fn keys_come_back_as_they_were_given_and_can_be_deleted() {
        let (backups, _database) = backups().await;
        let version = begin(&backups).await;
        let keys = ["1", "2"].map(|session_id| (the_room_id().to_owned(), session_id.to_owned(), key(7)));
        backups.put_keys(alice_id(), &version, keys).await.unwrap();
        let one = KeySelection::Session(the_room_id(), "1");
        let found = backups.keys(alice_id(), &version, one).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].2.first_message_index, 7);
        assert_eq!(found[0].2.session_data.get(), r#"{"ciphertext":"abc"}"#);
        assert_eq!(
            backups.keys(alice_id(), &version, KeySelection::Room(the_room_id())).await.unwrap().len(),
            2
        );

        assert_eq!(backups.delete_keys(alice_id(), &version, one).await.unwrap().count, 1);
        assert!(matches!(backups.keys(alice_id(), &version, one).await, Err(BackupError::UnknownKey)));
        assert_eq!(backups.delete_keys(alice_id(), &version, KeySelection::All).await.unwrap().count, 0);
        assert!(backups.keys(alice_id(), &version, KeySelection::All).await.unwrap().is_empty());
        assert!(matches!(
            backups.keys(alice_id(), "9", KeySelection::All).await,
            Err(BackupError::UnknownVersion)
        ));
    }

    #[tokio::test]
    async fn a_version_can_be_updated_and_deleted_twice() {
        let (backups, _database) = backups().await;
        let version = begin(&backups).await;
        let auth_data = raw(&json!({ "public_key": "other" }));
        assert!(matches!(
            backups.update_version(alice_id(), &version, "other", &auth_data).await,
            Err(BackupError::OtherAlgorithm)
        ));
        backups.update_version(alice_id(), &version, "alg", &auth_data).await.unwrap();
        assert_eq!(backups.version(alice_id(), &version).await.unwrap().auth_data, auth_data.get());
        for _ in 0..2 {
            backups.delete_version(alice_id(), &version).await.unwrap();
        }
        assert!(matches!(backups.version(alice_id(), &version).await, Err(BackupError::UnknownVersion)));
        assert!(matches!(backups.current_version(alice_id()).await, Err(BackupError::UnknownVersion)));
        assert!(matches!(backups.delete_version(alice_id(), "9").await, Err(BackupError::UnknownVersion)));
    }
}
