//! Answering a `/sync`: looking, waiting if there is nothing, and writing down what there is.

use std::{collections::HashSet, future::Future, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use myelin_events::raw_json::ObjectWriter;
use myelin_storage::StorageError;
use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedUserId, presence::PresenceState};
use tokio::time::{Instant, timeout};

use crate::{
    Sync, SyncFilter, SyncToken,
    engine::{Engine, Seen},
    lazy::Device,
    user::UserFeed,
};

mod device;
mod ephemeral;
mod invites;
mod people;
mod plan;
mod rooms;
mod state;
mod summary;
mod timeline;
mod unread;

/// How long an initial sync waits for its turn.
const TURN_PATIENCE: Duration = Duration::from_secs(60);
/// How long a sync waits at most, whatever the client asks for.
const MAX_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// A request for [`Sync::sync`]
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync)).
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// Who asks.
    pub user_id: OwnedUserId,
    /// With which device; application services have none.
    pub device_id: Option<OwnedDeviceId>,
    /// What the client has seen; `None`: nothing.
    pub since: Option<SyncToken>,
    /// What it wants.
    pub filter: Arc<SyncFilter>,
    /// How long it waits for something to happen.
    pub timeout: Duration,
    /// All state of all rooms, not only what changed.
    pub full_state: bool,
    /// What it wants to be seen as.
    pub set_presence: PresenceState,
    /// The state after the timeline instead of that before it.
    pub use_state_after: bool,
}

/// Why a sync is not answered.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The token names a position that no stream has reached: it is from another server, or from the future.
    #[error("the token is ahead of this server")]
    UnknownPosition,
    /// Too many initial syncs are under way: try again later.
    #[error("too many initial syncs are under way")]
    Overloaded,
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What an answer is made for, and up to where.
pub(crate) struct Context<'a> {
    pub engine: &'a Engine,
    pub user: &'a Arc<UserFeed>,
    pub request: &'a SyncRequest,
    pub upto: &'a SyncToken,
    pub now: u64,
    pub ignored: Arc<HashSet<OwnedUserId>>,
    /// With lazy loading: what the device has been told of members.
    pub lazy: Option<Arc<Mutex<Device>>>,
    /// Whom this answer tells it of.
    pub told: Mutex<Vec<u64>>,
}

/// An answer, and whether it says anything.
struct Answer {
    json: String,
    has_news: bool,
}

impl Sync {
    /// Answers a request, as JSON. Waits for as long as the client wants and nothing happens, and ends the waiting when
    /// `draining` ends: then the answer is empty, and the client comes back to another process.
    ///
    /// Holds no database connection while waiting, and may be dropped at any time.
    ///
    /// # Errors
    /// See [`SyncError`].
    pub async fn sync(
        &self,
        request: SyncRequest,
        draining: impl Future<Output = ()>,
    ) -> Result<Bytes, SyncError> {
        let engine = &*self.0;
        if let Some(since) = &request.since {
            engine.reach(since).await?;
        }
        let _turn = match request.since {
            Some(_) => None,
            None => match timeout(TURN_PATIENCE, engine.initial_syncs.acquire()).await {
                Ok(Ok(turn)) => Some(turn),
                Ok(Err(_)) | Err(_) => return Err(SyncError::Overloaded),
            },
        };
        let _present = engine.parts.presence.syncing(&request.user_id, &request.set_presence);
        let (user, _under_way) = engine.enter(&request.user_id);
        engine.load_user(&user).await?;
        engine.confirm(&request).await?;

        let patience = request.timeout.min(MAX_TIMEOUT);
        let deadline = Instant::now() + patience;
        let mut draining = pin!(draining);
        let _asleep = (!patience.is_zero()).then(|| user.fall_asleep());
        loop {
            // Registered before looking, so that nothing that happens meanwhile is missed.
            let mut woken = pin!(user.woken());
            woken.as_mut().enable();
            let seen = engine.snapshot();
            // Who comes back at once has seen all that there is: it is not looked for, and what says so not written before its time.
            let is_up_to_date = !request.full_state && request.since.as_ref() == Some(&seen.token);
            if patience.is_zero() || !is_up_to_date {
                let answer = engine.answer(&user, &request, &seen).await?;
                let is_done = answer.has_news || request.since.is_none() || request.full_state;
                if is_done || patience.is_zero() {
                    return Ok(answer.json.into());
                }
            }
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep_until(deadline) => break,
                () = &mut draining => break,
            }
        }
        let answer = engine.answer(&user, &request, &engine.snapshot()).await?;
        Ok(answer.json.into())
    }
}

