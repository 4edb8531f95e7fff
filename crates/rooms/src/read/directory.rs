//! The published rooms ([spec](https://spec.matrix.org/v1.19/client-server-api/#published-room-directory)).

use std::{cmp::Reverse, str::FromStr, sync::Arc};

use myelin_storage::room_reads;
use ruma::{
    OwnedRoomId,
    directory::{Filter, PublicRoomsChunk},
    room::RoomSummary,
};

use super::{InvalidToken, Result, RoomReader};

/// Rooms of one page at most.
const MAX_ROOMS: usize = 500;

/// A page of the directory that a client asks for.
#[derive(Clone, Debug, Default)]
pub struct PublicRoomsRequest {
    /// Rooms at most; `None`: as the server likes.
    pub limit: Option<usize>,
    /// Where to go on; the empty text is the beginning.
    pub since: Option<String>,
    /// Which rooms.
    pub filter: Filter,
}

/// A page of the directory.
#[derive(Clone, Debug, Default)]
pub struct PublicRooms {
    /// The rooms, those with the most members first.
    pub chunk: Vec<PublicRoomsChunk>,
    /// Where to go on, if there is more.
    pub next_batch: Option<String>,
    /// Where to go back, if there is something before.
    pub prev_batch: Option<String>,
    /// How many rooms there are in all.
    pub total: usize,
}

/// Where a room stands in the directory: it stays there as long as its members are as many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    members: Reverse<u64>,
    room_nid: i64,
}

/// A place from which a page goes on or goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PageToken {
    After(Place),
    Before(Place),
}

impl std::fmt::Display for PageToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (letter, place) = match self {
            Self::After(place) => ('n', place),
            Self::Before(place) => ('p', place),
        };
        write!(f, "{letter}{}_{}", place.members.0, place.room_nid)
    }
}

impl FromStr for PageToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let read = |rest: &str| {
            let (members, room_nid) = rest.split_once('_')?;
            Some(Place { members: Reverse(members.parse().ok()?), room_nid: room_nid.parse().ok()? })
        };
        let after = text.strip_prefix('n').and_then(read).map(Self::After);
        let before = || text.strip_prefix('p').and_then(read).map(Self::Before);
        after.or_else(before).ok_or(InvalidToken)
    }
}

impl RoomReader {
    /// A page of the rooms that are published in the directory. One query, if nothing changed since the last request.
    ///
    /// # Errors
    /// [`ReadError::InvalidParam`](super::ReadError::InvalidParam) for a token that was never given out.
    pub async fn public_rooms(&self, request: &PublicRoomsRequest) -> Result<PublicRooms> {
        let since: Option<PageToken> = match request.since.as_deref() {
            None | Some("") => None,
            Some(token) => Some(token.parse()?),
        };
        let client = self.client().await?;
        let mut rooms = Vec::new();
        for row in room_reads::list_public_rooms(&client).await?.iter().filter(|row| !row.is_blocked) {
            rooms.push(self.remember(row)?);
        }
        let summaries = self.summaries(&client, &rooms).await?;
        drop(client);
        let total = rooms.len();
        let mut found: Vec<(Place, Arc<RoomSummary>)> = summaries
            .into_iter()
            .filter(|(_, summary)| is_wanted(summary, &request.filter))
            .map(|(room_nid, summary)| {
                (Place { members: Reverse(summary.num_joined_members.into()), room_nid }, summary)
            })
            .collect();
        found.sort_unstable_by_key(|(place, _)| *place);
        let limit = request.limit.unwrap_or(MAX_ROOMS).clamp(1, MAX_ROOMS);
        let (first, last) = match since {
            None => (0, limit),
            Some(PageToken::After(place)) => {
                let first = found.partition_point(|(other, _)| *other <= place);
                (first, first.saturating_add(limit))
            }
            Some(PageToken::Before(place)) => {
                let end = found.partition_point(|(other, _)| *other < place);
                (end.saturating_sub(limit), end)
            }
        };
        let page = found.get(first..last.min(found.len())).unwrap_or_default();
        let next = page.last().filter(|_| last < found.len()).map(|(place, _)| PageToken::After(*place));
        let previous = page.first().filter(|_| first > 0).map(|(place, _)| PageToken::Before(*place));
        Ok(PublicRooms {
            chunk: page.iter().map(|(_, summary)| PublicRoomsChunk::from((**summary).clone())).collect(),
            next_batch: next.map(|token| token.to_string()),
            prev_batch: previous.map(|token| token.to_string()),
            total,
        })
    }

    /// Whether a room is published in the directory; `None` if there is no such room.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn is_public(&self, room_id: &OwnedRoomId) -> Result<Option<bool>> {
        let client = self.client().await?;
        let rows = room_reads::list_rooms(&client, &[room_id.as_str()]).await?;
        Ok(rows.first().map(|row| row.is_public))
    }
}

/// Whether a room has what a client looks for.
fn is_wanted(summary: &RoomSummary, filter: &Filter) -> bool {
    let room_type = summary.room_type.as_ref().map(AsRef::as_ref);
    let is_type =
        filter.room_types.is_empty() || filter.room_types.iter().any(|wanted| wanted.as_str() == room_type);
    let Some(term) = filter.generic_search_term.as_deref().filter(|term| !term.is_empty()) else {
        return is_type;
    };
    let term = term.to_lowercase();
    let alias = summary.canonical_alias.as_ref().map(|alias| alias.as_str());
    let texts = [summary.name.as_deref(), summary.topic.as_deref(), alias];
    is_type && texts.into_iter().flatten().any(|text| text.to_lowercase().contains(&term))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nonsense_is_no_token() {
        for text in ["", "n", "x1_2", "n1", "n_", "n1_x", "p-1_2"] {
            assert_eq!(text.parse::<PageToken>(), Err(InvalidToken), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(members: u64, room_nid: i64, is_after: bool) {
            let place = Place { members: Reverse(members), room_nid };
            let token = if is_after { PageToken::After(place) } else { PageToken::Before(place) };
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }
    }
}
