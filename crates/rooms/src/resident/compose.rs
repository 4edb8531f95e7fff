//! Building a room's next event.

use std::sync::Arc;

use myelin_events::{
    EventContext, EventReference, EventTemplate, MalformedEvent, Pdu, RelatesTo, auth,
    build::build,
    limits::{MAX_PREV_EVENTS, next_depth},
    redact::redact,
    relations::contains_url,
};
use myelin_push::PushEvent;
use myelin_storage::{events::flags, strings::StringId};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedEventId, OwnedTransactionId,
    events::StateEventType,
};
use smallvec::SmallVec;

use super::{Head, Resident};
use crate::{
    EventNid, EventRow, PushOutcome, Redacted, Relation, RoomError, StateChange,
    rooms::Engine,
    stream::{StateNumbers, Writing},
};

/// An event to be built, with all that had to be looked up for it.
#[derive(Debug)]
pub(crate) struct Draft {
    pub template: EventTemplate,
    pub nid: EventNid,
    pub sender_sid: StringId,
    pub type_sid: StringId,
    pub key_sid: Option<StringId>,
    pub sent_by: Option<(OwnedDeviceId, OwnedTransactionId)>,
    /// When it was sent, where an application service says so.
    pub timestamp: Option<MilliSecondsSinceUnixEpoch>,
    /// What it redacts, if that is here.
    pub redacts: Option<(Arc<Pdu>, EventNid)>,
}

impl Draft {
    pub async fn new(engine: &Engine, template: EventTemplate) -> Result<Self, RoomError> {
        let event_type = template.event_type.to_string();
        let state_key = template.state_key.as_deref();
        let strings = [template.sender.as_str(), &event_type, state_key.unwrap_or_default()];
        // What is no event can't be a string of ours either.
        if strings.iter().any(|text| text.contains('\0')) {
            return Err(RoomError::InvalidParam("the character NUL can't be stored".to_owned()));
        }
        if let Some(long) = strings.iter().find(|text| text.len() > myelin_events::limits::MAX_FIELD_BYTES) {
            return Err(RoomError::TooLarge(format!("an identifier of {} bytes is too long", long.len())));
        }
        let [sender_sid, type_sid, key_sid] = engine.numbers.strings(strings).await?;
        Ok(Self {
            nid: engine.numbers.event_nid().await?,
            sender_sid,
            type_sid,
            key_sid: state_key.map(|_| key_sid),
            template,
            sent_by: None,
            timestamp: None,
            redacts: None,
        })
    }
}

impl Resident {
    /// Builds, authorizes and signs an event behind the current forward extremities. Nothing is written yet, and
    /// nothing here changes.
    pub async fn compose(&mut self, engine: &Engine, draft: Draft) -> Result<EventRow, RoomError> {
        let pdu = self.build(engine, draft.template, draft.timestamp)?;
        let pdu = Arc::new(pdu);
        let numbers = StateNumbers {
            nid: draft.nid,
            type_sid: draft.type_sid,
            key_sid: draft.key_sid.unwrap_or_default(),
            sender_sid: draft.sender_sid,
        };
        let mut row = EventRow::new(self.nid, draft.nid, pdu.clone());
        row.state_changes.extend(self.own_change(&pdu, numbers));
        row.writing = Writing {
            sender_sid: draft.sender_sid,
            type_sid: draft.type_sid,
            key_sid: draft.key_sid,
            flags: flags_of(&pdu, engine) | if pdu.is_state() { flags::CURRENT_STATE } else { 0 },
            ..Writing::default()
        };
        // Forward extremities that did not fit stay; their state is part of the current one all the same.
        let left = self.heads_by_depth().skip(MAX_PREV_EVENTS).map(|head| head.event_id().clone());
        let left: Vec<OwnedEventId> = left.chain([pdu.event_id().clone()]).collect();
        row.writing.heads = (left.len() > 1).then_some(left);
        row.sent_by = draft.sent_by;
        if let Some((target, nid)) = draft.redacts {
            row.redacts = self.redaction(&pdu, &target, nid)?;
        }
        self.complete(engine, &mut row).await?;
        Ok(row)
    }

    /// The forward extremities, the deepest first.
    fn heads_by_depth(&self) -> impl Iterator<Item = &Head> {
        let mut heads: SmallVec<[&Head; 4]> = self.heads.iter().collect();
        if heads.len() > 1 {
            heads.sort_by_key(|head| std::cmp::Reverse(head.pdu.depth()));
        }
        heads.into_iter()
    }

