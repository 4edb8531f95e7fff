//! The services of the process, put together from the configuration.

use std::sync::Arc;

use myelin_accounts::{AccountData, Accounts, Filters};
use myelin_client_api::{AccountProfiles, Limits, Services, Settings};
use myelin_config::Config;
use myelin_devices::{Devices, KeyBackups, ToDevice};
use myelin_events::ServerSigningKey;
use myelin_leases::{LeaseError, Session};
use myelin_push::{PushRules, Pushers};
use myelin_replication::{Feed, Stream, StreamWriter};
use myelin_rooms::Rooms;
use myelin_storage::{Database, Result, strings::Strings};
use myelin_types::Clock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Memory for the account data of active users, in bytes.
const ACCOUNT_DATA_CACHE: u64 = 32 << 20;
/// Strings whose numbers are remembered: user ids, event types, state keys.
const STRINGS: usize = 200_000;

/// All services, their streams opened and written under `session`.
pub(crate) async fn compose(
    config: &Config,
    database: &Database,
    session: &Session,
    signing_key: Arc<ServerSigningKey>,
) -> Result<Services, LeaseError> {
    let clock = Clock::System;
    let settings = Settings::new(config);
    let (feed, writer) = stream(database, session).await?;
    let account_data = AccountData::new(database.clone(), writer, &feed, ACCOUNT_DATA_CACHE);
    let (feed, writer) = stream(database, session).await?;
    let devices = Devices::new(database.clone(), feed, writer);
    let (feed, writer) = stream(database, session).await?;
    let to_device = ToDevice::new(database.clone(), clock.clone(), feed, writer);
    let (feed, writer) = stream(database, session).await?;
    let push_rules = PushRules::new(database.clone(), feed, writer);
    let accounts = Accounts::new(settings.accounts_config(), database.clone(), clock.clone());
    let (_, writer) = stream(database, session).await?;
    let rooms = Rooms::start(
        database.clone(),
        session,
        writer,
        Strings::new(STRINGS),
        settings.rooms_options(signing_key),
        Arc::new(AccountProfiles(accounts.clone())),
        Arc::new(push_rules.clone()),
    );
    Ok(Services {
        rooms: rooms.await?,
        to_device,
        key_backups: KeyBackups::new(database.clone()),
        push_rules,
        pushers: Pushers::new(database.clone(), clock.clone()),
        limits: Limits::new(&settings.rate_limits, &clock),
        accounts,
        account_data,
        filters: Filters::new(database.clone()),
        devices,
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
    let (accounts, to_device) = (services.accounts.clone(), services.to_device.clone());
    let stopped = stop.clone();
    let work = async move {
        tokio::join!(accounts.run(stopped.cancelled()), to_device.run(stopped.cancelled()));
    };
    (stop, tokio::spawn(work))
}
