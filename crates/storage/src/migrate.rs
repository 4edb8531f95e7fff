//! Schema changes, applied once and in order.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use tracing::info;

use crate::{Database, Result, StorageError};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// "myelin" as a number: the advisory lock under which one process migrates while the others wait.
const MIGRATION_LOCK: i64 = 0x6d79_656c_696e;

/// Brings the schema up to date. Any number of processes may call it at once: one works, the others wait for it.
///
/// # Errors
/// [`StorageError::Migration`] if a migration fails (nothing of it stays) or if the database was migrated by another
/// line of versions.
pub async fn migrate(database: &Database) -> Result<()> {
    let mut client = database.get().await?;
    // refinery takes no lock of its own, and two processes that create a table at once fail.
    client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await?;
    // A newer version may have migrated already, in the middle of a rolling upgrade: its migrations are not ours to miss.
    let outcome = embedded::migrations::runner()
        .set_abort_missing(false)
        .run_async(&mut **client.as_mut())
        .await
        .map_err(|error| StorageError::Migration(error.to_string()));
    client.execute("SELECT pg_advisory_unlock($1)", &[&MIGRATION_LOCK]).await?;
    for applied in outcome?.applied_migrations() {
        info!(version = applied.version(), name = applied.name(), "migrated the database");
    }
    Ok(())
}

/// A number that changes when a migration is added or edited, in hexadecimal: names the template databases of tests.
pub fn migrations_fingerprint() -> String {
    let mut hasher = DefaultHasher::new();
    for migration in embedded::migrations::runner().get_migrations() {
        (migration.version(), migration.checksum()).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}
