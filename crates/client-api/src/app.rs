//! What handlers work with.

use std::{ops::Deref, sync::Arc};

use myelin_accounts::{AccountData, Accounts, Filters};
use myelin_devices::{Devices, KeyBackups, ToDevice};
use myelin_push::{PushRules, Pushers};
use myelin_rooms::Rooms;
use myelin_storage::Database;
use myelin_types::Clock;

use crate::{Limits, Settings};

/// The services of a process. Clones share them.
#[derive(Clone, Debug)]
pub struct App(Arc<Services>);

/// What an [`App`] is made of; the daemon fills it.
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
    /// Users, sessions, tokens, profiles.
    pub accounts: Accounts,
    /// What clients keep with accounts.
    pub account_data: AccountData,
    /// The filters of clients.
    pub filters: Filters,
    /// Keys of devices and users.
    pub devices: Devices,
    /// Everything that changes rooms.
    pub rooms: Rooms,
    /// Messages to devices.
    pub to_device: ToDevice,
    /// Backups of room keys.
    pub key_backups: KeyBackups,
    /// What users want to be notified of.
    pub push_rules: PushRules,
    /// Where to.
    pub pushers: Pushers,
}

impl App {
    /// An app of these services.
    pub fn new(services: Services) -> Self {
        Self(Arc::new(services))
    }
}

impl Deref for App {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}
