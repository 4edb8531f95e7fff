//! Receipts ([spec](https://spec.matrix.org/v1.19/client-server-api/#receipts)) and read markers
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#read-and-unread-markers)).

use std::sync::Arc;

use myelin_accounts::Login;
use myelin_ephemeral::{NewReceipt, ReceiptKind, ReceiptThread};
use myelin_http::{ApiError, Routes};
use myelin_rooms::read::RoomInfo;
use ruma::{
    EventId, OwnedEventId,
    api::client::{
        read_marker::set_read_marker,
        receipt::create_receipt::{self, v3::ReceiptType},
    },
    events::receipt::ReceiptThread as WireThread,
};

use crate::{App, GuestOrUser, error::api};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(create);
    routes.add(set_markers);
}

async fn create(
    app: App,
    user: GuestOrUser,
    request: create_receipt::v3::Request,
) -> Result<create_receipt::v3::Response, ApiError> {
    let thread = &request.thread;
    let marks = Marks::new(&app, &user, &request.room_id).await?;
    match request.receipt_type {
        ReceiptType::Read => marks.read(ReceiptKind::Read, thread, request.event_id).await?,
        ReceiptType::ReadPrivate => marks.read(ReceiptKind::ReadPrivate, thread, request.event_id).await?,
        ReceiptType::FullyRead if *thread == WireThread::Unthreaded => {
            marks.fully_read(&request.event_id).await?;
        }
        ReceiptType::FullyRead => {
            return Err(ApiError::invalid_param("There is one `m.fully_read` for all threads"));
        }
        _ => {
            return Err(ApiError::invalid_param("Receipts are `m.read`, `m.read.private` or `m.fully_read`"));
        }
    }
    Ok(create_receipt::v3::Response::new())
}

async fn set_markers(
    app: App,
    user: GuestOrUser,
    request: set_read_marker::v3::Request,
) -> Result<set_read_marker::v3::Response, ApiError> {
    let marks = Marks::new(&app, &user, &request.room_id).await?;
    let receipts =
        [(ReceiptKind::Read, request.read_receipt), (ReceiptKind::ReadPrivate, request.private_read_receipt)];
    for (kind, event_id) in receipts {
        if let Some(event_id) = event_id {
            marks.read(kind, &WireThread::Unthreaded, event_id).await?;
        }
    }
    if let Some(event_id) = &request.fully_read {
        marks.fully_read(event_id).await?;
    }
    Ok(set_read_marker::v3::Response::new())
}

fn receipt_thread(thread: &WireThread) -> Result<ReceiptThread, ApiError> {
    match thread {
        WireThread::Unthreaded => Ok(ReceiptThread::Unthreaded),
        WireThread::Main => Ok(ReceiptThread::Main),
        WireThread::Thread(root) => Ok(ReceiptThread::Thread(root.clone())),
        _ => Err(ApiError::invalid_param("`thread_id` is `main` or the event ID of a thread's root")),
    }
}

/// The marks of a user in a room that the user is in.
struct Marks<'a> {
    app: &'a App,
    user: &'a Login,
    room: Arc<RoomInfo>,
}

impl<'a> Marks<'a> {
    async fn new(app: &'a App, user: &'a Login, room_id: &ruma::RoomId) -> Result<Self, ApiError> {
        let room = app.room_reader.joined_room(&user.user_id, room_id).await.map_err(api)?;
        app.presence.active(&user.user_id);
        Ok(Self { app, user, room })
    }

    /// Notes up to where the user has read the room, or a thread of it.
    async fn read(
        &self,
        kind: ReceiptKind,
        thread: &WireThread,
        event_id: OwnedEventId,
    ) -> Result<(), ApiError> {
        let Self { app, user, room } = self;
        let receipt_thread = receipt_thread(thread)?;
        let place = app.room_reader.place_for_receipt(room, &event_id, thread).await.map_err(api)?;
        let receipt = NewReceipt {
            room_nid: room.nid.0,
            room_id: room.room_id.clone(),
            user_id: user.user_id.clone(),
            kind,
            thread: receipt_thread,
            event_id,
            event_pos: Some(place.pos.0),
            ts: app.clock.now(),
        };
        app.receipts.record(receipt).await.map_err(api)?;
        Ok(())
    }

    async fn fully_read(&self, event_id: &EventId) -> Result<(), ApiError> {
        let Self { app, user, room } = self;
        let place = app.room_reader.event_place(room, event_id).await.map_err(api)?;
        let place_of =
            async |former: &EventId| Some(app.room_reader.event_place(room, former).await.ok()?.pos);
        let (user_id, room_id) = (&user.user_id, &room.room_id);
        app.account_data
            .move_read_marker(user_id, room_id, event_id, place.pos, place_of)
            .await
            .map_err(api)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{TestApp, check};

    struct Talk {
        app: TestApp,
        alice: String,
        bob: String,
        room: String,
    }

    impl Talk {
        async fn new() -> Self {
            let app = TestApp::new().await;
            let (alice, bob) = (app.user("alice").await, app.user("bob").await);
            let room = app.room(&alice, json!({ "preset": "public_chat" })).await;
            check(app.post(&format!("/_matrix/client/v3/join/{room}"), Some(&bob), json!({})).await, 200, "");
            Self { app, alice, bob, room }
        }

        async fn say(&self, txn_id: &str, thread: Option<&str>) -> String {
            let mut content = json!({ "msgtype": "m.text", "body": txn_id });
            if let Some(root) = thread {
                content["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": root });
            }
            let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{txn_id}", self.room);
            let (_, body) = self.app.put(&path, Some(&self.alice), content).await;
            body["event_id"].as_str().unwrap().to_owned()
        }

        async fn read(&self, kind: &str, event_id: &str, body: Value) -> (u16, Value) {
            let path = format!("/_matrix/client/v3/rooms/{}/receipt/{kind}/{event_id}", self.room);
            self.app.post(&path, Some(&self.bob), body).await
        }

        /// What a sync from the start says of the room.
        async fn room(&self, user: &str) -> Value {
            let filter =
                "%7B%22room%22%3A%7B%22timeline%22%3A%7B%22unread_thread_notifications%22%3Atrue%7D%7D%7D";
            let path = format!("/_matrix/client/v3/sync?timeout=0&filter={filter}");
            let (_, body) = self.app.get(&path, Some(user)).await;
            body["rooms"]["join"][&self.room].clone()
        }

        async fn receipts(&self, user: &str) -> Value {
            let room = self.room(user).await;
            let events = room["ephemeral"]["events"].as_array().cloned().unwrap_or_default();
            let receipt = events.into_iter().find(|event| event["type"] == "m.receipt");
            receipt.map(|event| event["content"].clone()).unwrap_or_default()
        }
    }

