//! A logged-in device of a user.

use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{Answer, Api};

/// A user with one device and its access token. Methods panic where the server doesn't do what it is asked; those that
/// start with `try_`, and [`User::request`], leave the judgment to the caller.
#[derive(Clone, Debug)]
pub struct User {
    api: Api,
    /// The full user ID.
    pub id: String,
    /// The device the access token belongs to.
    pub device_id: String,
    /// The access token.
    pub access_token: String,
}

impl User {
    /// Registers a user whose password is the name, with the flow `m.login.dummy`.
    pub async fn register(api: &Api, localpart: &str) -> Self {
        let body =
            json!({ "username": localpart, "password": localpart, "auth": { "type": "m.login.dummy" } });
        let answer = api.request(Method::POST, "/_matrix/client/v3/register", Some(&body.to_string())).await;

        Self::from_login(api, &answer.ok())
    }

    /// A user that no server knows.
    #[cfg(test)]
    pub(crate) fn made_up(api: &Api, id: &str) -> Self {
        let text = |text: &str| text.to_owned();
        Self { api: api.clone(), id: text(id), device_id: text("DEVICE"), access_token: text("none") }
    }

    /// The process that it speaks to.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The same device, speaking to another process of the server.
    #[must_use]
    pub fn at(&self, api: &Api) -> Self {
        Self { api: api.clone(), ..self.clone() }
    }

    /// Logs a further device of the same user in.
    pub async fn log_in_again(&self) -> Self {
        let localpart = self.id.trim_start_matches('@').split(':').next().unwrap_or_default();
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": self.id },
            "password": localpart,
        });
        let answer =
            self.api.request(Method::POST, "/_matrix/client/v3/login", Some(&body.to_string())).await;

        Self::from_login(&self.api, &answer.ok())
    }

    fn from_login(api: &Api, answer: &Value) -> Self {
        let text = |key: &str| {
            answer[key].as_str().unwrap_or_else(|| panic!("no {key} in the answer {answer}")).to_owned()
        };

        Self {
            api: api.clone(),
            id: text("user_id"),
            device_id: text("device_id"),
            access_token: text("access_token"),
        }
    }

    /// Sends a request with the access token and a JSON body.
    ///
    /// # Errors
    ///
    /// If no whole answer came.
    pub async fn try_request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        let body = body.map(|body| body.to_string().into_bytes());

        self.api.try_request(method, path, Some(&self.access_token), body).await
    }

    /// Sends a request with the access token and returns the answer, whatever its status.
    pub async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let answer = self.try_request(method.clone(), path, body).await;

        answer.unwrap_or_else(|error| panic!("no answer to {method} {path}: {error}"))
    }

    /// Gets a path: the body of a 200.
    pub async fn get(&self, path: &str) -> Value {
        self.request(Method::GET, path, None).await.ok()
    }

    /// Puts a body to a path: the body of a 200.
    pub async fn put(&self, path: &str, body: Value) -> Value {
        self.request(Method::PUT, path, Some(&body)).await.ok()
    }

    /// Posts a body to a path: the body of a 200.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        self.request(Method::POST, path, Some(&body)).await.ok()
    }

    /// Creates a room by [createRoom](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom)
    /// and returns its ID.
    pub async fn create_room(&self, body: Value) -> String {
        let answer = self.post("/_matrix/client/v3/createRoom", body).await;

        answer["room_id"].as_str().unwrap_or_else(|| panic!("no room_id in {answer}")).to_owned()
    }

    /// Invites somebody.
    pub async fn invite(&self, room_id: &str, other: &Self) {
        let path = format!("/_matrix/client/v3/rooms/{}/invite", path_segment(room_id));
        self.post(&path, json!({ "user_id": other.id })).await;
    }

    /// Joins a room by its ID or alias.
    pub async fn join(&self, room: &str) {
        self.post(&format!("/_matrix/client/v3/join/{}", path_segment(room)), json!({})).await;
    }

    /// Leaves a room.
    pub async fn leave(&self, room_id: &str) {
        self.post(&format!("/_matrix/client/v3/rooms/{}/leave", path_segment(room_id)), json!({})).await;
    }

    /// Sends a text message under a fresh transaction ID and returns the event's ID.
    pub async fn send_text(&self, room_id: &str, body: &str) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);

        let txn_id = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let content = json!({ "msgtype": "m.text", "body": body });
        let answer = self.try_send(room_id, "m.room.message", &txn_id, &content).await;
        let answer = answer.unwrap_or_else(|error| panic!("no answer to a message: {error}")).ok();

        answer["event_id"].as_str().unwrap_or_else(|| panic!("no event_id in {answer}")).to_owned()
    }

    /// Sends an event under a transaction ID of the caller's.
    ///
    /// # Errors
    ///
    /// If no whole answer came: the event may have been sent or not, and repeating it tells.
    pub async fn try_send(
        &self,
        room_id: &str,
        event_type: &str,
        txn_id: &str,
        content: &Value,
    ) -> Result<Answer, reqwest::Error> {
        let room = path_segment(room_id);
        let path = format!("/_matrix/client/v3/rooms/{room}/send/{event_type}/{txn_id}");

        self.try_request(Method::PUT, &path, Some(content)).await
    }

    /// A page of [messages](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages),
    /// backwards from a token or the room's end.
    ///
    /// # Errors
    ///
    /// If no whole answer came.
    pub async fn try_messages(&self, room_id: &str, from: Option<&str>) -> Result<Answer, reqwest::Error> {
        let from = from.map(|token| format!("&from={}", path_segment(token))).unwrap_or_default();
        let room = path_segment(room_id);

        self.try_request(
            Method::GET,
            &format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=100{from}"),
            None,
        )
        .await
    }
}

/// Percent-encodes what can't stand in a segment of a path or a value of a query.
pub fn path_segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
