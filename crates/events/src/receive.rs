//! Events of other servers: the [checks on receipt](https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu)
//! that need the event alone, namely its format, its signatures and its hash.
//!
//! Parse into an [`UnverifiedPdu`], fetch the keys of its [`required_signatures`](UnverifiedPdu::required_signatures),
//! [`verify`](UnverifiedPdu::verify). Then comes [`auth`](crate::auth).

use std::collections::BTreeMap;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    OwnedServerName, RoomId, UserId, signatures::PublicKeyMap,
};

use crate::{
    Pdu, Rules, SignatureError,
    canonical::{EventObject, NotCanonical},
    keys::verify_text,
    limits::{MAX_AUTH_EVENTS, MAX_FIELD_BYTES, MAX_PDU_BYTES, MAX_PREV_EVENTS, max_depth},
    pdu::MalformedEvent,
    redact::redact,
};

/// The base64 of hashes, with padding or without.
const ANY_PADDING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why an event is dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// It doesn't have the format of its room version.
    #[error("malformed event: {0}")]
    Malformed(String),
    /// It is larger than [`MAX_PDU_BYTES`].
    #[error("the event has {0} bytes, and {MAX_PDU_BYTES} are allowed")]
    TooLarge(usize),
    /// A signature that it must have is missing or wrong. Fetching keys again may help if it is missing.
    #[error("{0}")]
    Signature(#[from] SignatureError),
}

impl From<NotCanonical> for ReceiveError {
    fn from(error: NotCanonical) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<MalformedEvent> for ReceiveError {
    fn from(error: MalformedEvent) -> Self {
        Self::Malformed(error.0)
    }
}

/// An event whose signatures and hash are right.
#[derive(Debug)]
pub struct ReceivedPdu {
    /// The event; redacted if the content hash didn't match, as for an event that we were only given a redacted copy of.
    pub pdu: Pdu,
    /// Whether `pdu` is the redacted copy.
    pub is_redacted: bool,
}

/// All checks of this module at once, for callers that have the keys: see [`UnverifiedPdu`].
///
/// # Errors
///
/// See [`ReceiveError`].
pub fn check_received(json: &str, rules: Rules, keys: &PublicKeyMap) -> Result<ReceivedPdu, ReceiveError> {
    UnverifiedPdu::parse(json, rules)?.verify(keys)
}

/// The room that a PDU names, which tells the room version to parse it with. `None` for the `m.room.create` event of
/// room version 12, and for what isn't an event.
pub fn peek_room_id(json: &str) -> Option<OwnedRoomId> {
    #[derive(serde::Deserialize)]
    struct RoomIdOnly {
        room_id: OwnedRoomId,
    }
    serde_json::from_str::<RoomIdOnly>(json).ok().map(|event| event.room_id)
}

/// An event that has the right format; signatures are not checked yet.
#[derive(Debug)]
pub struct UnverifiedPdu {
    object: EventObject,
    signed_json: String,
    pdu: Pdu,
}

impl UnverifiedPdu {
    /// Checks the format of an event. Its `unsigned`, which anybody on the way can have written, is dropped.
    ///
    /// # Errors
    ///
    /// See [`ReceiveError`]; the event is to be dropped.
    pub fn parse(json: &str, rules: Rules) -> Result<Self, ReceiveError> {
        // Whitespace and `unsigned` don't count, but nobody sends several times the limit of them.
        if json.len() > 4 * MAX_PDU_BYTES {
            return Err(ReceiveError::TooLarge(json.len()));
        }
        let mut object = EventObject::parse(json, rules)?;
        object.fields_mut().remove("unsigned");
        check_format(&object, rules)?;
        let signed_json = object.to_signed_json(&rules.redaction)?;
        let pdu = Pdu::from_object(&object, &signed_json, rules)?;
        if pdu.json().len() > MAX_PDU_BYTES {
            return Err(ReceiveError::TooLarge(pdu.json().len()));
        }
        if rules.signatures.check_event_id_server && pdu.event_id().server_name().is_none() {
            return Err(ReceiveError::Malformed("`event_id` names no server".to_owned()));
        }
        if pdu.event_id().as_bytes().len() > MAX_FIELD_BYTES {
            return Err(ReceiveError::Malformed(format!("`event_id` has more than {MAX_FIELD_BYTES} bytes")));
        }
        Ok(Self { object, signed_json, pdu })
    }

