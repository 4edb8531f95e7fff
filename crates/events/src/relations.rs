//! What an event refers to: relations, replies and mentions, read out of contents that nobody validated.

use ruma::{OwnedEventId, OwnedUserId};
use serde::Deserialize;

use crate::{
    Pdu,
    lenient::{lenient, lenient_list},
};

/// A [relation](https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events) to an earlier
/// event, as `/relations` and the aggregations index it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// `m.annotation`, `m.replace`, `m.thread`, `m.reference` or any other.
    pub rel_type: String,
    /// The event that this one relates to.
    pub event_id: OwnedEventId,
    /// For an annotation: the `key`, usually an emoji.
    pub key: Option<String>,
    /// For an event in a thread: its reply is only there for clients that don't know threads.
    pub is_falling_back: bool,
}

/// What `m.relates_to` of an event says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelatesTo {
    /// The relation, if it has a type and an event.
    pub relation: Option<Relation>,
    /// The event that this one [replies to](https://spec.matrix.org/v1.19/client-server-api/#rich-replies).
    pub in_reply_to: Option<OwnedEventId>,
}

impl RelatesTo {
    /// Reads the relations of an event; encrypted events have them in the clear, too.
    pub fn of(pdu: &Pdu) -> Self {
        // Most events relate to nothing, and looking for the word is much faster than parsing.
        if !pdu.content().contains("\"m.relates_to\"") {
            return Self::default();
        }
        let content: Content = pdu.content_as().unwrap_or_default();
        let Some(relates_to) = content.relates_to else { return Self::default() };
        let relation = relates_to.rel_type.zip(relates_to.event_id).map(|(rel_type, event_id)| Relation {
            rel_type,
            event_id,
            key: relates_to.key,
            is_falling_back: relates_to.is_falling_back.unwrap_or(false),
        });
        Self { relation, in_reply_to: relates_to.in_reply_to.map(|reply| reply.event_id) }
    }

    /// The first event of the [thread](https://spec.matrix.org/v1.19/client-server-api/#threading) that the event
    /// itself says to be in. Annotations, edits and other relations are in the thread of their target.
    pub fn thread_root(&self) -> Option<&OwnedEventId> {
        self.relation_of_type("m.thread")
    }

    /// The event that this one [replaces](https://spec.matrix.org/v1.19/client-server-api/#event-replacements).
    pub fn replaces(&self) -> Option<&OwnedEventId> {
        self.relation_of_type("m.replace")
    }

    fn relation_of_type(&self, rel_type: &str) -> Option<&OwnedEventId> {
        self.relation
            .as_ref()
            .filter(|relation| relation.rel_type == rel_type)
            .map(|relation| &relation.event_id)
    }
}

/// Whom an event [mentions](https://spec.matrix.org/v1.19/client-server-api/#user-and-room-mentions).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Mentions {
    /// The users. What is no user id is left out.
    #[serde(deserialize_with = "lenient_list")]
    pub user_ids: Vec<OwnedUserId>,
    /// Whether the whole room is mentioned.
    #[serde(deserialize_with = "is_true")]
    pub room: bool,
}

impl Mentions {
    /// The mentions of an event; `None` for one that doesn't use `m.mentions`, where push rules look at its text.
    pub fn of(pdu: &Pdu) -> Option<Self> {
        if !pdu.content().contains("\"m.mentions\"") {
            return None;
        }
        pdu.content_as::<Content>().ok()?.mentions
    }
}

