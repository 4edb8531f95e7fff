//! Who may see what of a room ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility)).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use myelin_events::{Pdu, Viewpoint, member::membership_of, visibility::history_visibility};
use myelin_storage::{
    Client,
    events::StoredEvent,
    room_reads::{self, HistoryRow, MembershipRow, TimelineEvent},
    state,
    strings::StringId,
};
use ruma::{
    OwnedUserId, RoomId, UserId,
    events::{
        TimelineEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
};

use super::{NOT_A_MEMBER, Result, RoomInfo, RoomReader};
use crate::stream::stored;

#[cfg(test)]
mod tests;

/// Changes of a user's membership, and of a room's visibility, that are looked at.
const MAX_HISTORY: i64 = 1000;

/// A room with all that decides what of it one user may see.
#[derive(Debug)]
pub(super) struct View {
    pub room: Arc<RoomInfo>,
    user_id: OwnedUserId,
    standing: Arc<Standing>,
    /// The branches of forked history that were asked about, by their delta.
    forks: HashMap<i64, Fork>,
}

/// What a user has been in a room, and how visible that was.
#[derive(Debug)]
pub(super) struct Standing {
    /// Without a row the user never had to do with the room.
    row: Option<MembershipRow>,
    /// From the beginning of time to its end, without gaps.
    spans: Vec<Span>,
    numbers: Numbers,
}

/// A time in which neither the user's membership nor the visibility changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    since: i64,
    until: i64,
    membership: MembershipState,
    visibility: HistoryVisibility,
}

/// What a branch says other than the mainline.
#[derive(Clone, Debug, Default)]
struct Fork {
    membership: Option<MembershipState>,
    visibility: Option<HistoryVisibility>,
}

/// The numbers of the strings that visibility depends on.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    member: StringId,
    visibility: StringId,
    empty: StringId,
    user: Option<StringId>,
}

/// Which state of a room a user may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatePoint {
    Current,
    /// As it was after this place.
    At(i64),
}

impl RoomReader {
    pub(super) async fn view_of(
        &self,
        client: &Client,
        user_id: &UserId,
        room: Arc<RoomInfo>,
    ) -> Result<View> {
        let mut views = self.views_of(client, user_id, std::slice::from_ref(&room)).await?;
        views.remove(&room.nid.0).ok_or(NOT_A_MEMBER)
    }

    /// Views of several rooms, by room: two queries, or none where the user is in all of them and was seen there lately.
    pub(super) async fn views_of(
        &self,
        client: &Client,
        user_id: &UserId,
        rooms: &[Arc<RoomInfo>],
    ) -> Result<HashMap<i64, View>> {
        let mut views = HashMap::with_capacity(rooms.len());
        let mut unknown = Vec::new();
        for room in rooms {
            match self.0.caches.standing(room.nid, user_id) {
                Some(standing) => _ = views.insert(room.nid.0, View::new(room, user_id, standing)),
                None => unknown.push((room, self.0.caches.begin(room.nid))),
            }
        }
        if unknown.is_empty() {
            return Ok(views);
        }
        let nids: Vec<i64> = unknown.iter().map(|(room, _)| room.nid.0).collect();
        let (numbers, rows, history) = self.read_standings(client, user_id, &nids).await?;
        for (room, reading) in unknown {
            let row = rows.iter().find(|row| row.room_nid == room.nid.0).copied();
            let spans = spans(room, &numbers, &history)?;
            let standing = Arc::new(Standing { row, spans, numbers });
            // Of those who left, the room may be forgotten without an event that tells.
            if standing.is_joined() {
                self.0.caches.keep_standing(room.nid, user_id, reading, standing.clone());
            }
            views.insert(room.nid.0, View::new(room, user_id, standing));
        }
        Ok(views)
    }

    /// The room, if the user is seen in it without asking the database.
    pub(super) fn known_to_be_joined(&self, user_id: &UserId, room_id: &RoomId) -> Option<Arc<RoomInfo>> {
        let room = self.0.rooms.get(room_id)?;
        // Of those who are not in the room none is kept.
        self.0.caches.standing(room.nid, user_id).map(|_| room)
    }

