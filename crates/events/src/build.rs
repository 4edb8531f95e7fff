//! Making events of our own users: from what a client sends to a hashed and signed [`Pdu`].

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, RoomId,
    ServerName, events::TimelineEventType,
};
use serde_json::value::RawValue;

use crate::{
    MalformedEvent, Pdu, Rules, ServerSigningKey, SignatureError,
    canonical::{EventObject, NotCanonical},
    limits::{MAX_FIELD_BYTES, MAX_PDU_BYTES, MAX_PREV_EVENTS},
};

/// What the sender decides about a new event; the rest of a PDU
/// ([spec](https://spec.matrix.org/v1.19/server-server-api/#pdus)) is the server's.
#[derive(Debug, Clone)]
pub struct EventTemplate {
    /// The `type`.
    pub event_type: TimelineEventType,
    /// The state key; present for state events.
    pub state_key: Option<String>,
    /// The content, a JSON object.
    pub content: Box<RawValue>,
    /// The user in whose name the event is sent. Its server signs it.
    pub sender: OwnedUserId,
    /// For `m.room.redaction`: the event to redact. It is put where the room version wants it.
    pub redacts: Option<OwnedEventId>,
}

impl EventTemplate {
    /// A message event.
    pub fn message(sender: OwnedUserId, event_type: TimelineEventType, content: Box<RawValue>) -> Self {
        Self { event_type, state_key: None, content, sender, redacts: None }
    }

    /// A state event.
    pub fn state(
        sender: OwnedUserId,
        event_type: TimelineEventType,
        state_key: impl Into<String>,
        content: Box<RawValue>,
    ) -> Self {
        Self { event_type, state_key: Some(state_key.into()), content, sender, redacts: None }
    }

    /// A redaction of `event_id`; `content` may hold the `reason`.
    pub fn redaction(sender: OwnedUserId, event_id: OwnedEventId, content: Box<RawValue>) -> Self {
        let redacts = Some(event_id);
        Self { event_type: TimelineEventType::RoomRedaction, state_key: None, content, sender, redacts }
    }
}

/// An event that a new event refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventReference {
    /// Its id.
    pub event_id: OwnedEventId,
    /// Its reference hash, which room versions 1 and 2 write next to the id.
    pub sha256: Option<String>,
}

impl EventReference {
    /// A reference to this event, in the form of its room version.
    ///
    /// # Errors
    ///
    /// If the stored event breaks the rules of its room version.
    pub fn to(pdu: &Pdu) -> Result<Self, MalformedEvent> {
        let needs_hash = pdu.rules().event_format.require_event_id;
        let sha256 = if needs_hash { Some(pdu.reference_hash()?) } else { None };
        Ok(Self { event_id: pdu.event_id().clone(), sha256 })
    }

    /// A reference by id alone, which is all that room version 3 and later need.
    pub fn by_id(event_id: OwnedEventId) -> Self {
        Self { event_id, sha256: None }
    }

    fn to_json(&self, rules: Rules) -> Result<CanonicalJsonValue, BuildError> {
        let id = CanonicalJsonValue::String(self.event_id.to_string());
        if !rules.event_format.require_event_id {
            return Ok(id);
        }
        let sha256 =
            self.sha256.clone().ok_or_else(|| BuildError::MissingReferenceHash(self.event_id.clone()))?;
        let hashes = CanonicalJsonObject::from([("sha256".to_owned(), sha256.into())]);
        Ok(CanonicalJsonValue::Array(vec![id, hashes.into()]))
    }
}