    fn build(
        &self,
        engine: &Engine,
        template: EventTemplate,
        timestamp: Option<MilliSecondsSinceUnixEpoch>,
    ) -> Result<Pdu, RoomError> {
        let fetch_state = |event_type: &StateEventType, key: &str| self.pdu(event_type, key).cloned();
        let auth_events = auth::auth_events_for(&template, self.rules, fetch_state)?;
        let heads = self.heads_by_depth().take(MAX_PREV_EVENTS);
        let prev_events =
            heads.map(|head| EventReference::to(&head.pdu)).collect::<Result<Vec<_>, MalformedEvent>>()?;
        let auth_references = auth_events
            .iter()
            .map(|event| EventReference::to(event))
            .collect::<Result<Vec<_>, MalformedEvent>>()?;
        let is_create = template.event_type == ruma::events::TimelineEventType::RoomCreate;
        let is_hash = self.rules.authorization.room_create_event_id_as_room_id;
        let context = EventContext {
            rules: self.rules,
            room_id: (!(is_create && is_hash)).then_some(&*self.room_id),
            prev_events: &prev_events,
            auth_events: &auth_references,
            depth: match self.heads.iter().map(|head| head.pdu.depth()).max() {
                Some(deepest) => next_depth(deepest),
                None => 1,
            },
            origin_server_ts: timestamp.unwrap_or_else(|| engine.now()),
            key: &engine.options.signing_key,
        };
        let pdu = build(template, &context)?;
        // The current state is what it selects its auth events from, so both checks of the rules are one.
        let create = self.pdu(&StateEventType::RoomCreate, "");
        let fetch = |event_id: &EventId| {
            let candidates = auth_events.iter().chain(create);
            candidates.into_iter().find(|event| event.event_id() == event_id).cloned()
        };
        auth::check_auth_events(&pdu, fetch)?;
        Ok(pdu)
    }

    /// What the event does to the current state, if it comes behind all forward extremities.
    pub fn own_change(&self, pdu: &Arc<Pdu>, numbers: StateNumbers) -> Option<StateChange> {
        let state_key = pdu.state_key()?;
        let event_type: StateEventType = pdu.event_type().to_string().into();
        let replaced = self.pdu(&event_type, state_key).cloned();
        Some(StateChange {
            event_type,
            state_key: state_key.into(),
            event: Some(pdu.clone()),
            replaced,
            numbers,
        })
    }

    /// What a redaction does, if it takes effect.
    pub fn redaction(
        &self,
        redaction: &Pdu,
        target: &Pdu,
        nid: EventNid,
    ) -> Result<Option<Redacted>, MalformedEvent> {
        let applies =
            self.power_levels.as_ref().is_some_and(|levels| levels.redaction_applies(redaction, target));
        if !applies {
            return Ok(None);
        }
        let parent_id = Relation::of(target).map(|relation| relation.event_id);
        Ok(Some(Redacted { pdu: Arc::new(redact(target)?), nid, parent_id }))
    }

    /// Adds what follows from the event: its relation, its thread, what push rules make of it.
    pub async fn complete(&mut self, engine: &Engine, row: &mut EventRow) -> Result<(), RoomError> {
        row.relation = Relation::of(&row.pdu);
        row.thread_id = self.thread_of(row);
        if !row.timeline {
            return Ok(());
        }
        row.push = self.push_outcome(engine, &row.pdu).await?;
        Ok(())
    }

    /// The thread that an event says to be in, or that the event is in which it annotates or edits. Only the latest
    /// events are looked at for that: nobody is notified of what is said about old ones.
    fn thread_of(&self, row: &EventRow) -> Option<OwnedEventId> {
        let relation = row.relation.as_ref()?;
        match RelatesTo::of(&row.pdu).thread_root() {
            Some(root) => Some(root.clone()),
            None => self.recent.get(&relation.event_id)?.thread_id.clone(),
        }
    }

    async fn push_outcome(&mut self, engine: &Engine, pdu: &Pdu) -> Result<PushOutcome, RoomError> {
        let Some(power_levels) = self.power_levels.clone() else { return Ok(PushOutcome::default()) };
        let event_type = pdu.event_type().to_string();
        let event = PushEvent {
            room_id: &self.room_id,
            event_id: pdu.event_id(),
            sender: pdu.sender(),
            event_type: &event_type,
            state_key: pdu.state_key(),
            content: pdu.content(),
            joined_members: self.joined_members as u64,
            sender_may_notify_room: power_levels.can_notify_room(pdu.sender()),
        };
        Ok(engine.push.evaluate(&mut self.audience, event).await?)
    }
}

/// The flags that an event has by itself.
pub(crate) fn flags_of(pdu: &Pdu, engine: &Engine) -> i16 {
    let is_local = pdu.sender().server_name() == engine.options.server_name;
    (if contains_url(pdu) { flags::CONTAINS_URL } else { 0 }) | (if is_local { flags::LOCAL } else { 0 })
}
