//! Making rooms ([spec](https://spec.matrix.org/v1.19/client-server-api/#creation)): all events of a new room are
//! written together, or none.

use myelin_events::{EventTemplate, Rules, rules};
use myelin_storage::rooms;
use myelin_types::random_alphanumeric;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId,
    events::TimelineEventType,
};
use serde_json::{Map, Value};

use crate::{
    EventRow, RoomError, RoomNid, Rooms,
    membership::raw,
    resident::{Draft, Resident},
    shards::shard_of,
    stream::NewRoom,
};

mod plan;
mod power_levels;
mod request;

pub(crate) use plan::{Plan, state};
pub(crate) use request::Makers;
pub use request::RequestId;

/// What a new room is like before anything is said about it
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// For those who are invited.
    PrivateChat,
    /// For those who are invited, all of them with the power of the creator.
    TrustedPrivateChat,
    /// For everybody.
    PublicChat,
}

impl Preset {
    /// The name in requests and in `default_power_level_content_override`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PrivateChat => "private_chat",
            Self::TrustedPrivateChat => "trusted_private_chat",
            Self::PublicChat => "public_chat",
        }
    }
}

/// A state event that a new room begins with.
#[derive(Clone, Debug)]
pub struct InitialState {
    /// The type.
    pub event_type: TimelineEventType,
    /// The state key.
    pub state_key: String,
    /// The content.
    pub content: Map<String, Value>,
}

/// A room that a local user makes.
#[derive(Clone, Debug)]
pub struct CreateRoom {
    /// The user.
    pub creator: OwnedUserId,
    /// The room version, if not the default of this server.
    pub room_version: Option<RoomVersionId>,
    /// The preset; by default that of the visibility.
    pub preset: Option<Preset>,
    /// Published in the room directory.
    pub is_public: bool,
    /// An alias of this server, which becomes the canonical one.
    pub alias: Option<OwnedRoomAliasId>,
    /// The name.
    pub name: Option<String>,
    /// The topic.
    pub topic: Option<String>,
    /// Who is invited.
    pub invite: Vec<OwnedUserId>,
    /// The invites are to a direct chat.
    pub is_direct: bool,
    /// What the `m.room.create` event says beside what we put there.
    pub creation_content: Map<String, Value>,
    /// State to begin with, in place of what the preset says.
    pub initial_state: Vec<InitialState>,
    /// Fields of `m.room.power_levels`, in place of the default ones.
    pub power_level_content_override: Map<String, Value>,
    /// The request: if it has made a room already, that is the room.
    pub request: Option<RequestId>,
}

impl CreateRoom {
    /// A private room with nothing said about it.
    pub fn new(creator: OwnedUserId) -> Self {
        Self {
            creator,
            room_version: None,
            preset: None,
            is_public: false,
            alias: None,
            name: None,
            topic: None,
            invite: Vec::new(),
            is_direct: false,
            creation_content: Map::new(),
            initial_state: Vec::new(),
            power_level_content_override: Map::new(),
            request: None,
        }
    }

    fn preset(&self) -> Preset {
        self.preset.unwrap_or(if self.is_public { Preset::PublicChat } else { Preset::PrivateChat })
    }
}

/// Room ids that are tried at most until one is of a shard that this process writes.
const ATTEMPTS: usize = 10_000;

impl Rooms {
    /// Makes a room and gives its id, once all of its first events are committed.
    ///
    /// # Errors
    /// See [`RoomError`]; there is no room then.
    pub async fn create_room(&self, request: CreateRoom) -> Result<OwnedRoomId, RoomError> {
        let version = request.room_version.as_ref().unwrap_or(&self.0.options.default_room_version).clone();
        let rules = rules(&version).ok_or_else(|| RoomError::UnsupportedVersion(version.clone()))?;
        if let Some(remote) = request.invite.iter().find(|user| user.server_name() != self.server_name()) {
            return Err(RoomError::RemoteUser(remote.clone()));
        }
        let alias = request.alias.clone();
        let room_id = self.new_room_id(rules)?;
        let name = request.request.clone();
        let _alone = match &name {
            Some(name) => Some(self.0.makers.enter(name).await),
            None => None,
        };
        if let Some(made) = self.made_by(name.as_ref()).await? {
            return Ok(made);
        }
        if let Some(alias) = &alias {
            self.check_new_alias(alias).await?;
        }
        let plan = self.plan(request, &version, rules).await?;
        let error = match self.create_planned(&plan, room_id, version, rules).await {
            Err(RoomError::Unavailable(error)) => error,
            outcome => return outcome,
        };
        // Another process may have made the room, or somebody else taken the alias, in the same moment.
        if let Some(made) = self.made_by(name.as_ref()).await? {
            return Ok(made);
        }
        if let Some(alias) = &alias {
            self.check_new_alias(alias).await?;
        }
        Err(RoomError::Unavailable(error))
    }

