//! Rooms that come from other processes, and go to them.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::future::BoxFuture;
use myelin_leases::Holder;
use tracing::warn;

use super::Engine;
use crate::shards::shard_of;

/// How long between attempts to see what the former writer wrote.
const RETRY: Duration = Duration::from_millis(100);

impl Engine {
    /// Has the leases looked at soon.
    pub fn look_for_writers(&self) {
        if let Some(share) = self.share.get() {
            share.look_soon();
        }
    }
}

impl Holder for Engine {
    fn gained<'a>(&'a self, shards: &'a [u16]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // What we write builds on what the former writers wrote, so that is told first.
            while let Err(error) = self.writer.feed().see_committed().await {
                warn!(%error, "what the former writers of rooms wrote can't be read yet");
                tokio::time::sleep(RETRY).await;
            }
            for shard in shards {
                self.held[usize::from(*shard)].store(true, Ordering::Release);
            }
        })
    }

    fn give_up<'a>(&'a self, shards: &'a [u16]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            for shard in shards {
                self.held[usize::from(*shard)].store(false, Ordering::Release);
            }
            let is_leaving = |room_id: &ruma::RoomId| shards.contains(&shard_of(room_id).into());
            for place in self.residency.list(is_leaving) {
                // Turns that were taken before are ended first, and whoever waits for one finds that it came too late.
                let mut turn = self.residency.turn_at(place).await;
                let latest = turn.as_ref().and_then(|resident| resident.latest.clone());
                if let Some(latest) = latest {
                    // Whether it was committed is for those to know who asked for it; here it only must be over.
                    let _ = latest.committed().await;
                }
                *turn = None;
            }
            // What failed here may still come to be written, which the heir must find.
            while self.writer.check_settled().is_err() {
                tokio::time::sleep(RETRY).await;
            }
        })
    }
}
