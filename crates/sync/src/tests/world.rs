//! A server without HTTP: a database, the room engine, and a sync engine that its streams feed.

use std::{future::pending, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use myelin_ephemeral::{
    Presence, PresenceOptions, ReceiptKind, ReceiptRow, ReceiptStream, ReceiptThread, Receipts, Typing,
};
use myelin_events::ServerSigningKey;
use myelin_leases::Session;
use myelin_push::{Audience, PushBits, PushEvent, PushOutcome};
use myelin_replication::{Feed, StreamWriter};
use myelin_rooms::{
    ChangeMembership, CreateRoom, EventStream, MembershipAction, Preset, PushEvaluator, RoomError, RoomNid,
    Rooms, RoomsOptions, SendEvent,
};
use myelin_storage::strings::Strings;
use myelin_testing::MigratedDatabase;
use myelin_types::{Clock, ManualClock};
use ruma::{
    EventId, OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId, owned_server_name,
    presence::PresenceState,
};
use serde_json::{Value, json, value::RawValue};

use super::{
    sources::TestSources,
    truth::{Truth, Truths},
};
use crate::{Sync, SyncFilter, SyncOptions, SyncParts, SyncRequest};

pub(super) const AMY: &str = "@amy:one.test";
pub(super) const BOB: &str = "@bob:one.test";
pub(super) const CAS: &str = "@cas:one.test";

pub(super) fn user(id: &str) -> OwnedUserId {
    id.try_into().unwrap()
}

/// Messages notify everybody, and highlight for whom they name.
struct Rules;

impl PushEvaluator for Rules {
    fn evaluate<'a>(
        &'a self,
        audience: &'a mut Audience,
        event: PushEvent<'a>,
    ) -> BoxFuture<'a, myelin_storage::Result<PushOutcome>> {
        let is_named = |user: &&UserId| event.content.contains(user.as_str());
        let named = audience.members().filter(is_named);
        let outcome = match event.event_type {
            "m.room.message" => PushOutcome {
                default: PushBits::NOTIFY,
                exceptions: named.map(|user| (user.to_owned(), PushBits::HIGHLIGHT)).collect(),
            },
            _ => PushOutcome::default(),
        };
        Box::pin(std::future::ready(Ok(outcome)))
    }
}

/// A process and its database.
pub(super) struct World {
    pub rooms: Rooms,
    pub receipts: Receipts,
    pub typing: Typing,
    pub presence: Presence,
    pub sources: Arc<TestSources>,
    pub truths: Truths,
    pub sync: Sync,
    /// Holds the leases and the name.
    _session: Session,
    database: Arc<MigratedDatabase>,
}

impl World {
    pub async fn new() -> Self {
        Self::with_options(SyncOptions::default()).await
    }

    pub async fn with_options(options: SyncOptions) -> Self {
        let (sources, truths) = Default::default();
        Self::on(Arc::new(MigratedDatabase::create().await), options, sources, truths).await
    }

