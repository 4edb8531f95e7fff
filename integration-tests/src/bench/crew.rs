//! The preparations: users, rooms, and what was said in them before.

use anyhow::Context as _;
use futures_util::future::try_join_all;
use myelin_integration_tests::path_segment;
use serde_json::json;

use crate::{
    connection::{Account, Connection},
    homeserver::Homeserver,
};

/// How many requests of the preparations run at a time.
const AT_ONCE: usize = 32;

/// Does something for each of some things, over a few connections that take the account they need. The outcomes have the
/// order of the things.
pub async fn for_each<T, R>(
    url: &str,
    things: &[T],
    work: impl AsyncFn(&mut Connection, usize, &T) -> anyhow::Result<R>,
) -> anyhow::Result<Vec<R>> {
    let work = &work;
    let lanes = (0..AT_ONCE.min(things.len())).map(async |lane| {
        let mut connection = Connection::open(url, &Account::default()).await?;
        let mut outcomes = Vec::new();
        for (number, thing) in things.iter().enumerate().skip(lane).step_by(AT_ONCE) {
            outcomes.push((number, work(&mut connection, number, thing).await?));
        }
        anyhow::Ok(outcomes)
    });
    let mut outcomes: Vec<_> = try_join_all(lanes).await?.into_iter().flatten().collect();
    outcomes.sort_by_key(|(number, _)| *number);

    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

/// Registers users: the name, and a number.
pub async fn users(server: &Homeserver, name: &str, count: usize) -> anyhow::Result<Vec<Account>> {
    let numbers: Vec<usize> = (0..count).collect();

    for_each(&server.url(), &numbers, async |connection, number, _| {
        register(connection, &format!("{name}{number}")).await
    })
    .await
    .context("registering users")
}

/// Registers a user whose password is the name.
pub async fn register(connection: &mut Connection, localpart: &str) -> anyhow::Result<Account> {
    let body = json!({ "username": localpart, "password": localpart, "auth": { "type": "m.login.dummy" } });
    connection.act_as(&Account::default());
    connection.ok("POST", "/_matrix/client/v3/register", &body.to_string()).await?;

    Account::from_login(&connection.json()?)
}

/// Makes rooms, each of as many of the users, and each made by another: room n has the members [`member`]`(n, …)`.
pub async fn rooms(
    server: &Homeserver,
    users: &[Account],
    count: usize,
    members: usize,
) -> anyhow::Result<Vec<String>> {
    let numbers: Vec<usize> = (0..count).collect();
    let rooms = for_each(&server.url(), &numbers, async |connection, n, _| {
        connection.act_as(member(users, n, 0));
        create_room(connection, r#"{"preset":"public_chat"}"#).await
    })
    .await
    .context("making rooms")?;
    // In rounds, so that the members of one room come at different times.
    let joins: Vec<(usize, usize)> = (1..members).flat_map(|m| (0..count).map(move |n| (n, m))).collect();
    for_each(&server.url(), &joins, async |connection, _, (n, m)| {
        connection.act_as(member(users, *n, *m));
        join(connection, &rooms[*n]).await
    })
    .await
    .context("joining rooms")?;

    Ok(rooms)
}

/// A member of a room that [`rooms`] made.
pub fn member(users: &[Account], room: usize, member: usize) -> &Account {
    &users[(room + member) % users.len()]
}

/// Makes a room.
pub async fn create_room(connection: &mut Connection, body: &str) -> anyhow::Result<String> {
    connection.ok("POST", "/_matrix/client/v3/createRoom", body).await?;
    let room = connection.json()?["room_id"].as_str().map(str::to_owned);

    room.context("a new room has an ID")
}

/// Joins a room.
pub async fn join(connection: &mut Connection, room: &str) -> anyhow::Result<()> {
    connection.ok("POST", &format!("/_matrix/client/v3/join/{}", path_segment(room)), "{}").await
}

/// Leaves a room.
pub async fn leave(connection: &mut Connection, room: &str) -> anyhow::Result<()> {
    connection.ok("POST", &format!("/_matrix/client/v3/rooms/{}/leave", path_segment(room)), "{}").await
}

/// Where a message is sent to.
pub fn send_path(room: &str, transaction: &str) -> String {
    format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{transaction}")
}

/// Sends messages to each of some rooms that [`rooms`] made, the members taking turns. Their event IDs, oldest first.
pub async fn messages(
    server: &Homeserver,
    users: &[Account],
    rooms: &[String],
    members: usize,
    count: usize,
) -> anyhow::Result<Vec<Vec<String>>> {
    for_each(&server.url(), rooms, async |connection, n, room| {
        let mut event_ids = Vec::with_capacity(count);
        for number in 0..count {
            connection.act_as(member(users, n, number % members));
            let body = json!({ "msgtype": "m.text", "body": format!("Message {number} of room {n}.") });
            connection.ok("PUT", &send_path(room, &format!("{n}-{number}")), &body.to_string()).await?;
            event_ids.push(event_id(connection)?);
        }
        Ok(event_ids)
    })
    .await
    .context("sending messages")
}

/// The event ID of the last answer.
pub fn event_id(connection: &Connection) -> anyhow::Result<String> {
    let event_id = connection.json()?["event_id"].as_str().map(str::to_owned);

    event_id.context("what was sent has an event ID")
}

/// A connection for each of some accounts.
pub async fn connections<'a>(
    url: &str,
    accounts: impl IntoIterator<Item = &'a Account>,
) -> anyhow::Result<Vec<Connection>> {
    try_join_all(accounts.into_iter().map(|account| Connection::open(url, account))).await
}

/// A device that syncs.
#[derive(Debug)]
pub struct Syncer {
    /// Its connection, whose last answer is that to the last sync.
    pub connection: Connection,
    /// Where it is.
    pub since: String,
    /// What its syncs ask for beside that.
    query: &'static str,
}

impl Syncer {
    /// Syncs for the first time, and asks for more than that each time.
    pub async fn start(mut connection: Connection, query: &'static str) -> anyhow::Result<Self> {
        let since = sync(&mut connection, query).await?;

        Ok(Self { connection, since, query })
    }

    /// Syncs on, and waits for news up to some milliseconds.
    pub async fn step(&mut self, timeout: usize) -> anyhow::Result<()> {
        let query = format!("&timeout={timeout}&since={}{}", path_segment(&self.since), self.query);
        self.since = sync(&mut self.connection, &query).await?;

        Ok(())
    }

    /// Syncs on until an answer has what was wanted.
    pub async fn until(&mut self, mut wanted: impl FnMut(&Connection) -> bool) -> anyhow::Result<()> {
        loop {
            self.step(30_000).await?;
            if wanted(&self.connection) {
                return Ok(());
            }
        }
    }
}

/// Devices that have synced once.
pub async fn syncers<'a>(
    url: &str,
    accounts: impl IntoIterator<Item = &'a Account>,
) -> anyhow::Result<Vec<Syncer>> {
    syncers_asking(url, accounts, "").await
}

/// Devices that have synced once and ask for more than that each time.
pub async fn syncers_asking<'a>(
    url: &str,
    accounts: impl IntoIterator<Item = &'a Account>,
    query: &'static str,
) -> anyhow::Result<Vec<Syncer>> {
    let connections = connections(url, accounts).await?.into_iter();

    try_join_all(connections.map(|connection| Syncer::start(connection, query))).await
}

/// Syncs, with more of a query, and returns the token for the next time.
pub async fn sync(connection: &mut Connection, query: &str) -> anyhow::Result<String> {
    connection.ok("GET", &format!("/_matrix/client/v3/sync?x=1{query}"), "").await?;
    let token = connection.json()?["next_batch"].as_str().map(str::to_owned);

    token.context("every sync has a next_batch")
}