    /// The id of the event.
    pub fn event_id(&self) -> &OwnedEventId {
        self.pdu.event_id()
    }

    /// The room of the event.
    pub fn room_id(&self) -> &OwnedRoomId {
        self.pdu.room_id()
    }

    /// When the event was made: keys must have been valid then, from room version 5 on.
    pub fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.pdu.origin_server_ts()
    }

    /// The event before its signatures are checked: good for deciding what to fetch, not for believing anything.
    pub fn unverified(&self) -> &Pdu {
        &self.pdu
    }

    /// The servers [whose signatures](https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events)
    /// this event must carry, with the ids of the keys that it claims to be signed with.
    pub fn required_signatures(&self) -> BTreeMap<OwnedServerName, Vec<String>> {
        let signatures = self.object.fields().get("signatures").and_then(CanonicalJsonValue::as_object);
        required_servers(&self.pdu, &self.object)
            .into_iter()
            .map(|server| {
                let of_server = signatures.and_then(|all| all.get(server.as_str())?.as_object());
                let key_ids = of_server.map(|keys| keys.keys().cloned().collect()).unwrap_or_default();
                (server, key_ids)
            })
            .collect()
    }

    /// Checks the signatures, then the content hash. `keys` maps server names to the keys of theirs that were valid
    /// at [`origin_server_ts`](Self::origin_server_ts); keys that are not in it count as unknown.
    ///
    /// # Errors
    ///
    /// If a signature that the room version asks for is missing or wrong; the event is to be dropped. A wrong hash is no error: the
    /// event is redacted.
    pub fn verify(self, keys: &PublicKeyMap) -> Result<ReceivedPdu, ReceiveError> {
        let no_keys = BTreeMap::new();
        for server in required_servers(&self.pdu, &self.object) {
            let keys = keys.get(server.as_str()).unwrap_or(&no_keys);
            verify_text(&self.signed_json, self.object.fields().get("signatures"), server.as_str(), keys)?;
        }
        if has_right_content_hash(&self.object) {
            return Ok(ReceivedPdu { pdu: self.pdu, is_redacted: false });
        }
        Ok(ReceivedPdu { pdu: redact(&self.pdu)?, is_redacted: true })
    }
}

fn required_servers(pdu: &Pdu, object: &EventObject) -> Vec<OwnedServerName> {
    let rules = &pdu.rules().signatures;
    let content = object.fields().get("content").and_then(CanonicalJsonValue::as_object);
    let member = content.filter(|_| object.string("type") == Some("m.room.member"));
    let in_content = |field: &str| member.and_then(|content| content.get(field));
    let membership = in_content("membership").and_then(CanonicalJsonValue::as_str);

    let mut servers = Vec::with_capacity(2);
    let mut require = |server: &ruma::ServerName| {
        if !servers.iter().any(|known| known == server) {
            servers.push(server.to_owned());
        }
    };
    // Another server may send the invite of a third party; the rules check the signatures inside.
    let is_third_party_invite = membership == Some("invite") && in_content("third_party_invite").is_some();
    if !is_third_party_invite {
        require(pdu.origin());
    }
    if rules.check_event_id_server
        && let Some(server) = pdu.event_id().server_name()
    {
        require(server);
    }
    if rules.check_join_authorised_via_users_server
        && let Some(user) =
            in_content("join_authorised_via_users_server").and_then(CanonicalJsonValue::as_str)
        && let Ok(user) = <&UserId>::try_from(user)
    {
        require(user.server_name());
    }
    servers
}

fn has_right_content_hash(object: &EventObject) -> bool {
    let claimed =
        object.fields().get("hashes").and_then(|hashes| hashes.as_object()?.get("sha256")?.as_str());
    claimed.and_then(|hash| ANY_PADDING.decode(hash).ok()).is_some_and(|hash| hash == object.content_hash())
}

