//! A whole app over a fresh database, spoken to without a network.

use std::{sync::Arc, time::Duration};

use http::{Method, Request, header};
use myelin_accounts::{LogIn, NewAccount};
use myelin_config::Server;
use myelin_events::ServerSigningKey;
use myelin_http::Router;
use myelin_leases::Session;
use myelin_replication::Horizon;
use myelin_rooms::{ChangeMembership, CreateRoom, MembershipAction, SendEvent};
use myelin_storage::{Database, DatabaseOptions, migrate, migrations_fingerprint};
use myelin_testing::TestDatabase;
use myelin_types::{Clock, ManualClock};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use serde_json::{Value as JsonValue, json, value::RawValue};

use crate::{App, Parts, Services, Settings};

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
        let services = services(settings, &database, Clock::Manual(hands.clone())).await;
        let app = App::new(services);
        Self { router: crate::routes(app.clone()).build(), app, hands, _test: test }
    }

    /// Makes a user and gives an access token.
    pub async fn user(&self, localpart: &str) -> String {
        let account =
            NewAccount { localpart: Some(localpart), password: Some(PASSWORD), ..NewAccount::default() };
        let user_id = self.app.accounts.register(account).await.unwrap().user_id;
        self.app.accounts.log_in(&user_id, LogIn::default()).await.unwrap().access_token
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

async fn services(settings: Settings, database: &Database, clock: Clock) -> Services {
    let session = Session::register(database.clone(), "main", &[], Duration::ZERO).await.unwrap();
    let parts = Parts {
        settings,
        clock,
        database,
        session: &session,
        signing_key: Arc::new(ServerSigningKey::from_seed("test", [1; 32]).unwrap()),
        writes_rooms: true,
        horizon: &Horizon::new(database.clone()),
        notices: None,
    };
    Services::compose(parts).await.unwrap().0
}
