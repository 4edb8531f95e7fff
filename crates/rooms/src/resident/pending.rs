//! Commits that are under way.

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use myelin_replication::{Appending, WriteError};
use myelin_types::StreamId;

use crate::RoomError;

/// The end of a commit, for any number of waiters.
#[derive(Clone, Debug)]
pub(crate) struct Pending(Shared<BoxFuture<'static, Result<Option<StreamId>, WriteError>>>);

impl Pending {
    pub fn new(appending: Appending) -> Self {
        Self(appending.map(|outcome| outcome.map(|ids| ids.last().copied())).boxed().shared())
    }

    /// Waits until it is committed, and all feeds of this process have seen it.
    pub async fn committed(self) -> Result<(), RoomError> {
        self.0.await?;
        Ok(())
    }
}
