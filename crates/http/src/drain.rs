//! The end of a process, announced to those who wait.

use tokio_util::sync::CancellationToken;

/// Tells that this process is about to stop. Clones share the same state.
///
/// A long poll waits for its events *or* for this, and then answers with what it has: the client comes back and
/// finds another process.
#[derive(Clone, Debug, Default)]
pub struct Draining(CancellationToken);

impl Draining {
    /// Announces the end. Can't be taken back.
    pub fn start(&self) {
        self.0.cancel();
    }

    /// Whether the end has been announced.
    pub fn has_started(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the end is announced. Safe to drop at any time, so fit for `select!`.
    pub async fn started(&self) {
        self.0.cancelled().await;
    }
}
