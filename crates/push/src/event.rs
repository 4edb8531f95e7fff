//! Events as push rules see them.

use std::{borrow::Cow, cell::OnceCell, fmt};

use ruma::{EventId, RoomId, UserId};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// An event, and what the conditions of rules may ask about its room at that moment
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#push-rules)).
#[derive(Clone, Copy, Debug)]
pub struct PushEvent<'a> {
    /// The room.
    pub room_id: &'a RoomId,
    /// The event.
    pub event_id: &'a EventId,
    /// Who sent it.
    pub sender: &'a UserId,
    /// Its `type`.
    pub event_type: &'a str,
    /// Its `state_key`, if it is a state event.
    pub state_key: Option<&'a str>,
    /// Its `content`: a JSON object.
    pub content: &'a str,
    /// How many members the room has, wherever they are.
    pub joined_members: u64,
    /// Whether the sender has the power to notify the whole room (`notifications.room`).
    pub sender_may_notify_room: bool,
}

/// Where a property stands in an event: the segments of a
/// [dot-separated path](https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PropertyPath(Box<[Box<str>]>);

impl PropertyPath {
    pub fn new(path: &str) -> Self {
        let mut segments = vec![String::new()];
        let mut chars = path.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '.' => segments.push(String::new()),
                '\\' if chars.next_if(|next| matches!(next, '.' | '\\')).is_some_and(|next| {
                    push(&mut segments, next);
                    true
                }) => {}
                char => push(&mut segments, char),
            }
        }
        Self(segments.into_iter().map(String::into_boxed_str).collect())
    }
}

fn push(segments: &mut [String], char: char) {
    if let Some(segment) = segments.last_mut() {
        segment.push(char);
    }
}

/// An event whose content is parsed as far as rules ask for it.
pub(crate) struct EventView<'a> {
    pub event: PushEvent<'a>,
    content: Vec<Field<'a>>,
    lower_body: OnceCell<Option<String>>,
}

struct Field<'a> {
    key: Cow<'a, str>,
    raw: &'a RawValue,
    value: OnceCell<Value>,
}

/// A property of an event.
pub(crate) enum Property<'v> {
    Text(&'v str),
    Json(&'v Value),
}

impl<'a> EventView<'a> {
    /// A content that is no object has no properties.
    pub fn new(event: &PushEvent<'a>) -> Self {
        let content =
            serde_json::from_str::<Fields<'a>>(event.content).map(|fields| fields.0).unwrap_or_default();
        Self { event: *event, content, lower_body: OnceCell::new() }
    }

    pub fn property(&self, path: &PropertyPath) -> Option<Property<'_>> {
        let (first, rest) = path.0.split_first()?;
        if &**first == "content" {
            let (key, rest) = rest.split_first()?;
            let value =
                rest.iter().try_fold(self.field(key)?, |value, segment| value.as_object()?.get(&**segment));
            return value.map(|value| value.as_str().map_or(Property::Json(value), Property::Text));
        }
        if !rest.is_empty() {
            return None;
        }
        let text = match &**first {
            "type" => self.event.event_type,
            "sender" => self.event.sender.as_str(),
            "state_key" => self.event.state_key?,
            "room_id" => self.event.room_id.as_str(),
            "event_id" => self.event.event_id.as_str(),
            _ => return None,
        };
        Some(Property::Text(text))
    }

    /// A property of the content.
    pub fn field(&self, key: &str) -> Option<&Value> {
        // The last one wins, as in every other JSON reader.
        let field = self.content.iter().rev().find(|field| field.key == key)?;
        Some(field.value.get_or_init(|| serde_json::from_str(field.raw.get()).unwrap_or(Value::Null)))
    }

    /// `content.body` in lower case, if it is a text.
    pub fn lower_body(&self) -> Option<&str> {
        let lower = || self.field("body").and_then(Value::as_str).map(str::to_lowercase);
        self.lower_body.get_or_init(lower).as_deref()
    }

    /// Whether the sender said whom the event mentions
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#user-and-room-mentions)); older rules then don't look for
    /// names.
    pub fn has_mentions(&self) -> bool {
        self.content.iter().any(|field| field.key == "m.mentions")
    }

    /// Whom the event mentions.
    pub fn mentioned(&self) -> impl Iterator<Item = &str> {
        let user_ids = self.field("m.mentions").and_then(|mentions| mentions.get("user_ids")?.as_array());
        user_ids.into_iter().flatten().filter_map(Value::as_str)
    }

    /// Whom the event invites.
    pub fn invited(&self) -> Option<&'a str> {
        let is_invite = self.event.event_type == "m.room.member"
            && self.field("membership").and_then(Value::as_str) == Some("invite");
        self.event.state_key.filter(|_| is_invite)
    }
}

/// The fields of an object, not parsed any further.
struct Fields<'a>(Vec<Field<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(Key(key)) = map.next_key()? {
                    fields.push(Field { key, raw: map.next_value()?, value: OnceCell::new() });
                }
                Ok(Fields(fields))
            }
        }

        #[derive(Deserialize)]
        struct Key<'k>(#[serde(borrow)] Cow<'k, str>);

        deserializer.deserialize_map(FieldsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use ruma::{event_id, room_id, user_id};

    use super::*;

    #[test]
    fn properties_are_found_by_their_path() {
        let event = PushEvent {
            room_id: room_id!("!r:x"),
            event_id: event_id!("$e"),
            sender: user_id!("@a:x"),
            event_type: "m.room.message",
            state_key: None,
            content: r#"{"body":"Hi","a":{"b":{"c":"deep"}},"m.dotted":{"x":1},"b\\s":"slash","twice":1,"twice":"2"}"#,
            joined_members: 2,
            sender_may_notify_room: false,
        };
        let view = EventView::new(&event);
        let text = |path: &str| match view.property(&PropertyPath::new(path)) {
            Some(Property::Text(text)) => Some(text.to_owned()),
            Some(Property::Json(value)) => Some(value.to_string()),
            None => None,
        };
        let cases = [
            ("content.body", Some("Hi")),
            ("content.a.b.c", Some("deep")),
            ("content.a.b", Some(r#"{"c":"deep"}"#)),
            (r"content.m\.dotted.x", Some("1")),
            (r"content.b\\s", Some("slash")),
            ("content.m.dotted.x", None),
            ("content.twice", Some("2")),
            ("content.body.x", None),
            ("content", None),
            ("type", Some("m.room.message")),
            ("type.x", None),
            ("state_key", None),
            ("sender", Some("@a:x")),
            ("room_id", Some("!r:x")),
            ("event_id", Some("$e")),
            ("unsigned", None),
            ("", None),
        ];
        for (path, expected) in cases {
            assert_eq!(text(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_content_that_is_no_object_has_no_properties() {
        let event = PushEvent {
            room_id: room_id!("!r:x"),
            event_id: event_id!("$e"),
            sender: user_id!("@a:x"),
            event_type: "m.room.message",
            state_key: None,
            content: "[]",
            joined_members: 2,
            sender_may_notify_room: false,
        };
        assert_eq!(EventView::new(&event).lower_body(), None);
    }
}