/// Checks the [event format](https://spec.matrix.org/v1.19/rooms/) but for what parsing checks anyway.
fn check_format(object: &EventObject, rules: Rules) -> Result<(), ReceiveError> {
    let malformed = |message: String| Err(ReceiveError::Malformed(message));
    let fields = object.fields();
    let event_type = check_string(object, "type")?.ok_or_else(|| missing("type"))?;
    let sender = check_string(object, "sender")?.ok_or_else(|| missing("sender"))?;
    if let Err(error) = <&UserId>::try_from(sender) {
        return malformed(format!("invalid `sender`: {error}"));
    }
    check_string(object, "state_key")?;
    let room_id = check_string(object, "room_id")?;
    if let Some(Err(error)) = room_id.map(<&RoomId>::try_from) {
        return malformed(format!("invalid `room_id`: {error}"));
    }
    let states_room = event_type != "m.room.create" || rules.event_format.require_room_create_room_id;
    if states_room && room_id.is_none() {
        return Err(missing("room_id"));
    }
    if !states_room && room_id.is_some() {
        return malformed("`m.room.create` states a room, which its own hash should be".to_owned());
    }
    if object.integer("origin_server_ts").is_none() && rules.authorization.strict_canonical_json {
        return malformed("`origin_server_ts` is no integer".to_owned());
    }
    match object.integer("depth") {
        Some(depth) if u64::try_from(depth).is_ok_and(|depth| depth <= max_depth(rules)) => {}
        _ => return malformed("`depth` is no integer within its limits".to_owned()),
    }
    let content = check_object(fields, "content")?;
    if event_type == "m.room.member" && rules.signatures.check_join_authorised_via_users_server {
        // The rules want the signature of this user's server, and nobody's server can't sign.
        check_user_id(content, "join_authorised_via_users_server")?;
    }
    check_object(fields, "hashes")?;
    check_object(fields, "signatures")?;
    check_list(fields, "prev_events", MAX_PREV_EVENTS)?;
    let auth_events = check_list(fields, "auth_events", MAX_AUTH_EVENTS)?;
    if rules.event_format.allow_room_create_in_auth_events {
        return Ok(());
    }
    let create_hash = room_id.map(|id| id.trim_start_matches('!'));
    let names_create = |reference: &CanonicalJsonValue| {
        reference.as_str().is_some_and(|id| Some(id.trim_start_matches('$')) == create_hash)
    };
    if auth_events.iter().any(names_create) {
        return malformed("`auth_events` names the `m.room.create` event".to_owned());
    }
    Ok(())
}

fn missing(field: &str) -> ReceiveError {
    ReceiveError::Malformed(format!("missing field `{field}`"))
}

fn check_string<'a>(object: &'a EventObject, field: &str) -> Result<Option<&'a str>, ReceiveError> {
    if !object.fields().contains_key(field) {
        return Ok(None);
    }
    let Some(text) = object.string(field) else {
        return Err(ReceiveError::Malformed(format!("`{field}` is no string")));
    };
    if text.len() > MAX_FIELD_BYTES {
        return Err(ReceiveError::Malformed(format!("`{field}` has more than {MAX_FIELD_BYTES} bytes")));
    }
    // PostgreSQL can't store it, and nobody needs it.
    if text.contains('\0') {
        return Err(ReceiveError::Malformed(format!("`{field}` has the character NUL")));
    }
    Ok(Some(text))
}

fn check_user_id(fields: &CanonicalJsonObject, field: &str) -> Result<(), ReceiveError> {
    let is_user_id =
        |value: &CanonicalJsonValue| value.as_str().is_some_and(|id| <&UserId>::try_from(id).is_ok());
    match fields.get(field) {
        Some(value) if !is_user_id(value) => Err(ReceiveError::Malformed(format!("`{field}` is no user id"))),
        _ => Ok(()),
    }
}

fn check_object<'a>(
    fields: &'a CanonicalJsonObject,
    field: &str,
) -> Result<&'a CanonicalJsonObject, ReceiveError> {
    match fields.get(field) {
        Some(CanonicalJsonValue::Object(object)) => Ok(object),
        Some(_) => Err(ReceiveError::Malformed(format!("`{field}` is no object"))),
        None => Err(missing(field)),
    }
}

fn check_list<'a>(
    fields: &'a CanonicalJsonObject,
    field: &str,
    max_length: usize,
) -> Result<&'a [CanonicalJsonValue], ReceiveError> {
    match fields.get(field) {
        Some(CanonicalJsonValue::Array(list)) if list.len() <= max_length => Ok(list),
        Some(CanonicalJsonValue::Array(_)) => {
            Err(ReceiveError::Malformed(format!("`{field}` has more than {max_length} entries")))
        }
        Some(_) => Err(ReceiveError::Malformed(format!("`{field}` is no list"))),
        None => Err(missing(field)),
    }
}

#[cfg(test)]
mod tests;
