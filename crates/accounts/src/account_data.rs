//! Account data ([spec](https://spec.matrix.org/v1.19/client-server-api/#client-config)): the stream, and every active
//! user's in memory.

mod cache;

use std::{collections::HashSet, sync::Arc};

use myelin_replication::{Feed, Stamped, Stream, StreamWriter, WriteError};
use myelin_storage::{Client, Database, Result, StorageError, Write, account_data as rows};
use myelin_types::{Position, StreamId, WriterId};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId, events::ignored_user_list::IgnoredUserListEventContent,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue as RawJson;

use self::cache::UserCache;
pub use self::cache::{AccountDataEntry, UserAccountData};

/// Users have read everything that is written here with their next `/sync`.
#[derive(Debug)]
pub struct AccountDataStream;

/// A piece of account data that was set. Rows of the [`AccountDataStream`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccountDataEvent {
    /// Whose it is.
    pub user_id: OwnedUserId,
    /// The room, unless it is global.
    pub room_id: Option<OwnedRoomId>,
    /// The event type.
    pub event_type: String,
    /// The content, a JSON object.
    pub content: Arc<RawJson>,
}

impl Stream for AccountDataStream {
    const NAME: &'static str = "account_data";

    type Row = AccountDataEvent;

    async fn persist(db: &impl Write, events: &[Stamped<AccountDataEvent>]) -> Result<()> {
        let new: Vec<rows::NewAccountData<'_>> = events
            .iter()
            .map(|Stamped { id, writer, row }| rows::NewAccountData {
                user_id: &row.user_id,
                room_id: row.room_id.as_deref().map_or("", RoomId::as_str),
                event_type: &row.event_type,
                content: row.content.get(),
                stream_id: *id,
                writer_id: *writer,
            })
            .collect();
        rows::upsert_account_data(db, &new).await
    }

    async fn since(
        client: &Client,
        after: &Position,
        upto: &Position,
        limit: i64,
    ) -> Result<Vec<Stamped<AccountDataEvent>>> {
        let mut events = Vec::new();
        let mut from = after.minimum();
        // Pages are filtered by writer, so that one may hold fewer rows than were asked for.
        loop {
            let page = rows::account_data_since(client, from, upto.maximum(), limit).await?;
            let Some(last) = page.last() else { return Ok(events) };
            from = last.stream_id;
            let is_last_page = i64::try_from(page.len()).is_ok_and(|count| count < limit);
            for row in page {
                let (writer, id) = (row.writer_id, row.stream_id);
                if !after.covers(writer, id) && upto.covers(writer, id) {
                    events.push(Stamped::try_from(ParsedRow(row))?);
                }
                if i64::try_from(events.len()).is_ok_and(|count| count >= limit) {
                    return Ok(events);
                }
            }
            if is_last_page {
                return Ok(events);
            }
        }
    }
}

struct ParsedRow(rows::AccountDataRow);

impl TryFrom<ParsedRow> for Stamped<AccountDataEvent> {
    type Error = StorageError;

    fn try_from(ParsedRow(row): ParsedRow) -> Result<Self> {
        let inconsistent = |what: &str| StorageError::Inconsistent(format!("account data has {what}"));
        let room_id = match row.room_id.as_str() {
            "" => None,
            room_id => Some(room_id.try_into().map_err(|_| inconsistent("a room ID that is none"))?),
        };
        let content =
            RawJson::from_string(row.content).map_err(|_| inconsistent("a content that is not JSON"))?;
        let event = AccountDataEvent {
            user_id: row.user_id,
            room_id,
            event_type: row.event_type,
            content: content.into(),
        };
        Ok(Self { id: row.stream_id, writer: row.writer_id, row: event })
    }
}

