//! A server without HTTP: a database, a writer of the events stream, the engine, and what its feed was told.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use myelin_events::{Pdu, ServerSigningKey};
use myelin_leases::Session;
use myelin_replication::{Feed, Stamped, Stream as _, StreamWriter};
use myelin_rooms::{
    ChangeMembership, CreateRoom, EventRow, EventStream, MemberProfile, MembershipAction, Profiles,
    RoomError, Rooms, RoomsOptions, SendEvent, ShowNumber, ToShow,
};
use myelin_storage::{Database, DatabaseOptions, StorageError, accounts::profiles, strings::Strings};
use myelin_testing::MigratedDatabase;
use myelin_types::{Clock, ManualClock};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId, owned_server_name};
use serde_json::{Map, Value, json, value::RawValue};

pub const ALICE: &str = "@alice:one.test";
pub const BOB: &str = "@bob:one.test";
pub const CAROL: &str = "@carol:one.test";

pub fn user(id: &str) -> OwnedUserId {
    id.try_into().expect("tests use valid user ids")
}

pub fn raw(content: &Value) -> Box<RawValue> {
    RawValue::from_string(content.to_string()).expect("a value is JSON")
}

pub fn object(content: Value) -> Map<String, Value> {
    match content {
        Value::Object(content) => content,
        other => panic!("{other} is no object"),
    }
}

/// Everybody is called like their localpart, until the name is changed, of which the database has the note.
pub struct Names {
    database: Database,
    /// What rooms are to show of everybody.
    pub to_show: Mutex<MemberProfile>,
    /// How often somebody asked what rooms are to show.
    pub asked: AtomicUsize,
}

impl Profiles for Names {
    fn profile<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, MemberProfile> {
        let displayname = Some(user_id.localpart().to_owned());
        Box::pin(std::future::ready(MemberProfile { displayname, avatar_url: None }))
    }

    fn to_show<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, Result<ToShow, StorageError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let change = profiles::get_to_show(&self.database.get().await?, user_id).await?;
            Ok(ToShow { profile: self.to_show.lock().unwrap().clone(), change })
        })
    }

    fn note_shown<'a>(
        &'a self,
        user_id: &'a UserId,
        change: ShowNumber,
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move { profiles::delete_to_show(&self.database.get().await?, user_id, change).await })
    }

    fn list_to_show(&self) -> BoxFuture<'_, Result<Vec<(OwnedUserId, ShowNumber)>, StorageError>> {
        Box::pin(async move { profiles::list_to_show(&self.database.get().await?, 10).await })
    }
}

pub struct World {
    pub database: Arc<MigratedDatabase>,
    pub rooms: Rooms,
    pub names: Arc<Names>,
    /// What the engine reads through; commits have a pool of their own.
    pub reading: Database,
    pub feed: Feed<EventStream>,
    pub clock: ManualClock,
    seen: Arc<Mutex<Vec<Stamped<EventRow>>>>,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(configure: impl FnOnce(&mut RoomsOptions)) -> Self {
        Self::on(Arc::new(MigratedDatabase::create().await), configure).await
    }

    async fn on(database: Arc<MigratedDatabase>, configure: impl FnOnce(&mut RoomsOptions)) -> Self {
        let pool = (**database).clone();
        let session = Session::register(pool.clone(), "main", &[EventStream::NAME], Duration::from_secs(10))
            .await
            .expect("the name is free");
        let feed = Feed::open(pool.clone()).await.unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        feed.subscribe(move |batch| sink.lock().unwrap().extend_from_slice(batch.rows));
        let writer = StreamWriter::start(pool.clone(), session.clone(), feed.clone());
        let key = ServerSigningKey::from_seed("test", [1; 32]).unwrap();
        let mut options = RoomsOptions::new(owned_server_name!("one.test"), Arc::new(key));
        let clock = ManualClock::starting_at(1_700_000_000_000);
        options.clock = Clock::Manual(clock.clone());
        configure(&mut options);
        let mut reading = DatabaseOptions::from_address(database.url()).unwrap();
        reading.max_connections = 4;
        reading.wait_timeout = Duration::from_secs(2);
        let reading = Database::new(reading).unwrap();
        let names =
            Arc::new(Names { database: pool.clone(), to_show: Mutex::default(), asked: AtomicUsize::new(0) });
        let rooms = Rooms::start(
            reading.clone(),
            &session,
            writer,
            Strings::new(10_000),
            options,
            names.clone(),
            Arc::new(()),
        )
        .await
        .unwrap();
        Self { database, rooms, names, reading, feed, clock, seen }
    }

