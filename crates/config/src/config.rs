//! All sections together.

use crate::{
    document::{Map, Origin},
    fault::Findings,
    section::{self, Field, Section},
    sections::*,
};

/// A section of the file, as the reference shows it.
#[derive(Clone, Debug)]
pub struct SectionDoc {
    /// The doc comment of the section, line by line.
    pub doc: &'static [&'static str],
    /// The top-level keys of the section.
    pub fields: Vec<Field>,
}

/// Declares `Config`. A `flat` section's options are top-level keys; a `keyed` one is the value of the key of its name.
macro_rules! config {
    ($( $(#[doc = $doc:literal])* $name:ident: $kind:ident $type:ident $(= $default:tt)? ),* $(,)?) => {
        /// The configuration of one process, checked and ready for use. Parts receive their own section, never the whole.
        #[derive(Clone, Debug)]
        pub struct Config {
            $( $(#[doc = $doc])* pub $name: $type, )*
        }

        impl Config {
            /// Reads all sections from the top level of the merged files; `None` when a fault was recorded.
            pub(crate) fn read(root: &Map, origin: &Origin, findings: &mut Findings) -> Option<Self> {
                $( let $name: Option<$type> = config!(@read $kind $name $type [$($default)?] root origin findings); )*
                Some(Self { $( $name: $name? ),* })
            }
        }

        /// The sections in the order in which the reference shows them.
        #[must_use]
        pub fn reference_sections() -> Vec<SectionDoc> {
            vec![$( config!(@doc $kind $name $type [$($default)?]) ),*]
        }
    };
    (@read flat $name:ident $type:ident [] $root:ident $origin:ident $findings:ident) => {
        <$type as Section>::read($root, $origin, $findings)
    };
    (@read keyed $name:ident $type:ident [$($default:tt)?] $root:ident $origin:ident $findings:ident) => {
        section::field($root, $origin, $findings, stringify!($name), section::default!($($default)?))
    };
    (@doc flat $name:ident $type:ident []) => {
        SectionDoc { doc: <$type as Section>::DOC, fields: <$type as Section>::fields() }
    };
    (@doc keyed $name:ident $type:ident [$($default:tt)?]) => {
        SectionDoc {
            doc: &[],
            fields: vec![Field {
                key: stringify!($name),
                doc: <$type as Section>::DOC,
                default: section::default!($($default)?),
                shape: <$type as crate::value::Parse>::shape(),
            }],
        }
    };
}

config! {
    /// The server's name and its face to the world.
    server: flat Server,
    /// What the process listens on. For a worker, `listeners` are its `worker_listeners`.
    http: flat Http,
    /// PostgreSQL.
    database: keyed Database,
    /// Redis.
    redis: keyed Redis = {},
    /// Logs and metrics. For a worker, `log_config` is its `worker_log_config`.
    logging: flat Logging,
    /// Signing keys and secrets.
    keys: flat Keys,
    /// How accounts come to be.
    registration: flat Registration,
    /// Passwords, sessions and tokens.
    auth: flat Auth,
    /// How often users and servers may do things.
    rate_limits: flat RateLimits,
    /// Rooms and their members.
    rooms: flat Rooms,
    /// Aliases and the public list of rooms.
    room_directory: flat RoomDirectory,
    /// Profiles and devices.
    users: flat Users,
    /// Who is online.
    presence: keyed Presence = {},
    /// Search for users.
    user_directory: keyed UserDirectory = {},
    /// Push notifications.
    push: keyed Push = {},
    /// Other servers.
    federation: flat Federation,
    /// Media.
    media: flat Media,
    /// Calls.
    voip: flat Voip,
    /// Application services.
    appservices: flat Appservices,
    /// How much is kept in memory.
    caches: keyed Caches = {},
    /// Which process does what.
    workers: flat Workers,
}

impl Config {
    /// Which process this is.
    #[must_use]
    pub fn process(&self) -> Process {
        self.workers.process()
    }

    /// What this process does besides answering requests.
    #[must_use]
    pub fn duties(&self) -> Duties {
        self.workers.duties(&self.process())
    }

    /// Puts what a worker's own options say in the place of what they replace.
    pub(crate) fn apply_worker_options(&mut self) {
        if self.process().is_main() {
            return;
        }
        self.http.listeners.clone_from(&self.workers.worker_listeners);
        self.server.pid_file.clone_from(&self.workers.worker_pid_file);
        if self.workers.worker_log_config.is_some() {
            self.logging.log_config.clone_from(&self.workers.worker_log_config);
        }
    }
}

/// Each top-level key that some section reads, `<key>_path` of secrets included.
pub(crate) fn served_keys() -> Vec<String> {
    reference_sections().iter().flat_map(|section| section::keys_of(&section.fields)).collect()
}
