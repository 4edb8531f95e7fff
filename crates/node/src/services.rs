//! The services of the process, put together from the configuration.

use std::{sync::Arc, time::Duration};

use myelin_accounts::{AccountData, Accounts, Filters};
use myelin_client_api::{AccountProfiles, Limits, Services, Settings};
use myelin_config::Config;
use myelin_devices::{Devices, KeyBackups, ToDevice};
use myelin_ephemeral::{Presence, Receipts, Typing, TypingUpdate};
use myelin_events::ServerSigningKey;
use myelin_leases::{LeaseError, Session};
use myelin_push::{PushRules, Pushers};
use myelin_replication::{Feed, Horizon, Notices, Stream, StreamWriter};
use myelin_rooms::{Rooms, read::RoomReader};
use myelin_storage::{Database, StorageError, strings::Strings};
use myelin_sync::{Sync, SyncServices};
use myelin_types::Clock;

use crate::status::Queues;

/// Memory for the account data of active users, in bytes.
const ACCOUNT_DATA_CACHE: u64 = 32 << 20;
/// Memory for the current states of rooms that are read, in bytes.
const ROOM_STATE_CACHE: u64 = 64 << 20;
/// Strings whose numbers are remembered: user ids, event types, state keys.
const STRINGS: usize = 200_000;

/// The channel by which processes tell each other who is typing.
const TYPING: &str = "typing";

/// What services are made from.
pub(crate) struct Parts<'a> {
    pub config: &'a Config,
    pub database: &'a Database,
    pub session: &'a Session,
    pub signing_key: Arc<ServerSigningKey>,
    /// The other processes, if there are any.
    pub notices: Option<&'a Notices>,
    pub horizon: &'a Horizon,
    pub queues: &'a Queues,
}

/// All services, their streams opened and written under the session, and joined with those of other processes.
pub(crate) async fn compose(parts: Parts<'_>) -> Result<Services, ComposeError> {
    let Parts { config, database, session, signing_key, notices, horizon, queues } = parts;
    let mut streams = Streams { database, session, horizon, queues, joining: Vec::new() };
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
    if notices.is_some() {
        accounts.share_revocations(&feed, writer);
    }
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
    let mut rooms_options = settings.rooms_options(signing_key);
    rooms_options.takes_part = config.workers.stream_writers.events.contains(&session.name().to_owned());
    let rooms = Rooms::start(
        database.clone(),
        session,
        writer,
        strings,
        rooms_options,
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
    if let Some(notices) = notices {
        streams.join(notices);
        let typing = services.typing.clone();
        let teller = notices.open(TYPING, move |update: TypingUpdate| {
            typing.take(update.room_nid, &update.user_id, update.timeout_ms.map(Duration::from_millis));
        });
        services.typing.publish_to(move |update| teller.tell(update));
    }
    Ok(services)
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
}

/// Joins a stream with those of other processes.
type Join = Box<dyn FnOnce(&Notices) + Send>;

/// Opens streams, and has them join the other processes once all that reads them is there.
struct Streams<'a> {
    database: &'a Database,
    session: &'a Session,
    horizon: &'a Horizon,
    queues: &'a Queues,
    joining: Vec<Join>,
}

impl Streams<'_> {
    async fn open<S: Stream>(&mut self) -> Result<(Feed<S>, StreamWriter<S>), StorageError> {
        let feed = Feed::open(self.database.clone()).await?;
        let writer = StreamWriter::start(self.database.clone(), self.session.clone(), feed.clone());
        self.horizon.add(&feed);
        let queue = writer.clone();
        self.queues.add(format!("write {}", S::NAME), move || queue.waiting());
        let joined = feed.clone();
        self.joining.push(Box::new(move |notices| notices.join(&joined)));
        Ok((feed, writer))
    }

    fn join(self, notices: &Notices) {
        self.joining.into_iter().for_each(|join| join(notices));
    }
}