    async fn on(
        database: Arc<MigratedDatabase>,
        options: SyncOptions,
        sources: Arc<TestSources>,
        truths: Truths,
    ) -> Self {
        let pool = (**database).clone();
        let streams = ["events", "receipts", "presence"];
        let session =
            Session::register(pool.clone(), "main", &streams, Duration::from_secs(10)).await.unwrap();
        let clock = ManualClock::starting_at(1_700_000_000_000);
        let events: Feed<EventStream> = Feed::open(pool.clone()).await.unwrap();
        let told = truths.clone();
        events.subscribe(move |batch| {
            for stamped in batch.rows {
                told.lock().entry(stamped.row.pdu.room_id().clone()).or_default().apply(stamped);
            }
        });
        let key = ServerSigningKey::from_seed("test", [1; 32]).unwrap();
        let mut rooms_options = RoomsOptions::new(owned_server_name!("one.test"), Arc::new(key));
        rooms_options.clock = Clock::Manual(clock.clone());
        let strings = Strings::new(10_000);
        let writer = StreamWriter::start(pool.clone(), session.clone(), events.clone());
        let rooms = Rooms::start(
            pool.clone(),
            &session,
            writer,
            strings.clone(),
            rooms_options,
            Arc::new(()),
            Arc::new(Rules),
        )
        .await
        .unwrap();
        let feed: Feed<ReceiptStream> = Feed::open(pool.clone()).await.unwrap();
        let writer = StreamWriter::start(pool.clone(), session.clone(), feed.clone());
        let receipts = Receipts::new(pool.clone(), feed, writer);
        let feed = Feed::open(pool.clone()).await.unwrap();
        let writer = StreamWriter::start(pool.clone(), session.clone(), feed.clone());
        let presence = Presence::open(
            PresenceOptions::default(),
            Clock::Manual(clock.clone()),
            pool.clone(),
            feed,
            writer,
            session.writer(),
        )
        .await
        .unwrap();
        let typing = Typing::new(Clock::Manual(clock.clone()), session.writer(), session.epoch());
        let parts = SyncParts {
            options,
            clock: Clock::Manual(clock.clone()),
            database: pool,
            strings,
            events,
            account_data: sources.account_data.clone(),
            push_rules: sources.push_rules.clone(),
            to_device: sources.to_device.clone(),
            device_lists: sources.device_lists.clone(),
            receipts: receipts.feed().clone(),
            typing: typing.clone(),
            presence: presence.clone(),
            user_data: sources.clone(),
            devices: sources.clone(),
            aggregations: sources.clone(),
        };
        let sync = Sync::new(parts);
        Self { rooms, receipts, typing, presence, sources, truths, sync, _session: session, database }
    }

    /// The process ends and another begins.
    pub async fn restart(self) -> Self {
        let (database, options) = (self.database.clone(), self.sync.0.parts.options);
        let (sources, truths) = (self.sources.clone(), self.truths.clone());
        drop(self);
        Self::on(database, options, sources, truths).await
    }

    /// Another sync engine of the same process, that has nothing in memory yet.
    pub fn second_engine(&self) -> Sync {
        Sync::new(self.sync.0.parts.clone())
    }

    /// The events stream.
    pub fn events(&self) -> &Feed<EventStream> {
        &self.sync.0.parts.events
    }

    /// What is true of a room.
    pub fn truth<T>(&self, room_id: &RoomId, look: impl FnOnce(&Truth) -> T) -> T {
        look(&self.truths.lock()[room_id])
    }

    pub fn nid(&self, room_id: &RoomId) -> RoomNid {
        RoomNid(self.truth(room_id, |truth| truth.nid))
    }

    /// A room that anybody may join.
    pub async fn room(&self, creator: &str) -> OwnedRoomId {
        let request = CreateRoom { preset: Some(Preset::PublicChat), ..CreateRoom::new(user(creator)) };
        self.rooms.create_room(request).await.unwrap()
    }

    /// A room that Amy made and Bob joined, and Bob's token after that.
    pub async fn room_of_two(&self) -> (OwnedRoomId, String) {
        let room_id = self.room(AMY).await;
        self.join(BOB, &room_id).await;
        let answer = self.sync(Self::request(BOB, None)).await;
        let since = next_batch(&answer).to_owned();
        (room_id, since)
    }

    pub async fn change(
        &self,
        sender: &str,
        room_id: &RoomId,
        action: MembershipAction,
        target: &str,
    ) -> Result<OwnedEventId, RoomError> {
        let request = ChangeMembership::new(user(sender), room_id.to_owned(), action);
        self.rooms.change_membership(ChangeMembership { target: user(target), ..request }).await
    }

    pub async fn join(&self, user_id: &str, room_id: &RoomId) -> OwnedEventId {
        self.change(user_id, room_id, MembershipAction::Join, user_id).await.unwrap()
    }

