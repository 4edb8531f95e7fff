//! What points at events ([spec](https://spec.matrix.org/v1.19/client-server-api/#relationships-api)), and threads
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#querying-threads-in-a-room)).

use std::sync::Arc;

use myelin_events::redact::redact;
use myelin_storage::{
    StorageError,
    room_reads::{self, RelationPage, ThreadPage},
};
use ruma::{EventId, RoomId, api::Direction};

use super::{JsonArray, MAX_EVENTS, PaginationToken, Result, RoomReader, Viewer, render::Shown};
use crate::stream::stored;

/// How many steps `recurse` goes; the specification asks for three at least.
const MAX_DEPTH: i32 = 3;
/// Relations that one request follows at most.
const MAX_FOLLOWED: i64 = 20_000;

/// What a client wants to know of the events that point at one.
#[derive(Clone, Debug)]
pub struct RelationsRequest {
    /// Only those that point so.
    pub rel_type: Option<String>,
    /// Only those of this type.
    pub event_type: Option<String>,
    /// Where to begin.
    pub from: Option<PaginationToken>,
    /// Where to stop at the latest.
    pub to: Option<PaginationToken>,
    /// Where to go.
    pub direction: Direction,
    /// Events at most.
    pub limit: usize,
    /// Also the events that point at those.
    pub recurse: bool,
}

/// Events that point at one.
#[derive(Clone, Debug)]
pub struct Related {
    /// The events, in the direction that was asked for.
    pub chunk: JsonArray,
    /// Where to go on, if there is more.
    pub next_batch: Option<PaginationToken>,
    /// How many steps were gone, if more than one was asked for.
    pub recursion_depth: Option<u32>,
}

/// What a client wants to know of a room's threads.
#[derive(Clone, Copy, Debug)]
pub struct ThreadsRequest {
    /// Where to begin.
    pub from: Option<PaginationToken>,
    /// Only threads that the user wrote in, or began.
    pub participated: bool,
    /// Threads at most.
    pub limit: usize,
}

/// A page of threads.
#[derive(Clone, Debug)]
pub struct Threads {
    /// What they began with, latest activity first.
    pub chunk: JsonArray,
    /// Where to go on, if there is more.
    pub next_batch: Option<PaginationToken>,
}

impl RoomReader {
    /// A page of the events that point at one, as far as the user may see them.
    ///
    /// # Errors
    /// [`ReadError::NotFound`](super::ReadError::NotFound) if the user may not see that one, or it isn't there.
    pub async fn relations(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        event_id: &EventId,
        request: &RelationsRequest,
    ) -> Result<Related> {
        let client = self.client().await?;
        let (parent, mut view) = self.find_event(&client, viewer, room_id, event_id).await?;
        let is_backward = request.direction == Direction::Backward;
        let (from, to) = (request.from.map(|token| token.0), request.to.map(|token| token.0));
        let (lower, upper) = if is_backward { (to, from) } else { (from, to) };
        let (earliest, latest) = view.visible_range().unwrap_or((0, 0));
        let limit = request.limit.clamp(1, MAX_EVENTS);
        let depth = if request.recurse { MAX_DEPTH } else { 1 };
        let page = RelationPage {
            room_nid: parent.row.room_nid,
            parent_id: event_id.as_str(),
            rel_type: request.rel_type.as_deref(),
            event_type: request.event_type.as_deref(),
            ignored: &viewer.ignored(),
            after: earliest.max(lower.unwrap_or(i64::MIN)),
            upto: latest.min(upper.unwrap_or(i64::MAX)),
            is_backward,
            limit: i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1,
            depth,
            max_followed: MAX_FOLLOWED,
        };
        let mut rows = room_reads::list_relations(&client, &page).await?;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().and_then(|row| row.event.pos).filter(|_| has_more);
        let next_batch = last.map(|pos| match is_backward {
            true => PaginationToken::before(pos),
            false => PaginationToken(pos),
        });
        let shown = self.show(&client, viewer, &mut view, rows).await?;
        let chunk = self.render(&client, viewer, view, &shown).await?;
        let recursion_depth = request.recurse.then_some(depth.unsigned_abs());
        Ok(Related { chunk, next_batch, recursion_depth })
    }

    /// A page of a room's threads.
    ///
    /// # Errors
    /// [`ReadError::Forbidden`](super::ReadError::Forbidden) if the user may see nothing of the room.
    pub async fn threads(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        request: ThreadsRequest,
    ) -> Result<Threads> {
        let client = self.client().await?;
        let mut view = self.view(&client, viewer, room_id).await?;
        view.require_history()?;
        let (_, latest) = view.visible_range().unwrap_or((0, 0));
        let limit = request.limit.clamp(1, MAX_EVENTS);
        let page = ThreadPage {
            room_nid: view.room.nid.0,
            before: request.from.map_or(i64::MAX, |token| token.0.saturating_add(1)),
            upto: latest,
            participant: request.participated.then_some(viewer.user_id.as_str()),
            ignored: &viewer.ignored(),
            limit: i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1,
        };
        let mut rows = room_reads::list_threads(&client, &page).await?;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next_batch = rows.last().filter(|_| has_more).map(|row| PaginationToken::before(row.latest));
        let roots: Vec<_> = rows.into_iter().map(|row| row.root).collect();
        view.learn_forks(&client, &roots).await?;
        let mut shown = Vec::with_capacity(roots.len());
        for row in roots {
            let mut pdu = stored(&view.room.room_id, view.room.rules, &row.event)?;
            if !view.may_see(&row, &pdu) {
                continue;
            }
            // A thread goes on though the user ignores who began it.
            if viewer.ignores(pdu.sender()) {
                let redacted =
                    redact(&pdu).map_err(|error| StorageError::Inconsistent(format!("an event: {error}")))?;
                pdu = Arc::new(redacted);
            }
            let membership = view.membership_at(&row, &pdu);
            shown.push(Shown { row, pdu, membership });
        }
        self.hide_erased(&client, &mut shown).await?;
        let chunk = self.render(&client, viewer, view, &shown).await?;
        Ok(Threads { chunk, next_batch })
    }
}