/// Why account data is not set.
#[derive(Debug, thiserror::Error)]
pub enum AccountDataError {
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Account data of all users. Clones share one cache.
///
/// The account data of a user who is active is in memory as a whole and kept up to date by the stream, so that `/sync`
/// and reads cost no query.
#[derive(Clone, Debug)]
pub struct AccountData {
    database: Database,
    writer: StreamWriter<AccountDataStream>,
    users: Arc<UserCache>,
}

impl AccountData {
    /// The service; `cache_bytes` bounds what is kept in memory.
    pub fn new(
        database: Database,
        writer: StreamWriter<AccountDataStream>,
        feed: &Feed<AccountDataStream>,
        cache_bytes: u64,
    ) -> Self {
        let users = Arc::new(UserCache::new(cache_bytes));
        let subscribed = users.clone();
        feed.subscribe(move |batch| subscribed.apply(batch.rows));
        Self { database, writer, users }
    }

    /// All account data of a user, as of what the stream's feed has seen or later.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn of(&self, user: &UserId) -> Result<Arc<UserAccountData>> {
        let load = async || {
            let client = self.database.get().await?;
            let rows = rows::list_account_data(&client, user).await?;
            rows.into_iter().map(|row| Stamped::try_from(ParsedRow(row))).collect()
        };
        self.users.get_or_load(user, load).await
    }

    /// The users that `user` ignores (<https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>).
    ///
    /// # Errors
    /// If the database fails.
    pub async fn ignored_users(&self, user: &UserId) -> Result<Arc<HashSet<OwnedUserId>>> {
        Ok(self.of(user).await?.ignored_users())
    }

    /// Sets account data and gives its place in the stream. Whether a client may set this type is the caller's question:
    /// the server itself sets `m.fully_read`.
    ///
    /// # Errors
    /// If it can't be written.
    pub async fn set(&self, event: AccountDataEvent) -> Result<StreamId, WriteError> {
        let ids = self.writer.append(vec![event]).await?;
        Ok(ids.first().copied().unwrap_or_default())
    }

    /// Changes account data by what it is: `change` is called with the present content and gives the new one, or an
    /// error; nobody changes it in between.
    pub(crate) async fn update<E, F>(
        &self,
        user_id: OwnedUserId,
        room_id: Option<OwnedRoomId>,
        event_type: &'static str,
        change: F,
    ) -> Result<Result<(), E>, WriteError>
    where
        E: Send + 'static,
        F: FnOnce(Option<&str>) -> Result<Box<RawJson>, E> + Send + 'static,
    {
        self.writer
            .transact(move |transaction| {
                Box::pin(async move {
                    let room = room_id.as_deref().map_or("", RoomId::as_str);
                    let current = rows::lock_content(transaction, &user_id, room, event_type).await?;
                    Ok(match change(current.as_deref()) {
                        Err(error) => (Err(error), Vec::new()),
                        Ok(content) => {
                            let event_type = event_type.to_owned();
                            (
                                Ok(()),
                                vec![AccountDataEvent {
                                    user_id,
                                    room_id,
                                    event_type,
                                    content: content.into(),
                                }],
                            )
                        }
                    })
                })
            })
            .await
    }
}

/// The ignored users of an `m.ignored_user_list`; none if it is not one.
fn parse_ignored_users(content: &RawJson) -> HashSet<OwnedUserId> {
    let content = serde_json::from_str::<IgnoredUserListEventContent>(content.get());
    content.map(|content| content.ignored_users.into_keys().collect()).unwrap_or_default()
}