/// Whether the content has a `url`, which the `contains_url` of filters asks for.
pub fn contains_url(pdu: &Pdu) -> bool {
    pdu.content().contains("\"url\"")
        && pdu.content_as::<Content>().is_ok_and(|content| content.url.is_some())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Content {
    #[serde(rename = "m.relates_to", deserialize_with = "lenient")]
    relates_to: Option<RawRelatesTo>,
    #[serde(rename = "m.mentions", deserialize_with = "lenient")]
    mentions: Option<Mentions>,
    #[serde(deserialize_with = "lenient")]
    url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawRelatesTo {
    #[serde(deserialize_with = "lenient")]
    rel_type: Option<String>,
    #[serde(deserialize_with = "lenient")]
    event_id: Option<OwnedEventId>,
    #[serde(deserialize_with = "lenient")]
    key: Option<String>,
    #[serde(deserialize_with = "lenient")]
    is_falling_back: Option<bool>,
    #[serde(rename = "m.in_reply_to", deserialize_with = "lenient")]
    in_reply_to: Option<InReplyTo>,
}

#[derive(Deserialize)]
struct InReplyTo {
    event_id: OwnedEventId,
}

fn is_true<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    lenient(deserializer).map(|value| value.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use ruma::RoomVersionId;

    use super::*;
    use crate::test_events::pdu_with_content;

    fn event(content: &str) -> Pdu {
        pdu_with_content(&RoomVersionId::V11, "m.room.message", content)
    }

    #[test]
    fn an_annotation_has_a_key() {
        let content = r#"{"m.relates_to":{"event_id":"$a","key":"👍","rel_type":"m.annotation"}}"#;
        let relation = RelatesTo::of(&event(content)).relation.unwrap();
        let expected = Relation {
            rel_type: "m.annotation".to_owned(),
            event_id: "$a".try_into().unwrap(),
            key: Some("👍".to_owned()),
            is_falling_back: false,
        };
        assert_eq!(relation, expected);
    }

    #[test]
    fn a_reply_in_a_thread_has_both() {
        let content = r#"{"m.relates_to":{"event_id":"$root","is_falling_back":true,"m.in_reply_to":{"event_id":"$r"},"rel_type":"m.thread"}}"#;
        let relates_to = RelatesTo::of(&event(content));
        assert_eq!(relates_to.thread_root().unwrap(), "$root");
        assert_eq!(relates_to.in_reply_to.as_ref().unwrap(), "$r");
        assert!(relates_to.relation.unwrap().is_falling_back);
    }

    #[test]
    fn a_plain_reply_is_no_relation() {
        let relates_to = RelatesTo::of(&event(r#"{"m.relates_to":{"m.in_reply_to":{"event_id":"$r"}}}"#));
        assert_eq!(relates_to.relation, None);
        assert_eq!(relates_to.in_reply_to.unwrap(), "$r");
    }

    #[test]
    fn an_edit_names_what_it_replaces() {
        let relates_to =
            RelatesTo::of(&event(r#"{"m.relates_to":{"event_id":"$a","rel_type":"m.replace"}}"#));
        assert_eq!(relates_to.replaces().unwrap(), "$a");
        assert_eq!(relates_to.thread_root(), None);
    }

    #[test]
    fn nonsense_relates_to_nothing() {
        for relates_to in [
            "5",
            "{}",
            r#"{"rel_type":"m.thread"}"#,
            r#"{"rel_type":5,"event_id":"$a"}"#,
            r#"{"rel_type":"x","event_id":"a"}"#,
        ] {
            let content = format!(r#"{{"m.relates_to":{relates_to}}}"#);
            assert_eq!(RelatesTo::of(&event(&content)), RelatesTo::default(), "{content}");
        }
        assert_eq!(RelatesTo::of(&event(r#"{"body":"\"m.relates_to\""}"#)), RelatesTo::default());
    }

    #[test]
    fn mentions_are_told_from_their_absence() {
        assert_eq!(Mentions::of(&event("{}")), None);
        assert_eq!(Mentions::of(&event(r#"{"m.mentions":{}}"#)), Some(Mentions::default()));
        let mentions =
            Mentions::of(&event(r#"{"m.mentions":{"room":true,"user_ids":["@a:x",5,"b"]}}"#)).unwrap();
        assert_eq!(mentions, Mentions { user_ids: vec!["@a:x".try_into().unwrap()], room: true });
    }

    #[test]
    fn only_a_url_that_is_text_counts() {
        assert!(contains_url(&event(r#"{"url":"mxc://x/y"}"#)));
        assert!(!contains_url(&event(r#"{"url":5}"#)));
        assert!(!contains_url(&event(r#"{"info":{"url":"mxc://x/y"}}"#)));
    }
}
