//! The services of the process, put together from the configuration.

use myelin_accounts::{AccountData, Accounts, Filters};
use myelin_client_api::{Limits, Services, Settings};
use myelin_config::Config;
use myelin_devices::{Devices, KeyBackups, ToDevice};
use myelin_leases::Session;
use myelin_push::{PushRules, Pushers};
use myelin_replication::{Feed, Stream, StreamWriter};
use myelin_rooms::{EventStream, read::RoomReader};
use myelin_storage::{Database, Result, strings::Strings};
use myelin_types::Clock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Memory for the account data of active users, in bytes.
const ACCOUNT_DATA_CACHE: u64 = 32 << 20;
/// Memory for the current states of rooms that are read, in bytes.
const ROOM_STATE_CACHE: u64 = 64 << 20;
/// Types, state keys and user IDs whose numbers are kept in memory.
const STRINGS: usize = 100_000;

/// All services, their streams opened and written under `session`.
pub(crate) async fn compose(config: &Config, database: &Database, session: &Session) -> Result<Services> {
    let clock = Clock::System;
    let settings = Settings::new(config);
    let (feed, writer) = stream(database, session).await?;
    let account_data = AccountData::new(database.clone(), writer, &feed, ACCOUNT_DATA_CACHE);
    let (feed, writer) = stream(database, session).await?;
    let devices = Devices::new(database.clone(), feed, writer);
    let events = Feed::<EventStream>::open(database.clone()).await?;
    let strings = Strings::new(STRINGS);
    let room_reader = RoomReader::new(database.clone(), strings, &events, clock.clone(), ROOM_STATE_CACHE);
    let (feed, writer) = stream(database, session).await?;
    let to_device = ToDevice::new(database.clone(), clock.clone(), feed, writer);
    let (feed, writer) = stream(database, session).await?;
    Ok(Services {
        to_device,
        key_backups: KeyBackups::new(database.clone()),
        push_rules: PushRules::new(database.clone(), feed, writer),
        pushers: Pushers::new(database.clone(), clock.clone()),
        limits: Limits::new(&settings.rate_limits, &clock),
        accounts: Accounts::new(settings.accounts_config(), database.clone(), clock.clone()),
        account_data,
        filters: Filters::new(database.clone()),
        devices,
        room_reader,
        settings,
        clock,
        database: database.clone(),
    })
}

async fn stream<S: Stream>(database: &Database, session: &Session) -> Result<(Feed<S>, StreamWriter<S>)> {
    let feed = Feed::open(database.clone()).await?;
    let writer = StreamWriter::start(database.clone(), session.clone(), feed.clone());
    Ok((feed, writer))
}

/// Starts the work that no request waits for; it ends some time after the token is canceled.
pub(crate) fn start_background(services: &Services) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let accounts = services.accounts.clone();
    let stopped = stop.clone().cancelled_owned();
    (stop, tokio::spawn(async move { accounts.run(stopped).await }))
}
