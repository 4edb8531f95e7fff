//! Pages of a room's timeline
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages)).

use std::collections::HashSet;

use myelin_storage::{
    Client,
    room_reads::{self, EventFilter, Page},
};
use ruma::{RoomId, api::Direction};

use super::{
    JsonArray, MAX_EVENTS, PaginationToken, ReadFilter, Result, RoomReader, Viewer, render::Shown, view::View,
};

/// How often more is read where a user may not see, or does not want, what was read.
const ROUNDS: usize = 3;
/// Events that one round looks at in search of those that a filter lets pass.
const SCANNED: i64 = 2000;

/// A page that a client asks for.
#[derive(Clone, Debug)]
pub struct MessagesRequest {
    /// Where to begin; `None`: at the end that the direction leads away from.
    pub from: Option<PaginationToken>,
    /// Where to stop at the latest.
    pub to: Option<PaginationToken>,
    /// Where to go.
    pub direction: Direction,
    /// Events at most.
    pub limit: usize,
    /// Which events.
    pub filter: ReadFilter,
}

/// A page of a timeline.
#[derive(Clone, Debug)]
pub struct Messages {
    /// Where it begins.
    pub start: PaginationToken,
    /// Where it ends, if there is more.
    pub end: Option<PaginationToken>,
    /// The events, in the direction that was asked for.
    pub chunk: JsonArray,
    /// With lazy loading, the members who sent them.
    pub state: JsonArray,
}

/// What to look for, and where.
pub(super) struct Search<'a> {
    pub direction: Direction,
    pub after: i64,
    pub upto: i64,
    pub limit: usize,
    pub filter: &'a ReadFilter,
}

/// What was found.
pub(super) struct Found {
    /// The events, in the direction of the search.
    pub shown: Vec<Shown>,
    /// Where the search ended, if there is more.
    pub end: Option<PaginationToken>,
}

impl RoomReader {
    /// A page of a room's timeline, as far as the user may see it.
    ///
    /// # Errors
    /// [`ReadError::Forbidden`](super::ReadError::Forbidden) if the user may see nothing of the room.
    pub async fn messages(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        request: &MessagesRequest,
    ) -> Result<Messages> {
        let client = self.client().await?;
        let mut view = self.view(&client, viewer, room_id).await?;
        view.require_history()?;
        let is_backward = request.direction == Direction::Backward;
        let (mut after, mut upto) = view.visible_range().unwrap_or((0, 0));
        let (from, to) = (request.from.map(|token| token.0), request.to.map(|token| token.0));
        let (lower, upper) = if is_backward { (to, from) } else { (from, to) };
        after = after.max(lower.unwrap_or(i64::MIN));
        upto = upto.min(upper.unwrap_or(i64::MAX));
        let limit = request.limit.clamp(1, MAX_EVENTS);
        let search = Search { direction: request.direction, after, upto, limit, filter: &request.filter };
        let found = self.search(&client, viewer, &mut view, &search).await?;
        let first = found.shown.first().map(Shown::pos);
        let start = match (request.from, first) {
            (Some(from), _) => from,
            (None, Some(first)) if is_backward => PaginationToken(first),
            (None, Some(first)) => PaginationToken::before(first),
            (None, None) => PaginationToken(if is_backward { upto } else { after }),
        };
        let state = self.members_of(&client, &view, &found.shown, &request.filter).await?;
        let chunk = self.render(&client, viewer, view, &found.shown).await?;
        Ok(Messages { start, end: found.end, chunk, state })
    }

    /// Looks for events that the user may see and wants.
    pub(super) async fn search(
        &self,
        client: &Client,
        viewer: &Viewer,
        view: &mut View,
        search: &Search<'_>,
    ) -> Result<Found> {
        let mut shown: Vec<Shown> = Vec::new();
        let nothing = Found { shown: Vec::new(), end: None };
        let Some(filter) = search.filter.for_viewer(viewer) else { return Ok(nothing) };
        let is_backward = search.direction == Direction::Backward;
        let (mut after, mut upto) = (search.after, search.upto);
        for _ in 0..ROUNDS {
            let missing = i64::try_from(search.limit - shown.len()).unwrap_or(i64::MAX - 1);
            let room_nid = view.room.nid.0;
            // One more tells whether there are more.
            let page = Page { room_nid, after, upto, is_backward, limit: missing + 1 };
            let (rows, mut reached) = read(client, &page, &filter).await?;
            let is_full = i64::try_from(rows.len()).is_ok_and(|count| count > missing);
            if is_full {
                reached = rows.last().and_then(|row| row.event.pos);
            }
            for event in self.show(client, viewer, view, rows).await? {
                if shown.len() == search.limit {
                    break;
                }
                shown.push(event);
            }
            if shown.len() == search.limit {
                let last = shown.last().map_or(after, Shown::pos);
                let end = if is_backward { PaginationToken::before(last) } else { PaginationToken(last) };
                return Ok(Found { shown, end: reached.map(|_| end) });
            }
            let Some(reached) = reached else { return Ok(Found { shown, end: None }) };
            match is_backward {
                true => upto = reached.saturating_sub(1),
                false => after = reached,
            }
        }
        let end = PaginationToken(if is_backward { upto } else { after });
        Ok(Found { shown, end: Some(end) })
    }

    /// The member events of those who sent some events, as they were at the latest of them, if the client wants just
    /// those.
    async fn members_of(
        &self,
        client: &Client,
        view: &View,
        shown: &[Shown],
        filter: &ReadFilter,
    ) -> Result<JsonArray> {
        let Some(latest) = shown.iter().map(Shown::pos).max().filter(|_| filter.lazy_load_members) else {
            return Ok(JsonArray::default());
        };
        let senders: HashSet<&str> = shown.iter().map(|shown| shown.pdu.sender().as_str()).collect();
        let senders: Vec<&str> = senders.into_iter().collect();
        let member = self.0.strings.intern(client, "m.room.member").await?;
        let rows = room_reads::list_members_at(client, view.room.nid.0, latest, member, &senders).await?;
        self.write_state_rows(&view.room, &rows, |_| true)
    }
}

/// A page, and where it ends if it may not be all there is.
async fn read(
    client: &Client,
    page: &Page,
    filter: &EventFilter,
) -> Result<(Vec<room_reads::TimelineEvent>, Option<i64>)> {
    // The user's own ignored users are few and found without the database's help.
    let is_open = EventFilter { ignored: filter.ignored.clone(), ..EventFilter::default() } == *filter;
    if is_open {
        return Ok((room_reads::list_timeline(client, page).await?, None));
    }
    let rows = room_reads::list_filtered_timeline(client, page, SCANNED, filter).await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|count| count == page.limit);
    let reached = if is_full { None } else { room_reads::get_scan_end(client, page, SCANNED).await? };
    Ok((rows, reached))
}
