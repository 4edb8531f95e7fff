//! The work that no request waits for.

use std::{future::Future, pin::pin, time::Duration};

use myelin_storage::{
    Result,
    accounts::{revocations, tokens, ui_auth},
};
use tracing::warn;

use crate::{Accounts, ui_auth::SESSION_LIFETIME};

/// How often the last use of devices is written.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// How often what has expired is deleted.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// How long revocations are kept: longer than any process may be behind.
const KEEP_REVOCATIONS: Duration = Duration::from_secs(24 * 3600);

impl Accounts {
    /// Does the background work of each process until `stop` is ready: writes when devices were used.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut ticks = tokio::time::interval(FLUSH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let stopping = tokio::select! {
                () = &mut stop => true,
                _ = ticks.tick() => false,
            };
            if let Err(error) = self.0.sightings.flush(&self.0.database).await {
                warn!(%error, "could not note when devices were used");
            }
            if stopping {
                return;
            }
        }
    }

    /// Deletes what has expired, until `stop` is ready. One process does this for all.
    pub async fn run_sweeps(&self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut ticks = tokio::time::interval(SWEEP_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut stop => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.sweep().await {
                warn!(%error, "could not delete expired tokens and sessions");
            }
        }
    }

    async fn sweep(&self) -> Result<()> {
        let db = self.db().await?;
        let now = self.now();
        tokens::delete_expired(&db, now).await?;
        let oldest = now.saturating_sub(KEEP_REVOCATIONS.as_millis() as u64);
        revocations::delete_revocations_before(&db, oldest).await?;
        ui_auth::delete_sessions_before(&db, now.saturating_sub(SESSION_LIFETIME.as_millis() as u64)).await?;
        Ok(())
    }
}
