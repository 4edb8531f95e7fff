//! What other crates know of a user: their account data, their devices.
//!
//! The engine is told of changes as they are committed (by `apply_…` of [`Sync`](crate::Sync)), and asks here for what is
//! older. [`SyncServices`] are the sources of a process that has the services themselves.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use myelin_replication::{Feed, Stream};
use myelin_rooms::read::Viewer;
use myelin_storage::Result;
pub use myelin_storage::one_time_keys::KeyCounts;
use myelin_types::Position;
use ruma::{DeviceId, OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use serde_json::value::RawValue;

use myelin_events::Pdu;

mod services;

pub use services::{AccountSource, DeviceSource, SyncServices};

/// A stream, as far as tokens are concerned.
pub trait Progress: Send + Sync {
    /// Up to where this process has seen it.
    fn position(&self) -> Arc<Position>;

    /// Waits until this process has seen it up to a position; see [`Feed::wait_for`].
    fn wait_for<'a>(&'a self, position: &'a Position, patience: Duration) -> BoxFuture<'a, bool>;
}

impl<S: Stream> Progress for Feed<S> {
    fn position(&self) -> Arc<Position> {
        Feed::position(self)
    }

    fn wait_for<'a>(&'a self, position: &'a Position, patience: Duration) -> BoxFuture<'a, bool> {
        Box::pin(Feed::wait_for(self, position, patience))
    }
}

/// A stream that this deployment does not write: nothing ever happens on it.
#[derive(Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn position(&self) -> Arc<Position> {
        Arc::default()
    }

    fn wait_for<'a>(&'a self, _position: &'a Position, _patience: Duration) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(true))
    }
}

/// A piece of account data ([spec](https://spec.matrix.org/v1.19/client-server-api/#client-config)).
#[derive(Clone, Debug)]
pub struct AccountDatum {
    /// The room that it is about; `None`: global.
    pub room_id: Option<OwnedRoomId>,
    /// Its type.
    pub event_type: Box<str>,
    /// Its content.
    pub content: Arc<RawValue>,
}

impl AccountDatum {
    /// Whether it says whose messages the user does not want.
    pub(crate) fn is_ignored_users(&self) -> bool {
        self.room_id.is_none() && &*self.event_type == "m.ignored_user_list"
    }
}

/// Account data and push rules of users.
pub trait UserData: Send + Sync {
    /// All account data of a user that `after` does not cover, but not push rules.
    fn account_data<'a>(
        &'a self,
        user_id: &'a UserId,
        after: &'a Position,
    ) -> BoxFuture<'a, Result<Vec<Arc<AccountDatum>>>>;

    /// The content of the user's `m.push_rules`.
    fn push_rules<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, Result<Arc<RawValue>>>;

    /// Whose messages the user does not want
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#ignoring-users)).
    fn ignored_users<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, Result<HashSet<OwnedUserId>>>;
}

/// A message to a device ([spec](https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToDeviceEvent {
    /// The device it is for.
    pub device_id: OwnedDeviceId,
    /// The event as the device gets it, as JSON.
    pub json: Box<str>,
}

/// Messages for a device.
#[derive(Clone, Debug, Default)]
pub struct ToDeviceBatch {
    /// The events, as JSON.
    pub events: Vec<Box<str>>,
    /// Where the batch ends, if there are more.
    pub reached: Option<Position>,
}

/// What the engine asks about devices.
pub trait Devices: Send + Sync {
    /// At most `limit` messages for a device that `after` does not cover and `upto` does.
    fn to_device<'a>(
        &'a self,
        user_id: &'a UserId,
        device_id: &'a DeviceId,
        after: &'a Position,
        upto: &'a Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<ToDeviceBatch>>;

    /// Notes that a device has all messages up to a position. Must be cheap where there are none to delete.
    fn confirm_to_device<'a>(
        &'a self,
        user_id: &'a UserId,
        device_id: &'a DeviceId,
        upto: &'a Position,
    ) -> BoxFuture<'a, Result<()>>;

    /// The one-time keys ([spec](https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync)) that a device
    /// has left. Must be cheap where nothing changed.
    fn key_counts<'a>(
        &'a self,
        user_id: &'a UserId,
        device_id: &'a DeviceId,
    ) -> BoxFuture<'a, Result<Arc<KeyCounts>>>;

    /// Whose devices or keys changed between two positions, as far as `user_id` may be concerned.
    fn changed_users<'a>(
        &'a self,
        user_id: &'a UserId,
        after: &'a Position,
        upto: &'a Position,
    ) -> BoxFuture<'a, Result<Vec<OwnedUserId>>>;
}

/// The children that events have gathered.
pub trait Aggregations: Send + Sync {
    /// `m.relations` of those of the events that have any, as JSON
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events)).
    fn bundle<'a>(
        &'a self,
        viewer: &'a Viewer,
        events: &'a [Arc<Pdu>],
    ) -> BoxFuture<'a, Result<Vec<(OwnedEventId, String)>>>;
}

/// Whom the content of an `m.ignored_user_list` names.
pub fn ignored_users(content: &str) -> HashSet<OwnedUserId> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Content {
        ignored_users: BTreeMap<String, serde::de::IgnoredAny>,
    }
    // What a client stored there is its own business; what is no user id ignores nobody.
    let content: Content = serde_json::from_str(content).unwrap_or_default();
    content.ignored_users.into_keys().filter_map(|user_id| user_id.try_into().ok()).collect()
}