/// Where a row stands in the stream.
type Place = (WriterId, StreamId);

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use myelin_leases::Session;
    use myelin_testing::TestDatabase;
    use ruma::room_id;

    use super::*;
    use crate::testing::{alice, database};

    pub(crate) struct Fixture {
        pub account_data: AccountData,
        pub feed: Feed<AccountDataStream>,
        pub database: Database,
        _test: TestDatabase,
    }

    impl Fixture {
        pub(crate) async fn new() -> Self {
            let (test, database) = database().await;
            let names = [AccountDataStream::NAME];
            let session = Session::register(database.clone(), "main", &names, Duration::ZERO).await.unwrap();
            let feed = Feed::open(database.clone()).await.unwrap();
            let writer = StreamWriter::start(database.clone(), session, feed.clone());
            let account_data = AccountData::new(database.clone(), writer, &feed, 1 << 20);
            Self { account_data, feed, database, _test: test }
        }

        pub(crate) async fn set(
            &self,
            room_id: Option<&RoomId>,
            event_type: &str,
            content: &str,
        ) -> StreamId {
            let event = AccountDataEvent {
                user_id: alice().to_owned(),
                room_id: room_id.map(ToOwned::to_owned),
                event_type: event_type.to_owned(),
                content: RawJson::from_string(content.to_owned()).unwrap().into(),
            };
            self.account_data.set(event).await.unwrap()
        }
    }

    fn contents(entries: &[AccountDataEntry]) -> Vec<(&str, &str)> {
        let mut contents: Vec<_> =
            entries.iter().map(|entry| (entry.event_type.as_str(), entry.content.get())).collect();
        contents.sort_unstable();
        contents
    }

    #[tokio::test]
    async fn what_was_set_is_read_at_once_warm_or_cold() {
        let fixture = Fixture::new().await;
        let room = room_id!("!room:example.org");
        fixture.set(None, "m.direct", "{}").await;
        let warm = fixture.account_data.of(alice()).await.unwrap();
        fixture.set(None, "m.direct", r#"{"n":1}"#).await;
        fixture.set(Some(room), "m.direct", r#"{"n":2}"#).await;
        let again = fixture.account_data.of(alice()).await.unwrap();
        assert!(Arc::ptr_eq(&warm, &again), "it was kept up to date");
        assert_eq!(warm.get(None, "m.direct").unwrap().get(), r#"{"n":1}"#);
        assert_eq!(warm.get(Some(room), "m.direct").unwrap().get(), r#"{"n":2}"#);
        assert!(warm.get(Some(room), "m.tag").is_none());

        fixture.account_data.users.clear();
        let cold = fixture.account_data.of(alice()).await.unwrap();
        assert!(!Arc::ptr_eq(&warm, &cold));
        assert_eq!(contents(&cold.all()), contents(&warm.all()));
    }

    #[tokio::test]
    async fn changes_since_a_position_are_those_that_came_later() {
        let fixture = Fixture::new().await;
        fixture.set(None, "a", "{}").await;
        fixture.set(None, "b", "{}").await;
        let position = fixture.feed.position();
        let data = fixture.account_data.of(alice()).await.unwrap();
        assert_eq!(contents(&data.since(&position)), []);
        fixture.set(None, "a", r#"{"n":1}"#).await;
        assert_eq!(contents(&data.since(&position)), [("a", r#"{"n":1}"#)]);
        assert_eq!(data.since(&Position::default()).len(), 2);
    }

    #[tokio::test]
    async fn a_reader_that_missed_notices_reads_the_rows() {
        let fixture = Fixture::new().await;
        let before = fixture.feed.position();
        for number in 0..5 {
            fixture.set(None, &format!("type{number}"), "{}").await;
        }
        let after = fixture.feed.position();
        let client = fixture.database.get().await.unwrap();
        for limit in [1, 2, 5, 100] {
            let rows = AccountDataStream::since(&client, &before, &after, limit).await.unwrap();
            assert_eq!(rows.len(), usize::try_from(limit).unwrap().min(5));
        }
        let none = AccountDataStream::since(&client, &after, &after, 10).await.unwrap();
        assert!(none.is_empty());
    }

    #[tokio::test]
    async fn ignored_users_follow_their_list() {
        let fixture = Fixture::new().await;
        let ignored = async || fixture.account_data.ignored_users(alice()).await.unwrap();
        assert!(ignored().await.is_empty());
        fixture.set(None, "m.ignored_user_list", r#"{"ignored_users":{"@eve:example.org":{}}}"#).await;
        assert!(ignored().await.contains(ruma::user_id!("@eve:example.org")));
        fixture.set(None, "m.ignored_user_list", r#"{"ignored_users":[]}"#).await;
        assert!(ignored().await.is_empty(), "what is malformed ignores nobody");
    }
}
