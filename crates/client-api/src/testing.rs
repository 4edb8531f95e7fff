//! A whole app over a fresh database, spoken to without a network.

use std::{sync::Arc, time::Duration};

use http::{Method, Request, header};
use myelin_accounts::{AccountData, AccountDataStream, Accounts, Filters, LogIn, NewAccount};
use myelin_config::Server;
use myelin_devices::{DeviceListStream, Devices, KeyBackups, ToDevice, ToDeviceStream};
use myelin_ephemeral::{Presence, PresenceStream, ReceiptStream, Receipts, Typing};
use myelin_events::ServerSigningKey;
use myelin_http::Router;
use myelin_leases::Session;
use myelin_push::{PushRules, PushRulesStream, Pushers};
use myelin_replication::{Feed, Stream, StreamWriter};
use myelin_rooms::{
    ChangeMembership, CreateRoom, EventStream, MembershipAction, Rooms, RoomsOptions, SendEvent,
    read::RoomReader,
};
use myelin_storage::{Database, DatabaseOptions, migrate, migrations_fingerprint, strings::Strings};
use myelin_sync::{Sync, SyncServices};
use myelin_testing::TestDatabase;
use myelin_types::{Clock, ManualClock};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use serde_json::{Value as JsonValue, json, value::RawValue};

use crate::{AccountProfiles, App, Limits, Services, Settings};

pub const PASSWORD: &str = "correct horse";

/// An app with its database and a clock that stands still.
pub struct TestApp {
    pub app: App,
    pub hands: ManualClock,
    router: Router,
    _test: TestDatabase,
}

/// The status and the body of an answer.
pub type Answer = (u16, JsonValue);

impl TestApp {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With settings that were changed.
    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let connect = |url: &str| Database::new(DatabaseOptions::from_address(url)?);
        let test =
            TestDatabase::create(migrations_fingerprint(), async |url| migrate(&connect(&url)?).await).await;
        let database = connect(test.url()).unwrap();
        let mut settings = settings();
        change(&mut settings);
        let hands = ManualClock::starting_at(1_700_000_000_000);
        let services = services(settings, database, Clock::Manual(hands.clone())).await;
        let app = App::new(services);
        Self { router: crate::routes(app.clone()).build(), app, hands, _test: test }
    }

    /// Makes a user and gives an access token.
    pub async fn user(&self, localpart: &str) -> String {
        let account =
            NewAccount { localpart: Some(localpart), password: Some(PASSWORD), ..NewAccount::default() };
        let user_id = self.app.accounts.register(account).await.unwrap();
        self.app.accounts.log_in(LogIn::new(&user_id)).await.unwrap().access_token
    }

    /// Makes a room and gives its id.
    pub async fn room(&self, creator: &str, request: JsonValue) -> String {
        let (status, body) = self.post("/_matrix/client/v3/createRoom", Some(creator), request).await;
        assert_eq!(status, 200, "{body}");
        body["room_id"].as_str().expect("the room has an id").to_owned()
    }

    /// Makes a public room of a user.
    pub async fn public_room(&self, localpart: &str) -> OwnedRoomId {
        let mut request = CreateRoom::new(user_id(localpart));
        request.is_public = true;
        self.app.rooms.create_room(request).await.unwrap()
    }

    /// Has a user join a room.
    pub async fn join(&self, localpart: &str, room_id: &RoomId) {
        let user_id = user_id(localpart);
        let request = ChangeMembership::new(user_id, room_id.to_owned(), MembershipAction::Join);
        self.app.rooms.change_membership(request).await.unwrap();
    }

    /// Has a user say something in a room.
    pub async fn say(&self, localpart: &str, room_id: &RoomId, body: &str) -> OwnedEventId {
        self.send(localpart, room_id, "m.room.message", json!({ "msgtype": "m.text", "body": body })).await
    }

    /// Has a user send an event to a room.
    pub async fn send(
        &self,
        localpart: &str,
        room_id: &RoomId,
        event_type: &str,
        content: JsonValue,
    ) -> OwnedEventId {
        self.app.rooms.send(event(localpart, room_id, event_type, None, &content)).await.unwrap()
    }

    /// Has a user change the state of a room, under the empty state key.
    pub async fn set(&self, localpart: &str, room_id: &RoomId, event_type: &str, content: JsonValue) {
        let state_key = Some(String::new());
        self.app.rooms.send(event(localpart, room_id, event_type, state_key, &content)).await.unwrap();
    }

    /// Makes a request. A body of `null` is none.
    pub async fn call(&self, method: Method, path: &str, token: Option<&str>, body: JsonValue) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.router.call(request.body(body).unwrap()).await;
        let body = answer.bytes().expect("this answer is not streamed");
        (answer.status().as_u16(), serde_json::from_slice(body).expect("every answer is JSON"))
    }

    pub async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.call(Method::GET, path, token, JsonValue::Null).await
    }

    pub async fn post(&self, path: &str, token: Option<&str>, body: JsonValue) -> Answer {
        self.call(Method::POST, path, token, body).await
    }

    pub async fn put(&self, path: &str, token: Option<&str>, body: JsonValue) -> Answer {
        self.call(Method::PUT, path, token, body).await
    }

    pub async fn delete(&self, path: &str, token: Option<&str>, body: JsonValue) -> Answer {
        self.call(Method::DELETE, path, token, body).await
    }
}

