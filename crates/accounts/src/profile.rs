//! Profiles: named fields of any JSON.

use std::collections::BTreeMap;

use myelin_storage::{StorageError, accounts::profiles};
use ruma::{OwnedMxcUri, UserId};
use serde_json::Value as JsonValue;

use crate::Accounts;

/// The whole profile is smaller than 64 KiB (<https://spec.matrix.org/v1.19/client-server-api/#profiles>).
const MAX_PROFILE_SIZE: i64 = 65_535;
/// A field's name.
const MAX_NAME_LEN: usize = 255;
/// As Synapse has it, in characters.
const MAX_DISPLAYNAME_LEN: usize = 256;
const MAX_AVATAR_URL_LEN: usize = 1000;

/// The fields by name.
pub type Profile = BTreeMap<String, JsonValue>;

/// What of a profile is in the member events of rooms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberProfile {
    /// The display name.
    pub displayname: Option<String>,
    /// The picture.
    pub avatar_url: Option<OwnedMxcUri>,
}

/// Why a field is not set.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The field's name is none.
    #[error("invalid profile field name")]
    InvalidName,
    /// The field's name is too long.
    #[error("the profile field's name is too long")]
    NameTooLong,
    /// The value is not what this field takes; the text says what is.
    #[error("{0}")]
    InvalidValue(&'static str),
    /// The profile would become too large.
    #[error("the profile would become too large")]
    ProfileTooLarge,
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Accounts {
    /// The profile of a user of this server; `None` if there is no such user.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn profile(&self, user: &UserId) -> Result<Option<Profile>, StorageError> {
        let fields = profiles::list_fields(&self.db().await?, user).await?;
        if fields.is_empty() {
            return Ok(self.user(user).await?.map(|_| Profile::new()));
        }
        let parse = |(name, value): (String, String)| {
            let value = serde_json::from_str(&value);
            value
                .map(|value| (name, value))
                .map_err(|error| StorageError::Inconsistent(format!("a profile field is not JSON: {error}")))
        };
        fields.into_iter().map(parse).collect::<Result<_, _>>().map(Some)
    }

    /// What of a user's profile goes into member events; empty if there is no such user.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn member_profile(&self, user: &UserId) -> Result<MemberProfile, StorageError> {
        let mut fields: BTreeMap<String, String> =
            profiles::list_fields(&self.db().await?, user).await?.into_iter().collect();
        let mut text = |name: &str| serde_json::from_str::<String>(&fields.remove(name)?).ok();
        Ok(MemberProfile {
            displayname: text("displayname"),
            avatar_url: text("avatar_url").map(OwnedMxcUri::from),
        })
    }

    /// Sets a field. An empty `displayname` or `avatar_url` is deleted, as clients of before 1.16 mean it.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub async fn set_profile_field(
        &self,
        user: &UserId,
        name: &str,
        value: &JsonValue,
    ) -> Result<(), ProfileError> {
        check_field(name, value)?;
        if matches!(name, "displayname" | "avatar_url") && value.as_str() == Some("") {
            return self.delete_profile_field(user, name).await;
        }
        let db = self.db().await?;
        match profiles::set_field(&db, user, name, &value.to_string(), MAX_PROFILE_SIZE).await? {
            true => Ok(()),
            false => Err(ProfileError::ProfileTooLarge),
        }
    }

    /// Deletes a field, if it is there.
    ///
    /// # Errors
    /// [`ProfileError::InvalidName`], or of the database.
    pub async fn delete_profile_field(&self, user: &UserId, name: &str) -> Result<(), ProfileError> {
        check_name(name)?;
        profiles::delete_field(&self.db().await?, user, name).await?;
        Ok(())
    }
}

