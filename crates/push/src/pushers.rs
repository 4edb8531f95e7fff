//! Where notifications are sent to
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset)).

use myelin_storage::{
    Database, GenericClient, StorageError, Transaction,
    push_rules::{self, PusherRow},
};
use myelin_types::Clock;
use ruma::{DeviceId, OwnedDeviceId, UserId};

/// The pushers of all users, in the specification's form. Clones are the same.
#[derive(Clone, Debug)]
pub struct Pushers {
    database: Database,
    clock: Clock,
}

impl Pushers {
    /// The pushers in `database`.
    pub fn new(database: Database, clock: Clock) -> Self {
        Self { database, clock }
    }

    /// A user's pushers, each a JSON object, oldest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn list(&self, user_id: &UserId) -> Result<Vec<String>, StorageError> {
        let client = self.database.get().await?;
        let rows = push_rules::list_pushers(&client, user_id.as_str()).await?;
        Ok(rows.into_iter().map(|row| row.pusher).collect())
    }

    /// Sets a pusher, given as a JSON object. Unless `append` is set, the pushkey is then nobody else's.
    ///
    /// # Errors
    /// If the database fails; nothing has changed then.
    pub async fn set(
        &self,
        user_id: &UserId,
        device_id: Option<&DeviceId>,
        (app_id, pushkey): (&str, &str),
        pusher: String,
        append: bool,
    ) -> Result<(), StorageError> {
        let row = PusherRow {
            user_id: user_id.to_string(),
            app_id: app_id.to_owned(),
            pushkey: pushkey.to_owned(),
            device_id: device_id.map(ToString::to_string),
            pusher,
            created_ts: i64::try_from(self.clock.now()).unwrap_or(i64::MAX),
        };
        let mut client = self.database.get().await?;
        let transaction = Transaction::begin(&mut client);
        if !append {
            push_rules::delete_pushers_of_others(&transaction, user_id.as_str(), app_id, pushkey).await?;
        }
        push_rules::set_pusher(&transaction, &row).await?;
        transaction.commit().await
    }

    /// Deletes a pusher, if there is one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete(&self, user_id: &UserId, app_id: &str, pushkey: &str) -> Result<(), StorageError> {
        let client = self.database.get().await?;
        push_rules::delete_pusher(&client, user_id.as_str(), app_id, pushkey).await
    }

    /// Deletes the pushers that devices have set, in the transaction that deletes the devices.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_of_devices_in(
        db: &impl GenericClient,
        user_id: &UserId,
        device_ids: &[OwnedDeviceId],
    ) -> Result<(), StorageError> {
        let ids: Vec<&str> = device_ids.iter().map(|device_id| device_id.as_str()).collect();
        push_rules::delete_pushers_of_devices(db, user_id.as_str(), &ids).await
    }

    /// Deletes all pushers of a user, in the transaction that ends the account.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_all_in(db: &impl GenericClient, user_id: &UserId) -> Result<(), StorageError> {
        push_rules::delete_pushers_of_user(db, user_id.as_str()).await
    }
}

#[cfg(test)]
mod tests {
    use myelin_testing::MigratedDatabase;
    use myelin_types::ManualClock;
    use ruma::user_id;

    use super::*;

    #[tokio::test]
    async fn a_pushkey_goes_to_whoever_sets_it_unless_they_share_it() {
        let database = MigratedDatabase::create().await;
        let pushers = Pushers::new((*database).clone(), Clock::Manual(ManualClock::starting_at(1)));
        let (alice, bob) = (user_id!("@a:x"), user_id!("@b:x"));
        for (user_id, append, left) in [(alice, false, (1, 0)), (bob, true, (1, 1)), (bob, false, (0, 1))] {
            pushers.set(user_id, None, ("app", "key"), "{}".to_owned(), append).await.unwrap();
            let count = async |user_id| pushers.list(user_id).await.unwrap().len();
            assert_eq!((count(alice).await, count(bob).await), left);
        }
        pushers.delete(bob, "app", "key").await.unwrap();
        assert!(pushers.list(bob).await.unwrap().is_empty());
    }
}
