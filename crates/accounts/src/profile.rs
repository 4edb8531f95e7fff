//! Profiles: named fields of any JSON ([spec](https://spec.matrix.org/v1.19/client-server-api/#profiles)).

mod stream;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use myelin_replication::{Feed, StreamWriter, WriteError};
use myelin_storage::{
    Database, StorageError, Transaction,
    accounts::{profiles, users},
};
use quick_cache::Weighter;
use ruma::{OwnedMxcUri, OwnedUserId, UserId};
use serde_json::Value as JsonValue;
use tokio::time::Instant;

pub use self::stream::{ProfileRow, ProfileStream};
use crate::recent::Recent;
pub use myelin_storage::accounts::profiles::ShowNumber;

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
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Memory for the profiles that were read of late, in bytes.
const CACHE_BYTES: u64 = 16 << 20;
/// How long a profile is believed that nobody said had changed: daemons of before there was this stream tell nobody.
const BELIEVED_FOR: Duration = Duration::from_secs(300);
/// What a user's small profile weighs, about.
const LIKELY_BYTES: u64 = 512;

/// Of how many users it is asked at once whose profile is still to be shown.
const SHOWN_AT_ONCE: i64 = 100;

type RecentProfiles = Recent<OwnedUserId, (Instant, Arc<Profile>), ByBytes>;

/// What users say of themselves. Clones share one cache, which every process's stream of changes keeps true.
#[derive(Clone)]
pub struct Profiles {
    database: Database,
    writer: StreamWriter<ProfileStream>,
    recent: Arc<RecentProfiles>,
}

impl fmt::Debug for Profiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profiles").finish_non_exhaustive()
    }
}

impl Profiles {
    /// The service over a stream.
    pub fn new(database: Database, feed: &Feed<ProfileStream>, writer: StreamWriter<ProfileStream>) -> Self {
        let likely = usize::try_from(CACHE_BYTES / LIKELY_BYTES).unwrap_or(usize::MAX);
        let recent = Arc::new(Recent::of_weight(CACHE_BYTES, likely, ByBytes));
        let changing: Arc<RecentProfiles> = recent.clone();
        feed.subscribe(move |batch| changing.forget(batch.rows.iter().map(|stamped| &*stamped.row.user_id)));
        Self { database, writer, recent }
    }