    async fn read_standings(
        &self,
        client: &Client,
        user_id: &UserId,
        nids: &[i64],
    ) -> Result<(Numbers, Vec<MembershipRow>, Vec<HistoryRow>)> {
        let strings = &self.0.strings;
        let names = ["m.room.member", "m.room.history_visibility", ""];
        let [member, visibility, empty] = match strings.cached(names) {
            Some(ids) => ids,
            None => {
                let ids = strings.intern_all(client, &names).await?;
                [ids[0], ids[1], ids[2]]
            }
        };
        let user = strings.find(client, user_id.as_str()).await?;
        let (mut room_nids, mut types, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for nid in nids {
            let wanted = [(visibility, Some(empty)), (member, user)];
            for (type_sid, key_sid) in wanted.into_iter().filter_map(|(name, key)| Some((name, key?))) {
                room_nids.push(*nid);
                types.push(type_sid);
                keys.push(key_sid);
            }
        }
        // On one connection these are sent together.
        let (rows, history) = tokio::try_join!(
            room_reads::list_memberships(client, user.unwrap_or_default(), nids),
            room_reads::list_key_history(client, &room_nids, &types, &keys, MAX_HISTORY),
        )?;
        Ok((Numbers { member, visibility, empty, user }, rows, history))
    }
}

/// The spans that intervals of the two keys cut time into.
fn spans(room: &RoomInfo, numbers: &Numbers, history: &[HistoryRow]) -> Result<Vec<Span>> {
    let (mut memberships, mut visibilities) = (Vec::new(), Vec::new());
    for row in history.iter().filter(|row| row.room_nid == room.nid.0) {
        let pdu = stored(&room.room_id, room.rules, &row.event)?;
        let interval = (row.since, row.until.unwrap_or(i64::MAX));
        if row.type_sid == numbers.member {
            memberships.push((interval, membership_of(Some(&pdu))));
        } else {
            visibilities.push((interval, history_visibility(Some(&pdu))));
        }
    }
    let ends = |(since, until): &(i64, i64)| [*since, *until];
    let mut borders: Vec<i64> = memberships.iter().flat_map(|(interval, _)| ends(interval)).collect();
    borders.extend(visibilities.iter().flat_map(|(interval, _)| ends(interval)));
    borders.extend([i64::MIN, i64::MAX]);
    borders.sort_unstable();
    borders.dedup();
    let mut spans: Vec<Span> = Vec::with_capacity(borders.len());
    for pair in borders.windows(2) {
        let [since, until] = [pair[0], pair[1]];
        let holds = |(from, to): &(i64, i64)| *from <= since && since < *to;
        let membership = memberships.iter().find(|(interval, _)| holds(interval));
        let visibility = visibilities.iter().find(|(interval, _)| holds(interval));
        spans.push(Span {
            since,
            until,
            membership: membership.map_or(MembershipState::Leave, |(_, membership)| membership.clone()),
            visibility: visibility.map_or(HistoryVisibility::Shared, |(_, visibility)| visibility.clone()),
        });
    }
    Ok(spans)
}

impl Standing {
    fn now(&self) -> &Span {
        self.spans.last().expect("time has at least one span")
    }

    fn is_joined(&self) -> bool {
        self.now().membership == MembershipState::Join
    }
}

impl View {
    fn new(room: &Arc<RoomInfo>, user_id: &UserId, standing: Arc<Standing>) -> Self {
        Self { room: room.clone(), user_id: user_id.to_owned(), standing, forks: HashMap::new() }
    }

    fn now(&self) -> &Span {
        self.standing.now()
    }

    /// What holds after the place `at`.
    fn span_after(&self, at: i64) -> &Span {
        let index = self.standing.spans.partition_point(|span| span.since <= at);
        self.standing.spans.get(index.saturating_sub(1)).unwrap_or_else(|| self.now())
    }

    /// What the user is in the room now.
    pub fn membership(&self) -> &MembershipState {
        &self.now().membership
    }

    pub fn is_joined(&self) -> bool {
        self.standing.is_joined()
    }

    fn is_forgotten(&self) -> bool {
        self.standing.row.is_some_and(|row| row.forgotten)
    }

    /// The place at which the user was a member last.
    fn departed_at(&self) -> Option<i64> {
        let joined = self.standing.spans.iter().rev().find(|span| span.membership == MembershipState::Join);
        joined.map(|span| span.until)
    }

    /// The place at which the user became a member first.
    pub fn arrived_at(&self) -> Option<i64> {
        let joined = self.standing.spans.iter().find(|span| span.membership == MembershipState::Join);
        joined.map(|span| span.since)
    }

    fn is_world_readable(&self) -> bool {
        self.now().visibility == HistoryVisibility::WorldReadable
    }

    /// Refuses those who have no business with the room's history: who were never in it, unless anybody may look.
    pub fn require_history(&self) -> Result<()> {
        let was_in = self.departed_at().is_some() && !self.is_forgotten();
        let is_expected = *self.membership() == MembershipState::Invite
            && self.now().visibility == HistoryVisibility::Invited;
        match self.is_joined() || was_in || is_expected || self.is_world_readable() {
            true => Ok(()),
            false => Err(NOT_A_MEMBER),
        }
    }

