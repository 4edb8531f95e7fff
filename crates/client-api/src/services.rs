//! The services of a process, put together over its streams.

use std::sync::Arc;

use myelin_accounts::{AccountData, Accounts, Filters, Profiles};
use myelin_devices::{Devices, KeyBackups, ToDevice};
use myelin_ephemeral::{Presence, Receipts, Typing, TypingMessage};
use myelin_events::ServerSigningKey;
use myelin_leases::{LeaseError, Session};
use myelin_push::{PushRules, Pushers};
use myelin_replication::{Feed, Horizon, Notices, Stream, StreamWriter};
use myelin_rooms::{Rooms, RoomsOptions, read::RoomReader};
use myelin_storage::{Database, StorageError, strings::Strings};
use myelin_sync::{Sync, SyncServices};
use myelin_types::Clock;

use crate::{Limits, Settings, adapters::AccountProfiles};

/// Memory for the account data of active users, in bytes.
const ACCOUNT_DATA_CACHE: u64 = 32 << 20;
/// Memory for the current states of rooms that are read, in bytes.
const ROOM_STATE_CACHE: u64 = 64 << 20;
/// Strings whose numbers are remembered: user ids, event types, state keys.
const STRINGS: usize = 200_000;

/// The channel by which processes tell each other who is typing.
const TYPING: &str = "typing";

/// What handlers work with. [`Services::compose`] makes all of them.
#[derive(Debug)]
pub struct Services {
    /// The sections of the configuration that handlers look at.
    pub settings: Settings,
    /// The time.
    pub clock: Clock,
    /// For what has no service of its own.
    pub database: Database,
    /// How often what may be done.
    pub limits: Limits,
    /// Users, sessions, tokens.
    pub accounts: Accounts,
    /// What users say of themselves.
    pub profiles: Profiles,
    /// What clients keep with accounts.
    pub account_data: AccountData,
    /// The filters of clients.
    pub filters: Filters,
    /// Keys of devices and users.
    pub devices: Devices,
    /// Everything that changes rooms.
    pub rooms: Rooms,
    /// Rooms, as their members see them.
    pub room_reader: RoomReader,
    /// Up to where users have read.
    pub receipts: Receipts,
    /// Who is typing.
    pub typing: Typing,
    /// Who is here.
    pub presence: Presence,
    /// What is new for a user.
    pub sync: Sync,
    /// Messages to devices.
    pub to_device: ToDevice,
    /// Backups of room keys.
    pub key_backups: KeyBackups,
    /// What users want to be notified of.
    pub push_rules: PushRules,
    /// Where to.
    pub pushers: Pushers,
}

/// What services are made from.
#[expect(missing_debug_implementations, reason = "the horizon and the notices have nothing to show")]
pub struct Parts<'a> {
    /// The sections of the configuration.
    pub settings: Settings,
    /// The time.
    pub clock: Clock,
    /// The database.
    pub database: &'a Database,
    /// The registration under which streams are written.
    pub session: &'a Session,
    /// What events are signed with.
    pub signing_key: Arc<ServerSigningKey>,
    /// Whether the process takes a share of writing the rooms.
    pub writes_rooms: bool,
    /// What brings the feeds to what is committed elsewhere.
    pub horizon: &'a Horizon,
    /// The other processes, if there are any.
    pub notices: Option<&'a Notices>,
}

/// How many writes wait for the next transaction of a stream.
pub type Waiting = Box<dyn Fn() -> usize + Send + std::marker::Sync>;

impl Services {
    /// All services, their streams opened and written under the session, and joined with those of other processes. Beside them,
    /// each stream's name and how many writes wait there.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn compose(parts: Parts<'_>) -> Result<(Self, Vec<(&'static str, Waiting)>), LeaseError> {
        let Parts { settings, clock, database, session, signing_key, writes_rooms, horizon, notices } = parts;
        let mut streams = Streams { database, session, horizon, waiting: Vec::new(), joining: Vec::new() };
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
        let profiles = Profiles::new(database.clone(), &feed, writer);
        let (feed, writer) = streams.open().await?;
        let receipts = Receipts::new(database.clone(), feed, writer);
        let typing = Typing::new(clock.clone(), session.writer(), session.epoch());
        let speaking = session.clone();
        typing.speak_while(move || speaking.is_heard());
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
            RoomsOptions {
                takes_part: writes_rooms,
                clock: clock.clone(),
                ..settings.rooms_options(signing_key)
            },
            Arc::new(AccountProfiles(profiles.clone())),
            Arc::new(push_rules.clone()),
        );
        let rooms = rooms.await?;
        let waiting = streams.join(notices);
        if let Some(notices) = notices {
            share_typing(&typing, notices);
        }
        let services = Self {
            rooms,
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
            profiles,
            account_data,
            filters: Filters::new(database.clone()),
            devices,
            settings,
            clock,
            database: database.clone(),
        };
        Ok((services, waiting))
    }
}

/// Who is typing here is told to the other processes, and the other way round.
fn share_typing(typing: &Typing, notices: &Notices) {
    let taking = typing.clone();
    let teller = notices.open(TYPING, move |message: TypingMessage| taking.hear(message));
    typing.publish_to(move |message| teller.tell(message));
}

/// Joins a stream with those of other processes.
type Join = Box<dyn FnOnce(&Notices) + Send>;

/// Opens streams, and has them join the other processes once all that reads them is there.
struct Streams<'a> {
    database: &'a Database,
    session: &'a Session,
    horizon: &'a Horizon,
    waiting: Vec<(&'static str, Waiting)>,
    joining: Vec<Join>,
}

impl Streams<'_> {
    async fn open<S: Stream>(&mut self) -> Result<(Feed<S>, StreamWriter<S>), StorageError> {
        let feed = Feed::open(self.database.clone()).await?;
        let writer = StreamWriter::start(self.database.clone(), self.session.clone(), feed.clone());
        self.horizon.add(&feed);
        let queue = writer.clone();
        self.waiting.push((S::NAME, Box::new(move || queue.waiting())));
        let joined = feed.clone();
        self.joining.push(Box::new(move |notices| notices.join(&joined)));
        Ok((feed, writer))
    }

    fn join(self, notices: Option<&Notices>) -> Vec<(&'static str, Waiting)> {
        if let Some(notices) = notices {
            self.joining.into_iter().for_each(|join| join(notices));
        }
        self.waiting
    }
}