    /// The profile of a user of this server; `None` if there is no such user.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn of(&self, user: &UserId) -> Result<Option<Arc<Profile>>, StorageError> {
        if let Some((read, profile)) = self.recent.get(user)
            && read.elapsed() < BELIEVED_FOR
        {
            return Ok(Some(profile));
        }
        let read = Instant::now();
        let before = self.recent.generation();
        let db = self.database.get().await?;
        let fields = profiles::list_fields(&db, user).await?;
        if fields.is_empty() && users::get_user(&db, user).await?.is_none() {
            return Ok(None);
        }
        let profile: Arc<Profile> =
            Arc::new(fields.into_iter().map(parse_field).collect::<Result<_, StorageError>>()?);
        self.recent.insert(before, user.to_owned(), (read, profile.clone()));
        Ok(Some(profile))
    }

    /// What of a user's profile goes into member events; empty if there is no such user.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn of_member(&self, user: &UserId) -> Result<MemberProfile, StorageError> {
        Ok(member_profile(&self.of(user).await?.unwrap_or_default()))
    }

    /// Sets a field. An empty `displayname` or `avatar_url` is deleted, as clients of before 1.16 mean it.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub async fn set(&self, user: &UserId, name: &str, value: &JsonValue) -> Result<(), ProfileError> {
        check_field(name, value)?;
        if matches!(name, "displayname" | "avatar_url") && value.as_str() == Some("") {
            return self.delete(user, name).await;
        }
        let (name, value) = (name.to_owned(), value.to_string());
        let is_set = self.change(user.to_owned(), |transaction, user| {
            Box::pin(async move {
                let is_set = profiles::set_field(transaction, user, &name, &value, MAX_PROFILE_SIZE).await?;
                if is_set && is_shown_in_rooms(&name) {
                    profiles::set_to_show(transaction, user).await?;
                }
                Ok(is_set)
            })
        });
        match is_set.await? {
            true => Ok(()),
            false => Err(ProfileError::ProfileTooLarge),
        }
    }

    /// Deletes a field, if it is there.
    ///
    /// # Errors
    /// [`ProfileError::InvalidName`], or of the database.
    pub async fn delete(&self, user: &UserId, name: &str) -> Result<(), ProfileError> {
        check_name(name)?;
        let name = name.to_owned();
        let is_deleted = self.change(user.to_owned(), |transaction, user| {
            Box::pin(async move {
                let is_deleted = profiles::delete_field(transaction, user, &name).await?;
                if is_deleted && is_shown_in_rooms(&name) {
                    profiles::set_to_show(transaction, user).await?;
                }
                Ok(is_deleted)
            })
        });
        is_deleted.await?;
        Ok(())
    }

    /// What a user's rooms are to show, read from the database, and which change some of them may not show yet.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn to_show(&self, user: &UserId) -> Result<(MemberProfile, Option<ShowNumber>), StorageError> {
        let db = self.database.get().await?;
        // The number first: what is read then is of that change or of a later one.
        let number = profiles::get_to_show(&db, user).await?;
        let fields = profiles::list_fields(&db, user).await?;
        let profile = fields.into_iter().map(parse_field).collect::<Result<_, StorageError>>()?;
        Ok((member_profile(&profile), number))
    }

    /// Users whose name or picture some room may not show yet, those first who have waited longest; not all if they are many.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn list_to_show(&self) -> Result<Vec<(OwnedUserId, ShowNumber)>, StorageError> {
        profiles::list_to_show(&self.database.get().await?, SHOWN_AT_ONCE).await
    }

    /// Notes that all of a user's rooms show a change.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn note_shown(&self, user: &UserId, shown: ShowNumber) -> Result<(), StorageError> {
        profiles::delete_to_show(&self.database.get().await?, user, shown).await
    }

    /// Deletes a whole profile.
    ///
    /// # Errors
    /// If it can't be written.
    pub async fn erase(&self, user: &UserId) -> Result<(), WriteError> {
        let is_erased = self.change(user.to_owned(), |transaction, user| {
            Box::pin(async move { profiles::delete_fields(transaction, user).await.map(|()| true) })
        });
        is_erased.await.map(drop)
    }

    /// Runs `work`, and tells all processes of the change if it says that there was one.
    async fn change<F>(&self, user_id: OwnedUserId, work: F) -> Result<bool, WriteError>
    where
        F: for<'a> FnOnce(&'a Transaction<'a>, &'a UserId) -> BoxFuture<'a, Result<bool, StorageError>>
            + Send
            + 'static,
    {
        self.writer
            .transact(move |transaction| {
                Box::pin(async move {
                    let changes = work(transaction, &user_id).await?;
                    Ok((changes, changes.then_some(ProfileRow { user_id }).into_iter().collect()))
                })
            })
            .await
    }
}

fn parse_field((name, value): (String, String)) -> Result<(String, JsonValue), StorageError> {
    let value = serde_json::from_str(&value);
    value
        .map(|value| (name, value))
        .map_err(|error| StorageError::Inconsistent(format!("a profile field is not JSON: {error}")))
}

fn member_profile(profile: &Profile) -> MemberProfile {
    let text = |name: &str| profile.get(name)?.as_str().map(str::to_owned);
    MemberProfile { displayname: text("displayname"), avatar_url: text("avatar_url").map(OwnedMxcUri::from) }
}

