//! What is to become of the account data of a room that was replaced
//! (<https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>).

use ruma::{RoomId, UserId};
use serde_json::{
    Map, Value as JsonValue,
    value::{RawValue as RawJson, to_raw_value},
};

use crate::{AccountData, AccountDataError};

const TAGS: &str = "m.tag";
const DIRECT: &str = "m.direct";

impl AccountData {
    /// Gives a room the tags of another, which it replaces, and its place in
    /// [`m.direct`](https://spec.matrix.org/v1.19/client-server-api/#mdirect). A room that has tags keeps them.
    ///
    /// # Errors
    /// If the account data can't be read or written.
    pub async fn carry_over(
        &self,
        user: &UserId,
        old: &RoomId,
        new: &RoomId,
    ) -> Result<(), AccountDataError> {
        let data = self.of(user).await?;
        if let Some(tags) = data.get(Some(old), TAGS) {
            let tags: Box<RawJson> = RawJson::to_owned(&tags);
            let set = move |current: Option<&str>| if current.is_none() { Ok(tags) } else { Err(Unchanged) };
            let _unchanged = self.update(user.to_owned(), Some(new.to_owned()), TAGS, set).await?;
        }
        if data.get(None, DIRECT).is_some_and(|direct| direct.get().contains(old.as_str())) {
            let (old, new) = (old.to_string(), new.to_string());
            let add = move |current: Option<&str>| with_direct(current, &old, &new).ok_or(Unchanged);
            let _unchanged = self.update(user.to_owned(), None, DIRECT, add).await?;
        }
        Ok(())
    }
}

/// There is nothing to write.
struct Unchanged;

/// The rooms of each user with whom one talks in private, with the new room wherever the old one is; `None` if nothing
/// changes.
fn with_direct(current: Option<&str>, old: &str, new: &str) -> Option<Box<RawJson>> {
    let mut direct: Map<String, JsonValue> = serde_json::from_str(current?).ok()?;
    let mut is_changed = false;
    for rooms in direct.values_mut().filter_map(JsonValue::as_array_mut) {
        let has = |room: &str| rooms.iter().any(|found| found == room);
        if has(old) && !has(new) {
            rooms.push(new.into());
            is_changed = true;
        }
    }
    is_changed.then(|| to_raw_value(&direct).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use ruma::room_id;
    use serde_json::json;

    use super::*;
    use crate::{AccountDataEvent, account_data::tests::Fixture, testing::alice};

    #[tokio::test]
    async fn the_new_room_has_the_tags_of_the_old_and_is_direct_like_it() {
        let fixture = Fixture::new().await;
        let data = &fixture.account_data;
        let (old, new) = (room_id!("!old:example.org"), room_id!("!new:example.org"));
        data.set_tag(alice().to_owned(), old.to_owned(), "u.work".to_owned(), Map::new()).await.unwrap();
        let direct = json!({ "@bob:example.org": [old], "@carol:example.org": ["!other:example.org"] });
        let event = AccountDataEvent {
            user_id: alice().to_owned(),
            room_id: None,
            event_type: DIRECT.to_owned(),
            content: to_raw_value(&direct).unwrap().into(),
        };
        data.set(event).await.unwrap();

        for _ in 0..2 {
            data.carry_over(alice(), old, new).await.unwrap();
            data.set_tag(alice().to_owned(), old.to_owned(), "u.later".to_owned(), Map::new()).await.unwrap();
        }

        let tags = data.tags(alice(), new).await.unwrap();
        assert_eq!(JsonValue::from(tags), json!({ "u.work": {} }), "what the new room has stays");
        let direct = data.of(alice()).await.unwrap().get(None, DIRECT).unwrap().get().to_owned();
        let direct: JsonValue = serde_json::from_str(&direct).unwrap();
        let expected =
            json!({ "@bob:example.org": [old, new], "@carol:example.org": ["!other:example.org"] });
        assert_eq!(direct, expected);
    }
}
