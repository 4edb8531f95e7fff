//! The typed requests between processes.

use std::{future::Future, pin::Pin, time::Duration};

use myelin_leases::Assignment;
use myelin_replication::ReplicationRequest;
use myelin_rooms::{MemberProfile, OtherWriters, RoomError};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use crate::peers::{Asked, Peers};

/// How long to try to reach the writer of a room.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Shows a user's new profile in a room, if the user is in it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UpdateProfile {
    pub room_id: OwnedRoomId,
    pub user_id: OwnedUserId,
    pub profile: MemberProfile,
}

impl ReplicationRequest for UpdateProfile {
    const NAME: &'static str = "update_profile";
    // A profile that is shown already is not shown again.
    const MAY_REPEAT: bool = true;

    type Response = ();
}

/// The writers of rooms, asked over their `replication` listeners.
pub(crate) struct Writers {
    pub peers: Peers,
    pub assignment: watch::Receiver<Assignment>,
}

impl Writers {
    /// Asks the writer of a shard, and whoever takes its place.
    async fn ask<R: ReplicationRequest>(&self, shard: u8, request: &R) -> Result<R::Response, RoomError> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let holder = self.assignment.borrow().holder(shard.into()).cloned();
            let address =
                holder.and_then(|holder| self.peers.address(&holder.name, holder.address.as_deref()));
            if let Some(address) = address {
                match self.peers.ask(&address, request).await {
                    Asked::Answered(response) => return Ok(response),
                    Asked::Again => {}
                    Asked::Refused(reason) => return Err(RoomError::InvalidRoomState(reason)),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(RoomError::NotHere(Some(shard)))
    }
}

impl OtherWriters for Writers {
    fn update_profile<'a>(
        &'a self,
        shard: u8,
        room_id: &'a RoomId,
        user_id: &'a UserId,
        profile: &'a MemberProfile,
    ) -> Pin<Box<dyn Future<Output = Result<(), RoomError>> + Send + 'a>> {
        Box::pin(async move {
            let request = UpdateProfile {
                room_id: room_id.to_owned(),
                user_id: user_id.to_owned(),
                profile: profile.clone(),
            };
            self.ask(shard, &request).await
        })
    }
}
