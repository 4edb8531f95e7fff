//! Events as canonical JSON objects ([spec](https://spec.matrix.org/v1.19/appendices/#canonical-json)): what is hashed,
//! signed and stored.
//!
//! ruma's canonical JSON is strict, which is right from room version 6 on. Events of room versions 1 to 5 may hold
//! numbers that canonical JSON forbids; [`odd_numbers`] carries these through.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    canonical_json::{RedactingSerializer, redact_in_place},
    room_version_rules::{RedactionRules, RoomVersionRules},
};
use sha2::{Digest as _, Sha256};

mod odd_numbers;

/// The fields that neither the signatures nor the reference hash of an event cover.
const UNSIGNED_FIELDS: &[&str] = &["signatures", "unsigned"];

/// The fields that the content hash of an event does not cover.
const UNHASHED_FIELDS: &[&str] = &["hashes", "signatures", "unsigned"];

/// Text that is not the JSON object an event must be; the message says why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotCanonical(String);

/// An event (or anything else that gets signed) as a tree, for the few operations that need one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventObject {
    fields: CanonicalJsonObject,
    /// Some numbers stand in `fields` as marked strings.
    has_odd_numbers: bool,
}

impl EventObject {
    /// Parses an event of a room version: strictly where the version enforces canonical JSON.
    pub fn parse(json: &str, rules: &RoomVersionRules) -> Result<Self, NotCanonical> {
        match serde_json::from_str(json) {
            Ok(fields) => Ok(Self { fields, has_odd_numbers: false }),
            Err(error) if rules.authorization.strict_canonical_json => Err(NotCanonical(error.to_string())),
            Err(_) => {
                let marked = odd_numbers::mark(json).map_err(NotCanonical)?;
                let fields =
                    serde_json::from_str(&marked).map_err(|error| NotCanonical(error.to_string()))?;
                Ok(Self { fields, has_odd_numbers: true })
            }
        }
    }

    /// An event that we build ourselves, which is always strictly canonical.
    pub fn new(fields: CanonicalJsonObject) -> Self {
        Self { fields, has_odd_numbers: false }
    }

    /// The fields; numbers outside of canonical JSON appear as strings, see [`Self::integer`].
    pub fn fields(&self) -> &CanonicalJsonObject {
        &self.fields
    }

    /// The fields, to be changed.
    pub fn fields_mut(&mut self) -> &mut CanonicalJsonObject {
        &mut self.fields
    }

    /// A top-level field as text, if it is a string.
    pub fn string(&self, field: &str) -> Option<&str> {
        match self.fields.get(field)? {
            CanonicalJsonValue::String(text) if !self.is_odd_number(text) => Some(text),
            _ => None,
        }
    }

    /// A top-level field that is an integer of any size that fits 64 bits.
    pub fn integer(&self, field: &str) -> Option<i64> {
        match self.fields.get(field)? {
            CanonicalJsonValue::Integer(value) => Some(i64::from(*value)),
            CanonicalJsonValue::String(text) if self.is_odd_number(text) => {
                odd_numbers::unmark(text).parse().ok()
            }
            _ => None,
        }
    }

    fn is_odd_number(&self, text: &str) -> bool {
        self.has_odd_numbers && odd_numbers::is_marked(text)
    }

    /// Applies the redaction algorithm ([spec](https://spec.matrix.org/v1.19/client-server-api/#redactions)) of the room
    /// version; `unsigned` goes, too.
    pub fn redact(&mut self, rules: &RedactionRules) -> Result<(), NotCanonical> {
        redact_in_place(&mut self.fields, rules, None).map_err(|error| NotCanonical(error.to_string()))
    }

    /// The whole object as canonical JSON.
    pub fn to_json(&self) -> String {
        self.serialize(RedactingSerializer::new())
            .expect("serializing without rules has no field that it requires")
    }

    /// What servers sign and what the reference hash is taken of: the redacted event without `signatures` and `unsigned`.
    pub fn to_signed_json(&self, rules: &RedactionRules) -> Result<String, NotCanonical> {
        self.serialize(RedactingSerializer::new().rules(rules).custom_redacted_root_fields(UNSIGNED_FIELDS))
    }

    /// The [content hash](https://spec.matrix.org/v1.19/server-server-api/#calculating-the-content-hash-for-an-event).
    pub fn content_hash(&self) -> [u8; 32] {
        let hashed = self
            .serialize(RedactingSerializer::new().custom_redacted_root_fields(UNHASHED_FIELDS))
            .expect("serializing without rules has no field that it requires");
        Sha256::digest(hashed.as_bytes()).into()
    }

    fn serialize(&self, serializer: RedactingSerializer<'_>) -> Result<String, NotCanonical> {
        let json = serializer.serialize(&self.fields).map_err(|error| NotCanonical(error.to_string()))?;
        Ok(if self.has_odd_numbers { odd_numbers::unmark_all(&json) } else { json })
    }
}

/// The [reference hash](https://spec.matrix.org/v1.19/server-server-api/#calculating-the-reference-hash-for-an-event)
/// of the event that [`EventObject::to_signed_json`] gave.
pub(crate) fn reference_hash(signed_json: &str) -> [u8; 32] {
    Sha256::digest(signed_json.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: &str) {
        let object = EventObject::parse(input, &RoomVersionRules::V1).expect("input is accepted");
        assert_eq!(object.to_json(), expected);
    }

    #[test]
    fn canonical_json_is_sorted_and_compact() {
        check("{}", "{}");
        check(r#"{ "b": "2", "a": "\u65E5" }"#, r#"{"a":"日","b":"2"}"#);
        check(r#"{"本": 2, "日": 1, "a": null}"#, r#"{"a":null,"日":1,"本":2}"#);
        check(r#"{"a":"\u0001\/\n"}"#, "{\"a\":\"\\u0001/\\n\"}");
    }

    #[test]
    fn numbers_outside_of_canonical_json_survive_in_old_room_versions() {
        check(r#"{"a": 1.50, "b": "text"}"#, r#"{"a":1.5,"b":"text"}"#);
        check(
            r#"{"a": -0, "b": 1e10, "c": [100000000000000000000000]}"#,
            r#"{"a":0,"b":10000000000.0,"c":[100000000000000000000000]}"#,
        );
        check(r#"{"a": {"x": 9007199254740993}}"#, r#"{"a":{"x":9007199254740993}}"#);
    }

    #[test]
    fn new_room_versions_refuse_them() {
        for json in [r#"{"a":1.5}"#, r#"{"a":-0}"#, r#"{"a":1e3}"#, r#"{"a":9007199254740992}"#] {
            EventObject::parse(json, &RoomVersionRules::V6).expect_err(json);
        }
        EventObject::parse(r#"{"a":9007199254740991}"#, &RoomVersionRules::V6).unwrap();
    }

    #[test]
    fn a_large_depth_can_be_read() {
        let object =
            EventObject::parse(r#"{"depth": 9223372036854775807, "x": 0.5}"#, &RoomVersionRules::V3).unwrap();
        assert_eq!(object.integer("depth"), Some(i64::MAX));
        assert_eq!(object.integer("x"), None);
        assert_eq!(object.string("x"), None);
    }
}
