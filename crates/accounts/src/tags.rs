//! Room tags (<https://spec.matrix.org/v1.19/client-server-api/#room-tagging>): one `m.tag` per room.

use myelin_replication::WriteError;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value as JsonValue, json, value::RawValue as RawJson};

use crate::AccountData;

const EVENT_TYPE: &str = "m.tag";
/// A tag's name has at most so many bytes.
const MAX_NAME_LEN: usize = 255;
/// Tags of a room at most; nobody sorts rooms into more drawers.
const MAX_TAGS: usize = 100;

/// Why a tag is not set.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// Its name is longer than 255 bytes.
    #[error("the tag's name is too long")]
    NameTooLong,
    /// The room has too many.
    #[error("the room has too many tags")]
    TooMany,
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The tags of an `m.tag`; none if it is not one.
fn parse(content: Option<&str>) -> Map<String, JsonValue> {
    let content = content.and_then(|content| serde_json::from_str::<JsonValue>(content).ok());
    match content.map(|mut content| content["tags"].take()) {
        Some(JsonValue::Object(tags)) => tags,
        _ => Map::new(),
    }
}

fn content(tags: Map<String, JsonValue>) -> Box<RawJson> {
    serde_json::value::to_raw_value(&json!({ "tags": tags })).expect("a map with text as keys is JSON")
}

impl AccountData {
    /// The tags of a room, by name.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn tags(&self, user: &UserId, room: &RoomId) -> myelin_storage::Result<Map<String, JsonValue>> {
        let data = self.of(user).await?;
        Ok(parse(data.get(Some(room), EVENT_TYPE).as_deref().map(RawJson::get)))
    }

    /// Sets a tag of a room.
    ///
    /// # Errors
    /// See [`TagError`].
    pub async fn set_tag(
        &self,
        user: OwnedUserId,
        room: OwnedRoomId,
        tag: String,
        info: Map<String, JsonValue>,
    ) -> Result<(), TagError> {
        if tag.len() > MAX_NAME_LEN {
            return Err(TagError::NameTooLong);
        }
        let change = move |current: Option<&str>| {
            let mut tags = parse(current);
            tags.insert(tag, JsonValue::Object(info));
            if tags.len() > MAX_TAGS { Err(TagError::TooMany) } else { Ok(content(tags)) }
        };
        self.update(user, Some(room), EVENT_TYPE, change).await?
    }

    /// Removes a tag of a room, if it is there.
    ///
    /// # Errors
    /// If it can't be written.
    pub async fn delete_tag(
        &self,
        user: OwnedUserId,
        room: OwnedRoomId,
        tag: &str,
    ) -> Result<(), WriteError> {
        /// There is nothing to do.
        struct Absent;

        let tag = tag.to_owned();
        let change = move |current: Option<&str>| {
            let mut tags = parse(current);
            tags.remove(&tag).map(|_| content(tags)).ok_or(Absent)
        };
        let removed: Result<(), Absent> = self.update(user, Some(room), EVENT_TYPE, change).await?;
        // A tag that is not there is removed as well as it can be.
        let _ = removed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;
    use crate::{account_data::tests::Fixture, testing::alice};

    fn info(order: f64) -> Map<String, JsonValue> {
        Map::from_iter([("order".to_owned(), json!(order))])
    }

    #[tokio::test]
    async fn tags_that_are_set_at_once_are_all_there() {
        let fixture = Fixture::new().await;
        let room = room_id!("!room:example.org");
        let set = |tag: &str| {
            fixture.account_data.set_tag(alice().to_owned(), room.to_owned(), tag.to_owned(), info(0.5))
        };
        let outcomes = tokio::join!(set("m.favourite"), set("u.work"), set("u.fun"));
        assert!(outcomes.0.is_ok() && outcomes.1.is_ok() && outcomes.2.is_ok());
        for tag in ["u.work", "u.unknown"] {
            fixture.account_data.delete_tag(alice().to_owned(), room.to_owned(), tag).await.unwrap();
        }
        let tags = fixture.account_data.tags(alice(), room).await.unwrap();
        assert_eq!(
            JsonValue::from(tags),
            json!({ "m.favourite": { "order": 0.5 }, "u.fun": { "order": 0.5 } })
        );
        let other = fixture.account_data.tags(alice(), room_id!("!other:example.org")).await.unwrap();
        assert!(other.is_empty());
    }

    #[tokio::test]
    async fn a_tag_has_a_name_of_255_bytes_at_most() {
        let fixture = Fixture::new().await;
        let room = room_id!("!room:example.org").to_owned();
        let set = |len: usize| {
            fixture.account_data.set_tag(alice().to_owned(), room.clone(), "x".repeat(len), Map::new())
        };
        set(255).await.unwrap();
        assert!(matches!(set(256).await.unwrap_err(), TagError::NameTooLong));
    }
}