/// Where in its room a new event stands.
#[derive(Debug, Clone, Copy)]
pub struct EventContext<'a> {
    /// The rules of the room's version.
    pub rules: Rules,
    /// The room. `None` for the `m.room.create` event of room version 12, whose id makes the room id.
    pub room_id: Option<&'a RoomId>,
    /// The forward extremities that the event is put behind, at most [`MAX_PREV_EVENTS`].
    pub prev_events: &'a [EventReference],
    /// The events that authorize it, see [`auth_events_for`](crate::auth::auth_events_for).
    pub auth_events: &'a [EventReference],
    /// Its depth, see [`next_depth`](crate::limits::next_depth).
    pub depth: u64,
    /// The time now.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
    /// The key of the sender's server.
    pub key: &'a ServerSigningKey,
}

/// Why an event can't be made. All but the last two are the client's doing; those two are ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The content is not a JSON object in [canonical form](https://spec.matrix.org/v1.19/appendices/#canonical-json):
    /// answer `M_BAD_JSON`.
    #[error("the content is not canonical JSON: {0}")]
    NotCanonical(String),
    /// The whole event is larger than [`MAX_PDU_BYTES`]: answer `M_TOO_LARGE`.
    #[error("the event would have {0} bytes, and {MAX_PDU_BYTES} are allowed")]
    TooLarge(usize),
    /// A field is larger than [`MAX_FIELD_BYTES`]: answer `M_TOO_LARGE`, or `M_INVALID_PARAM` for a path argument.
    #[error("`{0}` has more than {MAX_FIELD_BYTES} bytes")]
    FieldTooLong(&'static str),
    /// A field has the character NUL, which we can't store: answer `M_INVALID_PARAM`.
    #[error("`{0}` has the character NUL")]
    Nul(&'static str),
    /// The caller gave a reference without a hash, in room version 1 or 2.
    #[error("the reference to {0} lacks its hash")]
    MissingReferenceHash(OwnedEventId),
    /// The caller gave a context that no event can have.
    #[error("invalid context: {0}")]
    Context(String),
}

impl From<NotCanonical> for BuildError {
    fn from(error: NotCanonical) -> Self {
        Self::NotCanonical(error.to_string())
    }
}

impl From<MalformedEvent> for BuildError {
    fn from(error: MalformedEvent) -> Self {
        Self::Context(error.to_string())
    }
}

impl From<SignatureError> for BuildError {
    fn from(error: SignatureError) -> Self {
        Self::NotCanonical(error.to_string())
    }
}

/// Makes, hashes and signs an event.
///
/// Whether it is *allowed* is another question: see [`auth`](crate::auth).
///
/// # Errors
///
/// See [`BuildError`]: what was asked for is no event, or a bigger one than may be sent.
pub fn build(template: EventTemplate, context: &EventContext<'_>) -> Result<Pdu, BuildError> {
    let rules = context.rules;
    check_fields(&template, context)?;
    let server_name = template.sender.server_name().to_owned();
    let mut object = EventObject::new(unsigned_fields(template, context)?);
    if rules.event_format.require_event_id {
        // Any locally unique text will do. The hash of the event needs no randomness and no register of ids.
        let opaque_id = URL_SAFE_NO_PAD.encode(object.content_hash());
        object.fields_mut().insert("event_id".to_owned(), format!("${opaque_id}:{server_name}").into());
    }
    let signed_json = hash_and_sign(&mut object, rules, &server_name, context.key)?;
    finish(&object, &signed_json, rules)
}

/// [Adds](https://spec.matrix.org/v1.19/server-server-api/#adding-hashes-and-signatures-to-outgoing-events) the content
/// hash and the signature, and gives what was signed.
fn hash_and_sign(
    object: &mut EventObject,
    rules: Rules,
    server_name: &ServerName,
    key: &ServerSigningKey,
) -> Result<String, BuildError> {
    let hash = STANDARD_NO_PAD.encode(object.content_hash());
    let hashes = CanonicalJsonObject::from([("sha256".to_owned(), hash.into())]);
    object.fields_mut().insert("hashes".to_owned(), hashes.into());
    let signed_json = object.to_signed_json(&rules.redaction)?;
    key.insert_signature(server_name.as_str(), &signed_json, object.fields_mut())?;
    Ok(signed_json)
}

/// Adds the signature of our server to an event that another server made: for a join that one of our users authorizes
/// ([spec](https://spec.matrix.org/v1.19/server-server-api/#restricted-rooms)), or an invite to one of them.
///
/// # Errors
///
/// If the event breaks the rules of its room version.
pub fn add_signature(pdu: &Pdu, server_name: &ServerName, key: &ServerSigningKey) -> Result<Pdu, BuildError> {
    let mut object = pdu.object()?;
    let signed_json = object.to_signed_json(&pdu.rules().redaction)?;
    key.insert_signature(server_name.as_str(), &signed_json, object.fields_mut())?;
    finish(&object, &signed_json, pdu.rules()).map(|signed| signed.with_rejected(pdu.is_rejected()))
}

fn finish(object: &EventObject, signed_json: &str, rules: Rules) -> Result<Pdu, BuildError> {
    let pdu = Pdu::from_object(object, signed_json, rules)?;
    if pdu.json().len() > MAX_PDU_BYTES {
        return Err(BuildError::TooLarge(pdu.json().len()));
    }
    Ok(pdu)
}

fn check_fields(template: &EventTemplate, context: &EventContext<'_>) -> Result<(), BuildError> {
    let event_type = template.event_type.to_string();
    let fields = [
        ("type", event_type.as_str()),
        ("state_key", template.state_key.as_deref().unwrap_or_default()),
        ("sender", template.sender.as_str()),
        ("room_id", context.room_id.map(RoomId::as_str).unwrap_or_default()),
    ];
    for (name, value) in fields {
        if value.len() > MAX_FIELD_BYTES {
            return Err(BuildError::FieldTooLong(name));
        }
        if value.contains('\0') {
            return Err(BuildError::Nul(name));
        }
    }
    if context.prev_events.len() > MAX_PREV_EVENTS {
        return Err(BuildError::Context(format!("more than {MAX_PREV_EVENTS} previous events")));
    }
    Ok(())
}

/// The fields that the content hash covers.
fn unsigned_fields(
    template: EventTemplate,
    context: &EventContext<'_>,
) -> Result<CanonicalJsonObject, BuildError> {
    let rules = context.rules;
    let references = |references: &[EventReference]| {
        let list: Result<Vec<_>, _> = references.iter().map(|reference| reference.to_json(rules)).collect();
        list.map(CanonicalJsonValue::Array)
    };
    let integer = |value: u64| {
        let value = ruma::Int::try_from(value).map_err(|error| BuildError::Context(error.to_string()))?;
        Ok::<_, BuildError>(CanonicalJsonValue::Integer(value))
    };
    let mut content: CanonicalJsonObject = serde_json::from_str(template.content.get())
        .map_err(|error| BuildError::NotCanonical(error.to_string()))?;
    let mut fields = CanonicalJsonObject::new();
    if let Some(redacts) = template.redacts {
        let home = if rules.redaction.content_field_redacts { &mut content } else { &mut fields };
        home.insert("redacts".to_owned(), redacts.to_string().into());
    }
    fields.insert("content".to_owned(), content.into());
    fields.insert("type".to_owned(), template.event_type.to_string().into());
    fields.insert("sender".to_owned(), template.sender.to_string().into());
    if let Some(state_key) = template.state_key {
        fields.insert("state_key".to_owned(), state_key.into());
    }
    if let Some(room_id) = context.room_id {
        fields.insert("room_id".to_owned(), room_id.to_string().into());
    }
    fields.insert("origin_server_ts".to_owned(), integer(context.origin_server_ts.0.into())?);
    fields.insert("depth".to_owned(), integer(context.depth)?);
    fields.insert("prev_events".to_owned(), references(context.prev_events)?);
    fields.insert("auth_events".to_owned(), references(context.auth_events)?);
    Ok(fields)
}

#[cfg(test)]
mod tests;