    pub async fn leave(&self, user_id: &str, room_id: &RoomId) -> OwnedEventId {
        self.change(user_id, room_id, MembershipAction::Leave, user_id).await.unwrap()
    }

    pub async fn invite(&self, sender: &str, room_id: &RoomId, target: &str) -> OwnedEventId {
        self.change(sender, room_id, MembershipAction::Invite, target).await.unwrap()
    }

    /// A text message, with the body as its transaction id.
    pub async fn say(&self, sender: &str, room_id: &RoomId, body: &str) -> OwnedEventId {
        self.send(sender, room_id, "m.room.message", None, json!({"body": body, "msgtype": "m.text"})).await
    }

    /// A text message in a thread.
    pub async fn say_in(&self, sender: &str, room_id: &RoomId, root: &EventId, body: &str) -> OwnedEventId {
        let relation = json!({"rel_type": "m.thread", "event_id": root});
        let content = json!({"body": body, "msgtype": "m.text", "m.relates_to": relation});
        self.send(sender, room_id, "m.room.message", None, content).await
    }

    /// A state event.
    pub async fn set(
        &self,
        sender: &str,
        room_id: &RoomId,
        event_type: &str,
        state_key: &str,
        content: Value,
    ) -> OwnedEventId {
        self.send(sender, room_id, event_type, Some(state_key), content).await
    }

    async fn send(
        &self,
        sender: &str,
        room_id: &RoomId,
        event_type: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> OwnedEventId {
        let txn_id = content["body"].as_str().map(Into::into).filter(|_| state_key.is_none());
        let request = SendEvent {
            sender: user(sender),
            device_id: Some("DEVICE".into()),
            room_id: room_id.to_owned(),
            event_type: event_type.into(),
            state_key: state_key.map(str::to_owned),
            content: RawValue::from_string(content.to_string()).unwrap(),
            txn_id,
            timestamp: None,
        };
        self.rooms.send(request).await.unwrap()
    }

    /// A receipt for an event.
    pub async fn read(
        &self,
        user_id: &str,
        room_id: &RoomId,
        event_id: &EventId,
        kind: ReceiptKind,
        thread: ReceiptThread,
    ) {
        let place =
            |truth: &Truth| truth.events.iter().find(|(_, pdu)| pdu.event_id() == event_id).unwrap().0;
        let receipt = ReceiptRow {
            room_nid: self.nid(room_id).0,
            room_id: room_id.to_owned(),
            user_id: user(user_id),
            kind,
            thread,
            event_id: event_id.to_owned(),
            event_pos: Some(self.truth(room_id, place)),
            ts: 7,
        };
        self.receipts.record(receipt).await.unwrap();
    }

    /// A request of a user's device `DEVICE` without anything special.
    pub fn request(user_id: &str, since: Option<&str>) -> SyncRequest {
        SyncRequest {
            user_id: user(user_id),
            device_id: Some(OwnedDeviceId::from("DEVICE")),
            since: since.map(|since| since.parse().unwrap()),
            filter: Arc::default(),
            timeout: Duration::ZERO,
            full_state: false,
            set_presence: PresenceState::Offline,
            use_state_after: false,
        }
    }

    pub async fn sync(&self, request: SyncRequest) -> Value {
        let answer = self.sync.sync(request, pending()).await.unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    /// What a sync gives, with a filter.
    pub async fn sync_filtered(&self, user_id: &str, since: Option<&str>, filter: Value) -> Value {
        self.sync(SyncRequest { filter: filter_of(filter), ..Self::request(user_id, since) }).await
    }
}

pub(super) fn filter_of(filter: Value) -> Arc<SyncFilter> {
    Arc::new(SyncFilter::new(serde_json::from_value(filter).unwrap()))
}

/// The ids of the events of a list.
pub(super) fn event_ids(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap()).collect()
}

/// `next_batch`.
pub(super) fn next_batch(answer: &Value) -> &str {
    answer["next_batch"].as_str().unwrap()
}
