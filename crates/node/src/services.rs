//! The services of the process, put together from the configuration.

use std::sync::Arc;

use myelin_accounts::{AccountData, Accounts, Filters};
use myelin_client_api::{AccountProfiles, Limits, Services, Settings};
use myelin_config::Config;
use myelin_devices::{Devices, KeyBackups, ToDevice};
use myelin_ephemeral::{Presence, Receipts, Typing};
use myelin_events::ServerSigningKey;
use myelin_leases::{LeaseError, Session};
use myelin_push::{PushRules, Pushers};
use myelin_replication::{Feed, Notices, NoticesError, NoticesOptions, Stream, StreamWriter};
use myelin_rooms::{Rooms, read::RoomReader};
use myelin_storage::{Database, StorageError, strings::Strings};
use myelin_sync::{Sync, SyncServices};
use myelin_types::Clock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Memory for the account data of active users, in bytes.
const ACCOUNT_DATA_CACHE: u64 = 32 << 20;
/// Memory for the current states of rooms that are read, in bytes.
const ROOM_STATE_CACHE: u64 = 64 << 20;
/// Strings whose numbers are remembered: user ids, event types, state keys.
const STRINGS: usize = 200_000;

/// All services, their streams opened and written under `session`, and joined with those of other processes if there is a
/// Redis.
pub(crate) async fn compose(
    config: &Config,
    database: &Database,
    session: &Session,
    signing_key: Arc<ServerSigningKey>,
    redis: Option<NoticesOptions>,
) -> Result<(Services, Option<Notices>), ComposeError> {
    let mut streams = Streams { database, session, joining: Vec::new() };
    let clock = Clock::System;
    let settings = Settings::new(config);
    let (account_data_feed, writer) = streams.open().await?;
    let account_data = AccountData::new(database.clone(), writer, &account_data_feed, ACCOUNT_DATA_CACHE);
    let (feed, writer) = streams.open().await?;
    let devices = Devices::new(database.clone(), feed, writer);
    let (feed, writer) = streams.open().await?;
    let to_device = ToDevice::new(database.clone(), clock.clone(), feed, writer);
    let (feed, writer) = streams.open().await?;
    let push_rules = PushRules::new(database.clone(), feed, writer);
    let accounts = Accounts::new(settings.accounts_config(), database.clone(), clock.clone());
    let (feed, writer) = streams.open().await?;
    let receipts = Receipts::new(database.clone(), feed, writer);
    let typing = Typing::new(clock.clone());
    let (feed, writer) = streams.open().await?;
    let (options, me) = (settings.presence_options(), session.writer());
    let presence = Presence::open(options, clock.clone(), database.clone(), feed, writer, me).await?;
    let (events, writer) = streams.open().await?;
    let strings = Strings::new(STRINGS);
    let room_reader =
        RoomReader::new(database.clone(), strings.clone(), &events, clock.clone(), ROOM_STATE_CACHE);
    let sync = Sync::over(SyncServices {
        options: settings.sync_options(),
        clock: clock.clone(),
        database: database.clone(),
        strings: strings.clone(),
        events,
        account_data_feed,
        account_data: account_data.clone(),
        push_rules: push_rules.clone(),
        devices: devices.clone(),
        to_device: to_device.clone(),
        receipts: receipts.clone(),
        typing: typing.clone(),
        presence: presence.clone(),
        room_reader: room_reader.clone(),
    });
    let rooms = Rooms::start(
        database.clone(),
        session,
        writer,
        strings,
        settings.rooms_options(signing_key),
        Arc::new(AccountProfiles(accounts.clone())),
        Arc::new(push_rules.clone()),
    );
    let services = Services {
        rooms: rooms.await?,
        room_reader,
        receipts,
        typing,
        presence,
        sync,
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
    };
    Ok((services, streams.join(redis)?))
}

/// The services can't be put together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ComposeError {
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The leases can't be had.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The options for Redis make no sense.
    #[error(transparent)]
    Notices(#[from] NoticesError),
}

/// Joins a stream with those of other processes.
type Join = Box<dyn FnOnce(&Notices) + Send>;

/// Opens streams, and has them join the other processes once all that reads them is there.
struct Streams<'a> {
    database: &'a Database,
    session: &'a Session,
    joining: Vec<Join>,
}

impl Streams<'_> {
    async fn open<S: Stream>(&mut self) -> Result<(Feed<S>, StreamWriter<S>), StorageError> {
        let feed = Feed::open(self.database.clone()).await?;
        let writer = StreamWriter::start(self.database.clone(), self.session.clone(), feed.clone());
        let joined = feed.clone();
        self.joining.push(Box::new(move |notices| notices.join(&joined)));
        Ok((feed, writer))
    }

    fn join(self, redis: Option<NoticesOptions>) -> Result<Option<Notices>, NoticesError> {
        let notices = redis.map(Notices::start).transpose()?;
        if let Some(notices) = &notices {
            self.joining.into_iter().for_each(|join| join(notices));
        }
        Ok(notices)
    }
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
