//! The work that no request waits for.

use std::{future::Future, pin::pin, time::Duration};

use myelin_storage::{
    Result,
    accounts::{tokens, ui_auth},
};
use tracing::warn;

use crate::{Accounts, ui_auth::SESSION_LIFETIME};

/// How often the last use of devices is written.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// How often what has expired is deleted, in flushes.
const SWEEP_EVERY: u32 = 60;

impl Accounts {
    /// Does the background work until `stop` is ready: writes when devices were used, deletes what has expired.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut ticks = tokio::time::interval(FLUSH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut round: u32 = 0;
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
            if round.is_multiple_of(SWEEP_EVERY)
                && let Err(error) = self.sweep().await
            {
                warn!(%error, "could not delete expired tokens and sessions");
            }
            round = round.wrapping_add(1);
        }
    }

    async fn sweep(&self) -> Result<()> {
        let db = self.db().await?;
        let now = self.now();
        tokens::delete_expired(&db, now).await?;
        ui_auth::delete_sessions_before(&db, now.saturating_sub(SESSION_LIFETIME.as_millis() as u64)).await?;
        Ok(())
    }
}