/// Whether a field is one of those that member events show: what [`MemberProfile`] has
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#events-on-change-of-profile-information)).
pub fn is_shown_in_rooms(name: &str) -> bool {
    matches!(name, "displayname" | "avatar_url")
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<OwnedUserId, (Instant, Arc<Profile>)> for ByBytes {
    fn weight(&self, user: &OwnedUserId, (_, profile): &(Instant, Arc<Profile>)) -> u64 {
        let fields = profile.iter().map(|(name, value)| 96 + name.len() + json_bytes(value));
        (160 + user.as_str().len() + fields.sum::<usize>()) as u64
    }
}

/// About how much memory a value takes beside itself.
fn json_bytes(value: &JsonValue) -> usize {
    match value {
        JsonValue::String(text) => text.len(),
        JsonValue::Array(values) => values.iter().map(|value| 32 + json_bytes(value)).sum(),
        JsonValue::Object(fields) => {
            fields.iter().map(|(name, value)| 96 + name.len() + json_bytes(value)).sum()
        }
        JsonValue::Null | JsonValue::Bool(_) | JsonValue::Number(_) => 0,
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
    use myelin_leases::Session;
    use myelin_replication::Stream as _;
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

    /// The service as two processes have it: one that reads in between, and one that only changes.
    async fn two_processes(fixture: &Fixture) -> (Profiles, Profiles) {
        let database = &fixture.database;
        let register =
            |name| Session::register(database.clone(), name, &[ProfileStream::NAME], Duration::ZERO);
        let sessions = [register("main").await.unwrap(), register("other").await.unwrap()];
        let feed = Feed::open(database.clone()).await.unwrap();
        sessions
            .map(|session| {
                let writer = StreamWriter::start(database.clone(), session, feed.clone());
                Profiles::new(database.clone(), &feed, writer)
            })
            .into()
    }

    #[tokio::test]
    async fn a_profile_is_what_was_set() {
        let fixture = Fixture::new().await;
        let (here, there) = two_processes(&fixture).await;
        // Read before each change, so that what is kept has to be given up.
        let set = async |name: &str, value: JsonValue| {
            here.of(alice()).await.unwrap();
            there.set(alice(), name, &value).await.unwrap();
        };
        set("displayname", json!("Alice 🦊")).await;
        set("avatar_url", json!("mxc://a/b")).await;
        set("org.example.list", json!([1.0, "\u{0}"])).await;
        let profile = here.of(alice()).await.unwrap().unwrap();
        assert_eq!(
            json!(*profile),
            json!({ "displayname": "Alice 🦊", "avatar_url": "mxc://a/b", "org.example.list": [1.0, "\u{0}"] }),
        );
        let member = here.of_member(alice()).await.unwrap();
        assert_eq!(member.displayname.as_deref(), Some("Alice 🦊"));
        assert_eq!(member.avatar_url, Some("mxc://a/b".into()));

        set("displayname", json!("")).await;
        there.delete(alice(), "avatar_url").await.unwrap();
        assert_eq!(here.of(alice()).await.unwrap().unwrap().len(), 1);
        there.erase(alice()).await.unwrap();
        assert_eq!(*here.of(alice()).await.unwrap().unwrap(), Profile::new());
        let eve = ruma::user_id!("@eve:example.org");
        assert_eq!(here.of(eve).await.unwrap(), None);
        assert_eq!(here.of_member(eve).await.unwrap(), MemberProfile::default());
    }

    #[tokio::test]
    async fn what_rooms_show_is_to_be_shown_once_it_has_changed() {
        let fixture = Fixture::new().await;
        let (profiles, there) = two_processes(&fixture).await;
        profiles.of(alice()).await.unwrap();
        profiles.set(alice(), "m.tz", &json!("Europe/Berlin")).await.unwrap();
        profiles.delete(alice(), "avatar_url").await.unwrap();
        assert_eq!(profiles.list_to_show().await.unwrap(), []);
        for (name, value) in
            [("displayname", json!("Al")), ("avatar_url", json!("mxc://a/b")), ("displayname", json!(""))]
        {
            there.set(alice(), name, &value).await.unwrap();
            let (profile, number) = profiles.to_show(alice()).await.unwrap();
            assert_eq!(profile, there.of_member(alice()).await.unwrap());
            let number = number.unwrap();
            assert_eq!(profiles.list_to_show().await.unwrap(), [(alice().to_owned(), number)]);
            profiles.note_shown(alice(), number).await.unwrap();
            assert_eq!(profiles.list_to_show().await.unwrap(), []);
        }
    }

    #[tokio::test]
    async fn a_profile_that_was_read_is_not_read_again() {
        let fixture = Fixture::new().await;
        let (profiles, _) = two_processes(&fixture).await;
        let first = profiles.of(alice()).await.unwrap().unwrap();
        let second = profiles.of(alice()).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        // A field that was not there does not make anybody read again.
        profiles.delete(alice(), "org.example.none").await.unwrap();
        assert!(Arc::ptr_eq(&first, &profiles.of(alice()).await.unwrap().unwrap()));
    }

    #[tokio::test]
    async fn a_profile_stays_below_64_kib() {
        let fixture = Fixture::new().await;
        let (profiles, _) = two_processes(&fixture).await;
        let long = json!("x".repeat(40_000));
        profiles.set(alice(), "org.example.one", &long).await.unwrap();
        let error = profiles.set(alice(), "org.example.two", &long).await.unwrap_err();
        assert!(matches!(error, ProfileError::ProfileTooLarge), "{error}");
    }
}