    /// The state that the user may see: the current one of members, and of those who left the one when they did.
    pub fn state_point(&self) -> Result<StatePoint> {
        if self.is_joined() || self.is_world_readable() {
            return Ok(StatePoint::Current);
        }
        let departed_at = self.departed_at().filter(|_| !self.is_forgotten());
        departed_at.map(StatePoint::At).ok_or(NOT_A_MEMBER)
    }

    /// Between which places all that the user may see lies: after the first and up to the second. Not all in between
    /// need be visible.
    pub fn visible_range(&self) -> Option<(i64, i64)> {
        // The events that begin and end a span may count as its own.
        let visible = |span: &&Span| self.viewpoint(span, span.since, None).allows();
        let first = self.standing.spans.iter().find(visible)?;
        let last = self.standing.spans.iter().rev().find(visible)?;
        Some((first.since.saturating_sub(1), last.until))
    }

    fn viewpoint(&self, span: &Span, pos: i64, fork: Option<&Fork>) -> Viewpoint {
        let joined_after = self
            .standing
            .spans
            .iter()
            .rev()
            .any(|later| later.until > pos && later.membership == MembershipState::Join);
        let fork = fork.cloned().unwrap_or_default();
        Viewpoint {
            history_visibility: fork.visibility.unwrap_or_else(|| span.visibility.clone()),
            membership: fork.membership.unwrap_or_else(|| span.membership.clone()),
            joined_after,
        }
    }

    /// Reads what the branches of these events say, where they are of forked history.
    pub async fn learn_forks(&mut self, client: &Client, events: &[TimelineEvent]) -> Result<()> {
        let own = events.iter().filter(|event| event.room_nid == self.room.nid.0);
        let deltas: HashSet<i64> = own.filter_map(|event| event.event.state_delta).collect();
        let unknown: Vec<i64> = deltas.into_iter().filter(|delta| !self.forks.contains_key(delta)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let Numbers { member, visibility, empty, user } = self.standing.numbers;
        let room_nid = self.room.nid.0;
        let deltas = state::list_deltas(client, room_nid, &unknown).await?;
        let is_ours = |row: &state::StateRow| {
            (row.type_sid, Some(row.key_sid)) == (member, user)
                || (row.type_sid, row.key_sid) == (visibility, empty)
        };
        let nids: Vec<i64> =
            deltas.values().flat_map(|delta| delta.iter().filter(is_ours)).map(|row| row.event_nid).collect();
        let events = match nids.is_empty() {
            true => Vec::new(),
            false => myelin_storage::events::list_events_by_nid(client, room_nid, &nids).await?,
        };
        let find = |nid: i64| -> Result<Option<Arc<Pdu>>> {
            let event = events.iter().find(|event: &&StoredEvent| event.event_nid == nid);
            Ok(event.map(|event| stored(&self.room.room_id, self.room.rules, event)).transpose()?)
        };
        let mut forks = HashMap::new();
        for (number, delta) in &deltas {
            let mut fork = Fork::default();
            for row in delta.iter().filter(is_ours) {
                let pdu = find(row.event_nid)?;
                if row.type_sid == member {
                    fork.membership = Some(membership_of(pdu.as_deref()));
                } else {
                    fork.visibility = Some(history_visibility(pdu.as_deref()));
                }
            }
            forks.insert(*number, fork);
        }
        self.forks.extend(forks);
        Ok(())
    }

    /// Whether the user may see an event of the timeline. Forks must have been [learned](Self::learn_forks).
    pub fn may_see(&self, event: &TimelineEvent, pdu: &Pdu) -> bool {
        let Some(pos) = event.event.pos else { return false };
        self.before(event, pos).may_see(&self.user_id, pdu)
    }

    fn before(&self, event: &TimelineEvent, pos: i64) -> Viewpoint {
        let at = event.event.state_base.unwrap_or(pos.saturating_sub(1));
        let fork = event.event.state_delta.and_then(|delta| self.forks.get(&delta));
        self.viewpoint(self.span_after(at), pos, fork)
    }

    /// The user's membership at an event, with what the event itself makes of it
    /// (<https://spec.matrix.org/v1.19/client-server-api/#room-event-format>).
    pub fn membership_at(&self, event: &TimelineEvent, pdu: &Pdu) -> MembershipState {
        let is_own = *pdu.event_type() == TimelineEventType::RoomMember
            && pdu.state_key() == Some(self.user_id.as_str());
        if is_own {
            return membership_of(Some(pdu));
        }
        self.before(event, event.event.pos.unwrap_or(i64::MAX)).membership
    }
}
