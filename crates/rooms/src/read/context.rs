//! What happened around an event
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#event-context)).

use std::collections::{HashMap, HashSet};

use myelin_storage::{Client, room_reads};
use ruma::{EventId, RoomId, api::Direction};

use super::{
    JsonArray, MAX_EVENTS, PaginationToken, ReadFilter, Result, RoomReader, Viewer, messages::Search,
    render::Shown, view::View,
};

/// What a client wants to know.
#[derive(Clone, Debug)]
pub struct ContextRequest {
    /// Events at most, beside the event itself.
    pub limit: usize,
    /// Which events.
    pub filter: ReadFilter,
}

/// An event and what happened around it.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where older events end.
    pub start: PaginationToken,
    /// Where newer events begin.
    pub end: PaginationToken,
    /// The event, as JSON.
    pub event: String,
    /// What happened before, latest first.
    pub events_before: JsonArray,
    /// What happened afterwards.
    pub events_after: JsonArray,
    /// The state after the last event.
    pub state: JsonArray,
}

impl RoomReader {
    /// An event with what happened around it.
    ///
    /// # Errors
    /// [`ReadError::NotFound`](super::ReadError::NotFound) if the user may not see the event, or it isn't there.
    pub async fn context(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        event_id: &EventId,
        request: &ContextRequest,
    ) -> Result<Context> {
        let client = self.client().await?;
        let (event, mut view) = self.find_event(&client, viewer, room_id, event_id).await?;
        let limit = request.limit.min(MAX_EVENTS);
        let (earliest, latest) = view.visible_range().unwrap_or((event.pos(), event.pos()));
        let filter = &request.filter;
        let before = Search {
            direction: Direction::Backward,
            after: earliest,
            upto: event.pos().saturating_sub(1),
            limit: limit / 2,
            filter,
        };
        let after = Search {
            direction: Direction::Forward,
            after: event.pos(),
            upto: latest,
            limit: limit - limit / 2,
            filter,
        };
        let before = self.search_some(&client, viewer, &mut view, &before).await?;
        let after = self.search_some(&client, viewer, &mut view, &after).await?;

        let start = PaginationToken::before(before.last().map_or(event.pos(), Shown::pos));
        let end = PaginationToken(after.last().map_or(event.pos(), Shown::pos));
        let all: Vec<&Shown> = before.iter().chain([&event]).chain(&after).collect();
        let state = self.state_around(&client, &view, end.0, &all, filter).await?;
        let mut views = HashMap::from([(view.room.nid.0, view)]);
        let details = self.details(&client, viewer, &mut views, &all).await?;
        let mut json = String::new();
        self.write_event(&mut json, viewer, &event, &details);
        Ok(Context {
            start,
            end,
            event: json,
            events_before: self.write_events(viewer, &before, &details),
            events_after: self.write_events(viewer, &after, &details),
            state,
        })
    }

    async fn search_some(
        &self,
        client: &Client,
        viewer: &Viewer,
        view: &mut View,
        search: &Search<'_>,
    ) -> Result<Vec<Shown>> {
        match search.limit {
            0 => Ok(Vec::new()),
            _ => Ok(self.search(client, viewer, view, search).await?.shown),
        }
    }

    /// The state after the place `at`, with lazy loading only the members who sent some events.
    async fn state_around(
        &self,
        client: &Client,
        view: &View,
        at: i64,
        shown: &[&Shown],
        filter: &ReadFilter,
    ) -> Result<JsonArray> {
        if !filter.lazy_load_members {
            let state = self.state_after(client, &view.room, at).await?;
            return Ok(self.write_state(&state, |entry| filter.wants_state(&entry.pdu)));
        }
        let senders: HashSet<&str> = shown.iter().map(|shown| shown.pdu.sender().as_str()).collect();
        let senders: Vec<&str> = senders.into_iter().collect();
        let member = self.0.strings.intern(client, "m.room.member").await?;
        let rows = room_reads::list_state_at_lazily(client, view.room.nid.0, at, member, &senders).await?;
        self.write_state_rows(&view.room, &rows, |pdu| filter.wants_state(pdu))
    }
}