fn user_id(localpart: &str) -> OwnedUserId {
    format!("@{localpart}:example.org").try_into().expect("tests use valid localparts")
}

fn event(
    localpart: &str,
    room_id: &RoomId,
    event_type: &str,
    state_key: Option<String>,
    content: &JsonValue,
) -> SendEvent {
    SendEvent {
        sender: user_id(localpart),
        device_id: None,
        room_id: room_id.to_owned(),
        event_type: event_type.into(),
        state_key,
        content: RawValue::from_string(content.to_string()).expect("a value is JSON"),
        txn_id: None,
        timestamp: None,
    }
}

/// Checks the status and the errcode of an answer; no errcode is `""`.
#[track_caller]
pub fn check((status, body): Answer, expected_status: u16, errcode: &str) {
    let found = body["errcode"].as_str().unwrap_or_default();
    assert_eq!((status, found), (expected_status, errcode), "{body}");
}

fn settings() -> Settings {
    let server = Server {
        server_name: ruma::owned_server_name!("example.org"),
        public_baseurl: None,
        serve_server_wellknown: false,
        extra_well_known_client_content: Default::default(),
        pid_file: None,
        admin_contact: None,
        user_agent_suffix: None,
        experimental_features: Default::default(),
    };
    let mut settings = Settings {
        server,
        registration: Default::default(),
        auth: Default::default(),
        users: Default::default(),
        presence: Default::default(),
        rooms: Default::default(),
        room_directory: Default::default(),
        voip: Default::default(),
        rate_limits: Default::default(),
    };
    let unlimited = || myelin_config::RateLimit::UNLIMITED;
    let limits = &mut settings.rate_limits;
    (limits.rc_message, limits.rc_room_creation, limits.rc_joins_per_room) =
        (unlimited(), unlimited(), unlimited());
    limits.rc_joins.local = unlimited();
    settings.auth.bcrypt_rounds = 4;
    settings.registration.enable_registration = true;
    settings.registration.enable_registration_without_verification = true;
    settings
}

async fn services(settings: Settings, database: Database, clock: Clock) -> Services {
    let names = [
        EventStream::NAME,
        AccountDataStream::NAME,
        DeviceListStream::NAME,
        ToDeviceStream::NAME,
        PushRulesStream::NAME,
        ReceiptStream::NAME,
        PresenceStream::NAME,
    ];
    let session = Session::register(database.clone(), "main", &names, Duration::ZERO).await.unwrap();
    let (account_data_feed, writer) = stream::<AccountDataStream>(&database, &session).await;
    let account_data = AccountData::new(database.clone(), writer, &account_data_feed, 1 << 20);
    let (feed, writer) = stream::<DeviceListStream>(&database, &session).await;
    let devices = Devices::new(database.clone(), feed, writer);
    let (feed, writer) = stream::<ToDeviceStream>(&database, &session).await;
    let to_device = ToDevice::new(database.clone(), clock.clone(), feed, writer);
    let (feed, writer) = stream::<PushRulesStream>(&database, &session).await;
    let push_rules = PushRules::new(database.clone(), feed, writer);
    let accounts = Accounts::new(settings.accounts_config(), database.clone(), clock.clone());
    let (feed, writer) = stream::<ReceiptStream>(&database, &session).await;
    let receipts = Receipts::new(database.clone(), feed, writer);
    let typing = Typing::new(clock.clone());
    let (feed, writer) = stream::<PresenceStream>(&database, &session).await;
    let options = settings.presence_options();
    let me = session.writer();
    let presence = Presence::open(options, clock.clone(), database.clone(), feed, writer, me).await.unwrap();
    let (events, writer) = stream::<EventStream>(&database, &session).await;
    let strings = Strings::new(10_000);
    let room_reader = RoomReader::new(database.clone(), strings.clone(), &events, clock.clone(), 1 << 20);
    let sync = Sync::over(SyncServices {
        options: settings.sync_options(),
        clock: clock.clone(),
        database: database.clone(),
        strings: strings.clone(),
        events,
        account_data_feed,
        account_data: account_data.clone(),
        push_rules: push_rules.clone(),
        devices: devices.clone(),
        to_device: to_device.clone(),
        receipts: receipts.clone(),
        typing: typing.clone(),
        presence: presence.clone(),
        room_reader: room_reader.clone(),
    });
    let key = Arc::new(ServerSigningKey::from_seed("test", [1; 32]).unwrap());
    let rooms = Rooms::start(
        database.clone(),
        &session,
        writer,
        strings,
        RoomsOptions { clock: clock.clone(), ..settings.rooms_options(key) },
        Arc::new(AccountProfiles(accounts.clone())),
        Arc::new(push_rules.clone()),
    );
    Services {
        rooms: rooms.await.unwrap(),
        room_reader,
        receipts,
        typing,
        presence,
        sync,
        to_device,
        key_backups: KeyBackups::new(database.clone()),
        push_rules,
        pushers: Pushers::new(database.clone(), clock.clone()),
        limits: Limits::new(&settings.rate_limits, &clock),
        accounts,
        account_data,
        filters: Filters::new(database.clone()),
        devices,
        settings,
        clock,
        database,
    }
}

async fn stream<S: Stream>(database: &Database, session: &Session) -> (Feed<S>, StreamWriter<S>) {
    let feed = Feed::open(database.clone()).await.unwrap();
    let writer = StreamWriter::start(database.clone(), session.clone(), feed.clone());
    (feed, writer)
}
