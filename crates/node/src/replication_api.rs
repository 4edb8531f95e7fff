//! What the processes of one server ask each other, over their `replication` listeners: to serve a client's request, and how
//! they are.

use std::sync::Arc;

use http::{Method, StatusCode};
use myelin_http::{ApiError, RawRequest, RawResponse, Router, Routes};
use myelin_rooms::{RoomError, Rooms};
use serde::Serialize;

use crate::{
    peers::{CLIENT_ADDRESS, ELSEWHERE, FORWARD, LOST, Passed, Peers, SECRET, THROUGH},
    requests::UpdateProfile,
    status::Reporter,
};

/// What the handlers are given.
#[derive(Clone)]
struct Serving {
    peers: Peers,
    /// The routes for clients, with nothing around them: what is passed on is served here or not at all.
    clients: Option<Arc<Router>>,
    reporter: Arc<Reporter>,
}

/// The routes of a `replication` listener.
pub(crate) fn routes(peers: Peers, clients: Option<Router>, reporter: Arc<Reporter>) -> Router {
    let serving = Serving { peers, clients: clients.map(Arc::new), reporter };
    let mut routes = Routes::new(serving);
    for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE] {
        routes.add_raw(method, "/_myelin/forward/{*path}", forward).any_body();
    }
    routes.add_raw(Method::POST, "/_myelin/replication/update_profile", update_profile);
    routes.add_raw(Method::GET, "/_myelin/status", status).quiet();
    routes.build()
}

impl Serving {
    fn check(&self, request: &RawRequest) -> Result<(), ApiError> {
        let headers = request.head.headers();
        let bearer =
            request.head.header(http::header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let secret = headers.get(SECRET).map(http::HeaderValue::as_bytes).or(bearer.map(str::as_bytes));
        match self.peers.is_ours(secret) {
            true => Ok(()),
            false => Err(ApiError::forbidden("worker_replication_secret is another one here")),
        }
    }
}

impl Serving {
    /// What a process answers that does not have the part of a duty which a request is about: who has it, as far as it knows.
    fn elsewhere(&self, shard: Option<u8>) -> RawResponse {
        let assignment = self.reporter.rooms.as_ref().and_then(Rooms::writers);
        let holder = shard.zip(assignment).and_then(|(shard, assignment)| {
            let name = assignment.borrow().holder(shard.into()).map(|holder| holder.name.clone())?;
            http::HeaderValue::from_str(&name).ok()
        });
        let holder = holder.unwrap_or_else(|| http::HeaderValue::from_static(""));
        RawResponse::empty(StatusCode::MISDIRECTED_REQUEST).with_header(ELSEWHERE, holder)
    }

    /// Passes on what is for another process, which its sender does not reach. Once: it is served there or not at all.
    async fn pass_farther(&self, request: &RawRequest, name: &str) -> RawResponse {
        let assignment = self.reporter.rooms.as_ref().and_then(Rooms::writers);
        let announced = assignment.and_then(|assignment| {
            let assignment = assignment.borrow();
            assignment.living().iter().find(|process| process.name == name)?.address.clone()
        });
        let nobody = http::HeaderValue::from_static("");
        let Some(address) = self.peers.address(name, announced.as_deref()) else {
            return self.elsewhere(None);
        };
        match self.peers.pass_farther(&address, &request.head).await {
            Passed::Answered(answered) => answered.into_response(),
            Passed::Elsewhere(holder) => {
                let holder = holder.and_then(|holder| http::HeaderValue::from_str(&holder).ok());
                let holder = holder.unwrap_or(nobody);
                RawResponse::empty(StatusCode::MISDIRECTED_REQUEST).with_header(ELSEWHERE, holder)
            }
            Passed::NotReached(_) => self.elsewhere(None),
            Passed::Lost(_) => RawResponse::empty(StatusCode::BAD_GATEWAY).with_header(LOST, nobody),
        }
    }
}

async fn forward(serving: Serving, request: RawRequest) -> Result<RawResponse, ApiError> {
    serving.check(&request)?;
    if let Some(name) = request.head.header(THROUGH) {
        return Ok(serving.pass_farther(&request, name).await);
    }
    let clients = serving.clients.as_ref().ok_or_else(ApiError::unrecognized)?;
    let head = &request.head;
    let path = head.uri().path_and_query().and_then(|path| path.as_str().strip_prefix(FORWARD));
    let path = path.ok_or_else(ApiError::unrecognized)?;
    let mut passed = http::Request::builder().method(head.method()).uri(path);
    for (name, value) in
        head.headers().iter().filter(|(name, _)| **name != SECRET && **name != CLIENT_ADDRESS)
    {
        passed = passed.header(name, value);
    }
    let passed = passed.body(head.body().clone()).map_err(ApiError::internal)?;
    serving.reporter.horizon.reach().await;
    let client = head.header(CLIENT_ADDRESS).and_then(|address| address.parse().ok());
    match clients.try_call(passed, client, head.draining().clone()).await {
        Err(error) => match error.is_elsewhere() {
            Some(shard) => Ok(serving.elsewhere(shard)),
            None => Err(error),
        },
        Ok(answer) => Ok(answer),
    }
}

async fn update_profile(serving: Serving, request: RawRequest) -> Result<RawResponse, ApiError> {
    serving.check(&request)?;
    let rooms = serving.reporter.rooms.as_ref().ok_or_else(ApiError::unrecognized)?;
    let UpdateProfile { room_id, user_id, profile } = request.json()?;
    match rooms.update_profile_in(&room_id, &user_id, &profile).await {
        Ok(()) => json(&()),
        Err(RoomError::NotHere(shard)) => Ok(serving.elsewhere(shard)),
        Err(error) => Err(ApiError::internal(error)),
    }
}

async fn status(serving: Serving, request: RawRequest) -> Result<RawResponse, ApiError> {
    serving.check(&request)?;
    let status = serving.reporter.report(request.head.draining().has_started()).await;
    json(&status)
}

fn json(value: &impl Serialize) -> Result<RawResponse, ApiError> {
    Ok(RawResponse::json(serde_json::to_vec(value).map_err(ApiError::internal)?))
}