    async fn check_new_alias(&self, alias: &OwnedRoomAliasId) -> Result<(), RoomError> {
        if alias.server_name() != self.server_name() {
            return Err(RoomError::InvalidParam(format!("{alias} belongs to another server")));
        }
        match self.get_alias(alias).await? {
            Some(_) => Err(RoomError::AliasTaken(alias.clone())),
            None => Ok(()),
        }
    }

    /// The id of a new room, in room versions where that is ours to choose.
    pub(crate) fn new_room_id(&self, rules: Rules) -> Result<Option<OwnedRoomId>, RoomError> {
        if !self.holds_any() {
            self.0.look_for_writers();
            return Err(RoomError::NotHere(None));
        }
        if rules.authorization.room_create_event_id_as_room_id {
            return Ok(None);
        }
        for _ in 0..ATTEMPTS {
            let room_id = format!("!{}:{}", random_alphanumeric(18), self.server_name());
            let room_id =
                RoomId::parse(room_id).map_err(|error| RoomError::InvalidParam(error.to_string()))?;
            if self.holds(shard_of(&room_id)) {
                return Ok(Some(room_id));
            }
        }
        self.0.look_for_writers();
        Err(RoomError::NotHere(None))
    }

    /// Builds the events of a new room one behind the other and writes them together.
    pub(crate) async fn create_planned(
        &self,
        plan: &Plan,
        room_id: Option<OwnedRoomId>,
        version: RoomVersionId,
        rules: Rules,
    ) -> Result<OwnedRoomId, RoomError> {
        let room_nid = RoomNid(rooms::take_room_nid(&self.0.database.get().await?).await?);
        let Some((first, others)) = plan.events.split_first() else { return Err(RoomError::UnknownRoom) };
        let (mut room, first, created_at) = self.begin(plan, first, room_nid, room_id, rules).await?;
        room.apply(&first, self.server_name());
        let mut rows: Vec<EventRow> = vec![first];
        for event in others {
            let row = self.compose_first(&mut room, plan, event, created_at).await?;
            room.apply(&row, self.server_name());
            rows.push(row);
        }
        let Some(first) = rows.first_mut() else { return Err(RoomError::UnknownRoom) };
        let alias = plan.alias.clone().map(|alias| (alias, plan.creator.clone()));
        let request = plan.request.clone();
        first.writing.new_room =
            Some(Box::new(NewRoom { room_version: version, is_public: plan.is_public, alias, request }));
        let room_id = room.room_id.clone();
        let room = self.found(room).await?;
        room.hand_over_applied(rows)?.committed().await?;
        Ok(room_id)
    }

    /// The `m.room.create` event, and the room with nothing else in it. Where that event makes the room id, it is made until
    /// the id is one of a room that this process writes.
    async fn begin(
        &self,
        plan: &Plan,
        event: &InitialState,
        room_nid: RoomNid,
        room_id: Option<OwnedRoomId>,
        rules: Rules,
    ) -> Result<(Resident, EventRow, MilliSecondsSinceUnixEpoch), RoomError> {
        for _ in 0..ATTEMPTS {
            // Where the create event makes the room id, nothing reads this one before.
            let provisional =
                room_id.clone().unwrap_or_else(|| "!new".try_into().expect("a room id of room version 12"));
            let mut room = Resident::new(room_nid, provisional, rules);
            let created_at = self.0.creation_time();
            let row = self.compose_first(&mut room, plan, event, created_at).await?;
            room.room_id = row.pdu.room_id().clone();
            if self.writes(&room.room_id) {
                return Ok((room, row, created_at));
            }
        }
        self.0.look_for_writers();
        Err(RoomError::NotHere(None))
    }

    async fn compose_first(
        &self,
        room: &mut Resident,
        plan: &Plan,
        event: &InitialState,
        created_at: MilliSecondsSinceUnixEpoch,
    ) -> Result<EventRow, RoomError> {
        let template = EventTemplate::state(
            plan.creator.clone(),
            event.event_type.clone(),
            event.state_key.clone(),
            raw(event.content.clone())?,
        );
        let mut draft = Draft::new(&self.0, template).await?;
        draft.timestamp = Some(created_at);
        room.compose(&self.0, draft).await.map_err(|error| match error {
            RoomError::Forbidden(reason) => {
                RoomError::InvalidRoomState(format!("{}: {reason}", event.event_type))
            }
            other => other,
        })
    }
}