    /// The process ends and another begins.
    pub async fn restart(self) -> Self {
        let database = self.database.clone();
        drop(self);
        Self::on(database, |_| ()).await
    }

    /// The rows that the feed was given, in its order.
    pub fn seen(&self) -> Vec<Stamped<EventRow>> {
        self.seen.lock().unwrap().clone()
    }

    /// The timeline of a room as subscribers know it.
    pub fn timeline(&self, room_id: &RoomId) -> Vec<Arc<Pdu>> {
        let rows = self.seen();
        let of_room = rows.iter().filter(|row| row.row.timeline && row.row.pdu.room_id() == room_id);
        of_room.map(|row| row.row.pdu.clone()).collect()
    }

    /// A state event of a room as subscribers know it.
    pub fn state(&self, room_id: &RoomId, event_type: &str, state_key: &str) -> Option<Arc<Pdu>> {
        let mut held = None;
        for row in self.seen() {
            for change in row.row.state_changes.iter().filter(|_| row.row.pdu.room_id() == room_id) {
                if change.event_type.to_string() == event_type && &*change.state_key == state_key {
                    held = change.event.clone();
                }
            }
        }
        held
    }

    pub fn content(&self, room_id: &RoomId, event_type: &str, state_key: &str) -> Value {
        let event = self.state(room_id, event_type, state_key);
        event.map_or(Value::Null, |event| serde_json::from_str(event.content()).unwrap())
    }

    /// A public room of Alice.
    pub async fn room(&self) -> OwnedRoomId {
        self.room_of_version(RoomVersionId::V12).await
    }

    pub async fn room_of_version(&self, version: RoomVersionId) -> OwnedRoomId {
        let mut request = CreateRoom::new(user(ALICE));
        request.is_public = true;
        request.room_version = Some(version);
        self.rooms.create_room(request).await.unwrap()
    }

    pub async fn say(&self, sender: &str, room_id: &RoomId, body: &str) -> Result<OwnedEventId, RoomError> {
        self.rooms.send(message(sender, room_id, body)).await
    }

    pub async fn set(
        &self,
        sender: &str,
        room_id: &RoomId,
        event_type: &str,
        state_key: &str,
        content: Value,
    ) -> Result<OwnedEventId, RoomError> {
        let mut request = message(sender, room_id, "");
        request.event_type = event_type.into();
        request.state_key = Some(state_key.to_owned());
        request.content = raw(&content);
        self.rooms.send(request).await
    }

    pub async fn change(
        &self,
        sender: &str,
        room_id: &RoomId,
        action: MembershipAction,
        target: &str,
    ) -> Result<OwnedEventId, RoomError> {
        let mut request = ChangeMembership::new(user(sender), room_id.to_owned(), action);
        request.target = user(target);
        self.rooms.change_membership(request).await
    }

    pub async fn join(&self, sender: &str, room_id: &RoomId) -> Result<OwnedEventId, RoomError> {
        self.change(sender, room_id, MembershipAction::Join, sender).await
    }

    /// A number that a query gives.
    pub async fn count(&self, sql: &str) -> i64 {
        self.database.get().await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
    }

    pub async fn execute(&self, sql: &str) {
        self.database.get().await.unwrap().batch_execute(sql).await.unwrap();
    }
}

pub fn message(sender: &str, room_id: &RoomId, body: &str) -> SendEvent {
    SendEvent {
        sender: user(sender),
        device_id: Some("DEVICE".into()),
        room_id: room_id.to_owned(),
        event_type: "m.room.message".into(),
        state_key: None,
        content: raw(&json!({ "msgtype": "m.text", "body": body })),
        txn_id: None,
        timestamp: None,
    }
}