impl Engine {
    /// Up to where everything is known here.
    fn snapshot(&self) -> Arc<Seen> {
        self.catch_up_seen();
        self.seen()
    }

    /// Waits until this process has seen what a token has.
    pub async fn reach(&self, since: &SyncToken) -> Result<(), SyncError> {
        let seen = self.snapshot();
        let give_up = Instant::now() + self.parts.options.max_lag;
        for (stream, ours, theirs) in self.streams(&seen.token, since) {
            let rest = give_up.saturating_duration_since(Instant::now());
            if !ours.covers_all(theirs) && !stream.wait_for(theirs, rest).await {
                return Err(SyncError::UnknownPosition);
            }
        }
        Ok(())
    }

    /// A client that comes back with a token has what led up to it.
    async fn confirm(&self, request: &SyncRequest) -> Result<(), SyncError> {
        if let (Some(device_id), Some(since)) = (&request.device_id, &request.since) {
            self.parts.devices.confirm_to_device(&request.user_id, device_id, &since.to_device).await?;
        }
        Ok(())
    }

    async fn answer(
        &self,
        user: &Arc<UserFeed>,
        request: &SyncRequest,
        seen: &Seen,
    ) -> Result<Answer, SyncError> {
        let ignored = user.inner.lock().ignored.clone();
        let now = self.parts.clock.now();
        let lazy = request
            .filter
            .lazy_load_members
            .then(|| self.lazy.of(&request.user_id, request.device_id.as_ref(), request.since.as_ref()));
        let told = Mutex::default();
        let context = Context { engine: self, user, request, upto: &seen.token, now, ignored, lazy, told };
        let mut json = String::with_capacity(512);
        let mut object = ObjectWriter::new(&mut json);
        let mut has_news = false;
        let account_data = context.account_data().await?;
        let (rooms, membership_news) = context.write_rooms(&mut object, &account_data).await?;
        has_news |= rooms;
        has_news |= context.write_account_data(&mut object, &account_data).await?;
        has_news |= context.write_presence(&mut object, &membership_news).await?;
        let reached = context.write_to_device(&mut object).await?;
        has_news |= reached.has_events;
        has_news |= context.write_device_lists(&mut object, &membership_news).await?;
        context.write_key_counts(&mut object).await?;
        let next_batch = reached.next_batch.map(|to_device| SyncToken { to_device, ..seen.token.clone() });
        match &next_batch {
            None => object.string("next_batch", seen.text()),
            Some(token) => object.display("next_batch", token),
        }
        object.end();
        if let Some(device) = &context.lazy {
            let token = next_batch.unwrap_or_else(|| seen.token.clone());
            device.lock().told(token, std::mem::take(&mut context.told.lock()));
        }
        Ok(Answer { json, has_news })
    }
}

impl Context<'_> {
    /// What the client has seen, unless it begins.
    fn since(&self) -> Option<&SyncToken> {
        self.request.since.as_ref()
    }

    fn filter(&self) -> &SyncFilter {
        &self.request.filter
    }

    fn user_id(&self) -> &ruma::UserId {
        &self.request.user_id
    }
}

/// Writes `{"events":[…]}` under a name, and gives how many events `write` wrote; it is told whether one came before.
fn write_events<T>(
    object: &mut ObjectWriter<'_>,
    name: &str,
    events: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) -> usize {
    let mut count = 0;
    object.with(name, |out| {
        out.push_str("{\"events\":[");
        for event in events {
            if count > 0 {
                out.push(',');
            }
            count += 1;
            write(out, event);
        }
        out.push_str("]}");
    });
    count
}
