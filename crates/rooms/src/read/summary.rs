//! What people learn of a room before they join it
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias)).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use myelin_events::{JoinRules, Pdu, visibility::history_visibility};
use myelin_storage::{Client, room_reads};
use ruma::{
    OwnedRoomId, RoomId, UInt, UserId,
    events::room::{
        guest_access::GuestAccess, history_visibility::HistoryVisibility, member::MembershipState,
    },
    room::{JoinRuleKind, JoinRuleSummary, RestrictedSummary, RoomSummary},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{ReadError, Result, RoomInfo, RoomReader};
use crate::stream::stored;

/// The types of state that a summary is made of.
const TYPES: [&str; 9] = [
    "m.room.create",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.encryption",
];

/// A room's summary for one user.
#[derive(Clone, Debug)]
pub struct SummaryFor {
    /// The summary.
    pub summary: Arc<RoomSummary>,
    /// What the user is in the room; `None` if nobody is logged in.
    pub membership: Option<MembershipState>,
}

impl RoomReader {
    /// The summary of a room that the user, or anybody, may know of.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] if there is no such room, or it is not for the user to know of.
    pub async fn summary(&self, user_id: Option<&UserId>, room_id: &RoomId) -> Result<SummaryFor> {
        let missing = ReadError::NotFound("Room not found");
        let client = self.client().await?;
        let Some(room) = self.room_with(&client, room_id).await? else { return Err(missing) };
        let rooms = [room];
        let summaries = self.summaries(&client, &rooms).await?;
        let memberships = self.memberships(&client, user_id, &rooms, &summaries).await?;
        let Some(summary) = summaries.get(&rooms[0].nid.0) else { return Err(missing) };
        if !memberships.may_know(summary) {
            return Err(missing);
        }
        let membership = user_id.map(|_| memberships.of(room_id));
        Ok(SummaryFor { summary: summary.clone(), membership })
    }

    /// Summaries of rooms, by number: two queries for those that are not in memory.
    pub(super) async fn summaries(
        &self,
        client: &Client,
        rooms: &[Arc<RoomInfo>],
    ) -> Result<HashMap<i64, Arc<RoomSummary>>> {
        let mut summaries = HashMap::with_capacity(rooms.len());
        let mut missing = Vec::new();
        for room in rooms {
            match self.0.caches.summary(room.nid) {
                Some(summary) => _ = summaries.insert(room.nid.0, summary),
                None => missing.push((room, self.0.caches.begin(room.nid))),
            }
        }
        if missing.is_empty() {
            return Ok(summaries);
        }
        let nids: Vec<i64> = missing.iter().map(|(room, _)| room.nid.0).collect();
        let types = self.0.strings.intern_all(client, &TYPES).await?;
        let (state, counts) = tokio::try_join!(
            room_reads::list_summary_state(client, &nids, &types),
            room_reads::list_joined_counts(client, &nids),
        )?;
        let mut by_room: HashMap<i64, Vec<_>> = HashMap::with_capacity(missing.len());
        for row in state {
            by_room.entry(row.room_nid).or_default().push(row.event);
        }
        let counts: HashMap<i64, i64> = counts.iter().map(|row| (row.room_nid, row.joined)).collect();
        for (room, reading) in missing {
            let rows = by_room.remove(&room.nid.0).unwrap_or_default();
            let mut state = Vec::with_capacity(rows.len());
            for row in rows {
                state.push(stored(&room.room_id, room.rules, &row)?);
            }
            let joined = counts.get(&room.nid.0).copied().unwrap_or_default();
            let summary = Arc::new(summary(room, &state, joined));
            self.0.caches.keep_summary(room.nid, reading, summary.clone());
            summaries.insert(room.nid.0, summary);
        }
        Ok(summaries)
    }

    /// What a user is in some rooms, and in those whose members may join them: two queries at most.
    pub(super) async fn memberships(
        &self,
        client: &Client,
        user_id: Option<&UserId>,
        rooms: &[Arc<RoomInfo>],
        summaries: &HashMap<i64, Arc<RoomSummary>>,
    ) -> Result<Memberships> {
        let Some(user_id) = user_id else { return Ok(Memberships::default()) };
        let Some(user_sid) = self.0.strings.find(client, user_id.as_str()).await? else {
            return Ok(Memberships::default());
        };
        let allowed: HashSet<&RoomId> =
            summaries.values().flat_map(|summary| allowed_rooms(summary)).map(|id| &**id).collect();
        let allowed: Vec<&RoomId> = allowed.into_iter().collect();
        let mut all = self.rooms_with(client, &allowed).await?;
        all.extend(rooms.iter().map(|room| (room.room_id.clone(), room.clone())));
        let nids: Vec<i64> = all.values().map(|room| room.nid.0).collect();
        let rows = room_reads::list_memberships(client, user_sid, &nids).await?;
        let by_nid: HashMap<i64, i16> = rows.iter().map(|row| (row.room_nid, row.membership)).collect();
        let is_in =
            |room: &Arc<RoomInfo>| by_nid.get(&room.nid.0).map(|number| membership_of_number(*number));
        let by_room = all.values().filter_map(|room| Some((room.room_id.clone(), is_in(room)?))).collect();
        Ok(Memberships(by_room))
    }
}

/// What a user is in some rooms.
#[derive(Debug, Default)]
pub(super) struct Memberships(HashMap<OwnedRoomId, MembershipState>);

impl Memberships {
    pub fn of(&self, room_id: &RoomId) -> MembershipState {
        self.0.get(room_id).cloned().unwrap_or(MembershipState::Leave)
    }

    /// Whether the user may know of a room: as a member, or because they could join or knock
    /// (<https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy>).
    pub fn may_know(&self, summary: &RoomSummary) -> bool {
        let is_open = matches!(
            summary.join_rule,
            JoinRuleSummary::Public | JoinRuleSummary::Knock | JoinRuleSummary::KnockRestricted(_)
        );
        let is_expected = || {
            matches!(self.of(&summary.room_id), MembershipState::Join | MembershipState::Invite)
                || allowed_rooms(summary).iter().any(|room_id| self.of(room_id) == MembershipState::Join)
        };
        is_open || summary.world_readable || is_expected()
    }
}

/// What `memberships.membership` stands for.
fn membership_of_number(number: i16) -> MembershipState {
    match number {
        1 => MembershipState::Join,
        2 => MembershipState::Invite,
        3 => MembershipState::Knock,
        4 => MembershipState::Ban,
        _ => MembershipState::Leave,
    }
}

fn allowed_rooms(summary: &RoomSummary) -> &[OwnedRoomId] {
    match &summary.join_rule {
        JoinRuleSummary::Restricted(rule) | JoinRuleSummary::KnockRestricted(rule) => &rule.allowed_room_ids,
        _ => &[],
    }
}

/// What the state of a room comes down to.
fn summary(room: &RoomInfo, state: &[Arc<Pdu>], joined: i64) -> RoomSummary {
    let find = |event_type: &str| {
        let is_it =
            |pdu: &&Arc<Pdu>| pdu.state_key() == Some("") && pdu.event_type().to_string() == event_type;
        state.iter().find(is_it).map(|pdu| &**pdu)
    };
    let visibility = history_visibility(find("m.room.history_visibility"));
    let guests: Option<GuestAccess> = find("m.room.guest_access").and_then(|pdu| field(pdu, "guest_access"));
    let mut summary = RoomSummary::new(
        room.room_id.clone(),
        join_rule(room, find("m.room.join_rules")),
        guests == Some(GuestAccess::CanJoin),
        UInt::try_from(joined).unwrap_or_default(),
        visibility == HistoryVisibility::WorldReadable,
    );
    let text = |event_type: &str, name: &str| {
        let text: Option<String> = find(event_type).and_then(|pdu| field(pdu, name));
        text.filter(|text| !text.is_empty())
    };
    summary.name = text("m.room.name", "name");
    summary.topic = text("m.room.topic", "topic");
    summary.avatar_url = text("m.room.avatar", "url").map(Into::into);
    summary.canonical_alias = text("m.room.canonical_alias", "alias").and_then(|alias| alias.try_into().ok());
    summary.room_type = text("m.room.create", "type").map(Into::into);
    summary.encryption = text("m.room.encryption", "algorithm").map(Into::into);
    summary.room_version = Some(room.version.clone());
    summary
}

fn join_rule(room: &RoomInfo, event: Option<&Pdu>) -> JoinRuleSummary {
    let rules = JoinRules::of(event);
    let allowed = || RestrictedSummary::new(rules.allow.clone());
    match &rules.rule {
        JoinRuleKind::Public => JoinRuleSummary::Public,
        JoinRuleKind::Knock if rules.allows_knocking(room.rules) => JoinRuleSummary::Knock,
        JoinRuleKind::Restricted if rules.is_restricted(room.rules) => JoinRuleSummary::Restricted(allowed()),
        JoinRuleKind::KnockRestricted if rules.is_restricted(room.rules) => {
            JoinRuleSummary::KnockRestricted(allowed())
        }
        JoinRuleKind::Private => JoinRuleSummary::Private,
        // What is not understood lets nobody in.
        _ => JoinRuleSummary::Invite,
    }
}

/// A field of a content that nobody validated.
pub(super) fn field<T: DeserializeOwned>(pdu: &Pdu, name: &str) -> Option<T> {
    #[derive(Deserialize)]
    struct Fields<'a>(#[serde(borrow)] HashMap<std::borrow::Cow<'a, str>, &'a RawValue>);
    let fields: Fields<'_> = pdu.content_as().ok()?;
    serde_json::from_str(fields.0.get(name)?.get()).ok()
}
