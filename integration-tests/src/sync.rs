//! What a device sees by syncing.

use reqwest::Method;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::{Answer, PATIENCE, User, user::path_segment};

/// One answer of [`/sync`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync).
#[derive(Clone, Debug)]
pub struct Sync(pub Value);

impl Sync {
    /// The token for the next sync.
    ///
    /// # Panics
    ///
    /// If the server sent none.
    pub fn next_batch(&self) -> &str {
        self.0["next_batch"].as_str().expect("every sync has a next_batch")
    }

    /// The section of a room the user is joined to, if there is news.
    pub fn joined(&self, room_id: &str) -> Option<&Value> {
        self.0["rooms"]["join"].get(room_id)
    }

    /// The section of a room the user is invited to.
    pub fn invited(&self, room_id: &str) -> Option<&Value> {
        self.0["rooms"]["invite"].get(room_id)
    }

    /// The section of a room the user has left.
    pub fn left(&self, room_id: &str) -> Option<&Value> {
        self.0["rooms"]["leave"].get(room_id)
    }

    /// The new events of a joined room, oldest first.
    pub fn timeline(&self, room_id: &str) -> &[Value] {
        self.joined(room_id).map(|room| events(&room["timeline"])).unwrap_or_default()
    }

    /// Whether an event is in the timeline of any joined room.
    pub fn has(&self, event_id: &str) -> bool {
        let rooms = self.0["rooms"]["join"].as_object();
        rooms.into_iter().flatten().any(|(_, room)| {
            events(&room["timeline"]).iter().any(|event| event["event_id"].as_str() == Some(event_id))
        })
    }
}

/// The events of a section.
fn events(section: &Value) -> &[Value] {
    section["events"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A device that keeps its place in the stream of syncs.
#[derive(Clone, Debug)]
pub struct Syncer {
    user: User,
    since: Option<String>,
}

impl Syncer {
    /// Makes the next sync, which waits for news unless it is the first.
    ///
    /// # Panics
    ///
    /// If the server doesn't answer 200.
    pub async fn step(&mut self) -> Sync {
        let answer = self.user.try_sync(self.since.as_deref(), 10_000).await;
        let answer = answer.unwrap_or_else(|error| panic!("no answer to a sync: {error}"));
        let sync = Sync(answer.ok());
        self.since = Some(sync.next_batch().to_owned());

        sync
    }

    /// Syncs until an answer is as wanted, and returns that.
    ///
    /// # Panics
    ///
    /// If none is for as long as a test waits.
    pub async fn until(&mut self, mut wanted: impl FnMut(&Sync) -> bool) -> Sync {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match timeout_at(deadline, self.step()).await {
                Ok(sync) if wanted(&sync) => return sync,
                Ok(_) => {}
                Err(_) => panic!("{} waited in vain for {PATIENCE:?}", self.user.id),
            }
        }
    }
}

impl User {
    /// A device at the start of its syncs.
    pub fn syncer(&self) -> Syncer {
        Syncer { user: self.clone(), since: None }
    }

    /// Syncs from the start until an answer is as wanted, and returns that.
    ///
    /// # Panics
    ///
    /// If none is for as long as a test waits.
    pub async fn sync_until(&self, wanted: impl FnMut(&Sync) -> bool) -> Sync {
        self.syncer().until(wanted).await
    }

    /// One sync, as raw as it gets.
    ///
    /// # Errors
    ///
    /// If no whole answer came.
    pub async fn try_sync(&self, since: Option<&str>, timeout_ms: u32) -> Result<Answer, reqwest::Error> {
        let since = since.map(|token| format!("&since={}", path_segment(token))).unwrap_or_default();

        self.try_request(Method::GET, &format!("/_matrix/client/v3/sync?timeout={timeout_ms}{since}"), None)
            .await
    }
}