/// The [Common Namespaced Identifier Grammar][grammar], and the names from before it.
///
/// [grammar]: https://spec.matrix.org/v1.19/appendices/#common-namespaced-identifier-grammar
fn check_name(name: &str) -> Result<(), ProfileError> {
    if name.len() > MAX_NAME_LEN {
        return Err(ProfileError::NameTooLong);
    }
    let mut bytes = name.bytes();
    let starts_well = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
    let is_allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    match starts_well && bytes.all(is_allowed) {
        true => Ok(()),
        false => Err(ProfileError::InvalidName),
    }
}

fn check_field(name: &str, value: &JsonValue) -> Result<(), ProfileError> {
    check_name(name)?;
    let text = value.as_str();
    let complaint = match name {
        "displayname" if text.is_none() => "The display name must be a string",
        "displayname" if text.is_some_and(|text| text.chars().count() > MAX_DISPLAYNAME_LEN) => {
            "The display name is too long (256 characters at most)"
        }
        "avatar_url" if text.is_none() => "The avatar URL must be a string",
        "avatar_url" if text.is_some_and(|text| text.len() > MAX_AVATAR_URL_LEN) => {
            "The avatar URL is too long (1000 bytes at most)"
        }
        "m.tz" if text.is_none() => "The time zone must be a string",
        _ => return Ok(()),
    };
    Err(ProfileError::InvalidValue(complaint))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Fixture, alice};

    #[test]
    fn fields_have_names_and_some_have_types() {
        let check = |name: &str, value: JsonValue, is_fine: bool| {
            assert_eq!(check_field(name, &value).is_ok(), is_fine, "{name}: {value}");
        };
        check("displayname", json!("Alice"), true);
        check("displayname", json!(null), false);
        check("displayname", json!("ä".repeat(256)), true);
        check("displayname", json!("ä".repeat(257)), false);
        check("avatar_url", json!("mxc://example.org/abc"), true);
        check("avatar_url", json!("x".repeat(1001)), false);
        check("avatar_url", json!({}), false);
        check("m.tz", json!("Europe/Berlin"), true);
        check("m.tz", json!(1), false);
        check("org.example.any_thing-0", json!([null, 1.5]), true);
        for name in ["", "Upper.case", ".x", "1.x", "a b", "a/b", "ä", &"x".repeat(256)] {
            check(name, json!(1), false);
        }
    }

    #[tokio::test]
    async fn a_profile_is_what_was_set() {
        let fixture = Fixture::new().await;
        let accounts = &fixture.accounts;
        accounts.set_profile_field(alice(), "displayname", &json!("Alice 🦊")).await.unwrap();
        accounts.set_profile_field(alice(), "avatar_url", &json!("mxc://a/b")).await.unwrap();
        accounts.set_profile_field(alice(), "org.example.list", &json!([1.0, "\u{0}"])).await.unwrap();
        let profile = accounts.profile(alice()).await.unwrap().unwrap();
        assert_eq!(
            json!(profile),
            json!({ "displayname": "Alice 🦊", "avatar_url": "mxc://a/b", "org.example.list": [1.0, "\u{0}"] }),
        );
        let member = accounts.member_profile(alice()).await.unwrap();
        assert_eq!(member.displayname.as_deref(), Some("Alice 🦊"));
        assert_eq!(member.avatar_url, Some("mxc://a/b".into()));

        accounts.set_profile_field(alice(), "displayname", &json!("")).await.unwrap();
        accounts.delete_profile_field(alice(), "avatar_url").await.unwrap();
        accounts.delete_profile_field(alice(), "org.example.list").await.unwrap();
        assert_eq!(accounts.profile(alice()).await.unwrap(), Some(Profile::new()));
        assert_eq!(accounts.profile(ruma::user_id!("@eve:example.org")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_profile_stays_below_64_kib() {
        let fixture = Fixture::new().await;
        let long = json!("x".repeat(40_000));
        fixture.accounts.set_profile_field(alice(), "org.example.one", &long).await.unwrap();
        let error = fixture.accounts.set_profile_field(alice(), "org.example.two", &long).await.unwrap_err();
        assert!(matches!(error, ProfileError::ProfileTooLarge), "{error}");
    }
}
