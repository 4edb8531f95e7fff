//! Reading the fields of an event out of its text without building a tree.

use std::{borrow::Cow, fmt};

use ruma::{EventId, OwnedEventId};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::MalformedEvent;

/// The fields of an event that we use, borrowed from its text.
#[derive(Deserialize)]
pub(super) struct RawPdu<'a> {
    #[serde(borrow)]
    pub room_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub sender: Text<'a>,
    #[serde(borrow, rename = "type")]
    pub event_type: Text<'a>,
    #[serde(borrow)]
    pub state_key: Option<Text<'a>>,
    #[serde(borrow)]
    pub content: &'a RawValue,
    pub origin_server_ts: LaxUint,
    pub depth: LaxUint,
    #[serde(borrow)]
    pub prev_events: &'a RawValue,
    #[serde(borrow)]
    pub auth_events: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "text_or_nothing")]
    pub redacts: Option<Text<'a>>,
}

impl<'a> RawPdu<'a> {
    pub fn parse(json: &'a str) -> Result<Self, MalformedEvent> {
        let raw: Self = serde_json::from_str(json).map_err(|error| MalformedEvent(error.to_string()))?;
        if !raw.content.get().starts_with('{') {
            return Err(MalformedEvent("`content` is no object".to_owned()));
        }
        for references in [raw.prev_events, raw.auth_events] {
            serde_json::from_str::<CheckedReferences>(references.get())
                .map_err(|error| MalformedEvent(format!("invalid reference to an event: {error}")))?;
        }
        Ok(raw)
    }
}

/// A string that borrows unless it holds escapes.
pub(super) struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

/// `redacts` means something in redactions of some room versions only; elsewhere it may be anything.
fn text_or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Text<'de>>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// A number that should be a positive integer, but in old room versions may be any.
pub(super) struct LaxUint(pub u64);

impl<'de> Deserialize<'de> for LaxUint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LaxUintVisitor;

        impl Visitor<'_> for LaxUintVisitor {
            type Value = LaxUint;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_u64<E>(self, value: u64) -> Result<LaxUint, E> {
                Ok(LaxUint(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<LaxUint, E> {
                Ok(LaxUint(u64::try_from(value).unwrap_or(0)))
            }

            fn visit_f64<E>(self, value: f64) -> Result<LaxUint, E> {
                // `as` saturates: what is negative or no number becomes 0, what is too large the maximum.
                Ok(LaxUint(value as u64))
            }
        }

        deserializer.deserialize_any(LaxUintVisitor)
    }
}

/// The ids in `prev_events` or `auth_events`.
///
/// Room versions 1 and 2 write pairs of event id and hashes, later ones the event id alone; what is found is taken.
pub(super) struct References(Box<[OwnedEventId]>);

impl References {
    pub fn parse(json: &str) -> Result<Box<[OwnedEventId]>, serde_json::Error> {
        serde_json::from_str::<Self>(json).map(|references| references.0)
    }
}

impl<'de> Deserialize<'de> for References {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ids = Vec::<Reference>::deserialize(deserializer)?;
        let ids: Result<_, _> = ids.iter().map(|reference| EventId::parse(reference.0.as_str())).collect();
        ids.map(Self).map_err(D::Error::custom)
    }
}

/// Goes through references as [`References`] does, but keeps nothing.
struct CheckedReferences;

impl<'de> Deserialize<'de> for CheckedReferences {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CheckVisitor;

        impl<'de> Visitor<'de> for CheckVisitor {
            type Value = CheckedReferences;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of events")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<CheckedReferences, A::Error> {
                while let Some(reference) = list.next_element::<Reference<'_>>()? {
                    <&EventId>::try_from(reference.0.as_str()).map_err(A::Error::custom)?;
                }
                Ok(CheckedReferences)
            }
        }

        deserializer.deserialize_seq(CheckVisitor)
    }
}

/// One reference, `"$id"` or `["$id", {"sha256": "…"}]`.
struct Reference<'a>(Text<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Reference<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ReferenceVisitor;

        impl<'de> Visitor<'de> for ReferenceVisitor {
            type Value = Reference<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event id, or a pair of an event id and its hashes")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Reference<'de>, E> {
                Ok(Reference(Text(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Reference<'de>, E> {
                Ok(Reference(Text(Cow::Owned(text.to_owned()))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Reference<'de>, A::Error> {
                let event_id = pair.next_element()?.ok_or_else(|| A::Error::custom("an empty reference"))?;
                pair.next_element::<Hashes>()?
                    .ok_or_else(|| A::Error::custom("a reference without hashes"))?;
                if pair.next_element::<IgnoredAny>()?.is_some() {
                    return Err(A::Error::custom("a reference of more than two parts"));
                }
                Ok(Reference(event_id))
            }
        }

        deserializer.deserialize_any(ReferenceVisitor)
    }
}

/// The hashes next to an event id. They are history: nobody checks them.
struct Hashes;

impl<'de> Deserialize<'de> for Hashes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HashesVisitor;

        impl<'de> Visitor<'de> for HashesVisitor {
            type Value = Hashes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of hashes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Hashes, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Hashes)
            }
        }

        deserializer.deserialize_map(HashesVisitor)
    }
}