    #[tokio::test]
    async fn a_receipt_takes_away_what_is_unread_and_a_private_one_is_seen_by_nobody_else() {
        let talk = Talk::new().await;
        let (first, second) = (talk.say("1", None).await, talk.say("2", None).await);
        assert_eq!(talk.room(&talk.bob).await["unread_notifications"]["notification_count"], 2);

        check(talk.read("m.read", &first, json!({})).await, 200, "");
        assert_eq!(talk.room(&talk.bob).await["unread_notifications"]["notification_count"], 1);
        check(talk.read("m.read.private", &second, json!({})).await, 200, "");
        assert_eq!(talk.room(&talk.bob).await["unread_notifications"]["notification_count"], 0);

        let bobs = |kind: &str, content: &Value, event_id: &str| {
            content[event_id][kind]["@bob:example.org"]["ts"].is_u64()
        };
        let (seen, own) = (talk.receipts(&talk.alice).await, talk.receipts(&talk.bob).await);
        assert!(bobs("m.read", &seen, &first) && bobs("m.read", &own, &first), "{seen} {own}");
        assert!(bobs("m.read.private", &own, &second) && seen[&second].is_null(), "{seen} {own}");
    }

    #[tokio::test]
    async fn threads_are_read_apart() {
        let talk = Talk::new().await;
        let root = talk.say("root", None).await;
        let reply = talk.say("reply", Some(&root)).await;
        let counts = async || {
            let room = talk.room(&talk.bob).await;
            let threads = &room["unread_thread_notifications"];
            let count = |section: &Value| section["notification_count"].as_u64().unwrap_or_default();
            (count(&room["unread_notifications"]), count(&threads[&root]))
        };
        assert_eq!(counts().await, (1, 1));
        check(talk.read("m.read", &root, json!({ "thread_id": "main" })).await, 200, "");
        assert_eq!(counts().await, (0, 1));
        check(talk.read("m.read", &reply, json!({ "thread_id": root })).await, 200, "");
        assert_eq!(counts().await, (0, 0));
        let reaction =
            json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": reply, "key": "+" } });
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.reaction/reaction", talk.room);
        let (_, body) = talk.app.put(&path, Some(&talk.alice), reaction).await;
        let reaction = body["event_id"].as_str().unwrap();
        check(talk.read("m.read", reaction, json!({ "thread_id": root })).await, 200, "");

        check(talk.read("m.read", &reply, json!({ "thread_id": "main" })).await, 400, "M_INVALID_PARAM");
        check(talk.read("m.read", &root, json!({ "thread_id": reply })).await, 400, "M_INVALID_PARAM");
        check(talk.read("m.read", &root, json!({ "thread_id": "" })).await, 400, "M_INVALID_PARAM");
        check(talk.read("m.fully_read", &root, json!({ "thread_id": "main" })).await, 400, "M_INVALID_PARAM");
    }

    #[tokio::test]
    async fn the_read_marker_goes_forward() {
        let talk = Talk::new().await;
        let (first, second) = (talk.say("1", None).await, talk.say("2", None).await);
        let marker = async || {
            let room = talk.room(&talk.bob).await;
            let events = room["account_data"]["events"].as_array().cloned().unwrap_or_default();
            let marker = events.into_iter().find(|event| event["type"] == "m.fully_read");
            marker.map(|event| event["content"]["event_id"].clone()).unwrap_or_default()
        };
        let path = format!("/_matrix/client/v3/rooms/{}/read_markers", talk.room);
        let set = async |body: Value| talk.app.post(&path, Some(&talk.bob), body).await;
        check(set(json!({ "m.fully_read": first, "m.read": first })).await, 200, "");
        assert_eq!(marker().await, json!(first));
        check(talk.read("m.fully_read", &second, json!({})).await, 200, "");
        check(set(json!({ "m.fully_read": first, "m.read.private": second })).await, 200, "");
        assert_eq!(marker().await, json!(second));
        assert_eq!(talk.room(&talk.bob).await["unread_notifications"]["notification_count"], 0);
        check(set(json!({})).await, 200, "");
    }

    #[tokio::test]
    async fn receipts_are_for_events_of_rooms_that_one_is_in() {
        let talk = Talk::new().await;
        let event_id = talk.say("1", None).await;
        check(talk.read("m.read", "$unknown", json!({})).await, 404, "M_NOT_FOUND");
        check(talk.read("m.seen", &event_id, json!({})).await, 400, "M_INVALID_PARAM");
        let leave = format!("/_matrix/client/v3/rooms/{}/leave", talk.room);
        check(talk.app.post(&leave, Some(&talk.bob), json!({})).await, 200, "");
        check(talk.read("m.read", &event_id, json!({})).await, 403, "M_FORBIDDEN");
    }
}
