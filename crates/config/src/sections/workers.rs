//! Which process does what.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use url::Url;

use super::http::Listener;
use crate::{
    section::{all_defaulted, section},
    value::{OneOrMany, Secret, choice},
};

/// The name of the main process in `instance_map` and in lists of instances.
pub const MAIN: &str = "main";

section! {
    /// The processes of this server, and the duties of each. The main process does what no other was given.
    ///
    /// The `worker_…` options stand in a worker's own file, all others in the file that the processes share.
    Workers {
        /// What kind of worker the process is. Without it, the process is the main process.
        worker_app: Option<WorkerApp> = null,
        /// The worker's name, which no other process has.
        worker_name: Option<String> = null,
        /// What the worker listens on; the options of `listeners`.
        worker_listeners: Vec<Listener> = [],
        /// The worker's `log_config`.
        worker_log_config: Option<PathBuf> = null,
        /// Where the worker writes its process ID.
        worker_pid_file: Option<PathBuf> = null,
        /// The secret by which the processes know each other. It is needed when a `replication` listener can be reached
        /// from other machines.
        worker_replication_secret: Option<Secret> = null,
        /// Where the `replication` listener of each process is, by the process's name; the main process is `main`.
        instance_map: BTreeMap<String, Instance> = {},
        /// Which processes write which streams.
        stream_writers: StreamWriters = {},
        /// Whether the main process takes part in push notifications, when no `pusher_instances` are named.
        start_pushers: bool = true,
        /// The processes that send push notifications. Users are spread over them.
        pusher_instances: OneOrMany<String> = [],
        /// Whether the main process takes part in sending to other servers, when no `federation_sender_instances` are
        /// named.
        send_federation: bool = true,
        /// The processes that send to other servers. Destinations are spread over them; the list may change while they
        /// run.
        federation_sender_instances: OneOrMany<String> = [],
        /// The only processes that call other servers; the others ask them to. Default: every process calls by itself.
        outbound_federation_restricted_to: OneOrMany<String> = [],
        /// The older form of `notify_appservices_from_worker`: `false` leaves it to workers of the kind `appservice`.
        notify_appservices: bool = true,
        /// The older form of `update_user_directory_from_worker`: `false` leaves it to workers of the kind `user_dir`.
        update_user_directory: bool = true,
        /// The processes that send to application services; these are spread over them. Default: the main process.
        notify_appservices_from_worker: OneOrMany<String> = [],
        /// The processes that keep the user directory, one at a time. Default: the main process.
        update_user_directory_from_worker: OneOrMany<String> = [],
        /// The processes that run background jobs, each job in one of them. Default: the main process.
        run_background_tasks_on: OneOrMany<String> = [],
        /// Accepted for Synapse's sake: requests that a worker can't answer are forwarded by `instance_map.main`.
        worker_main_http_uri: Option<Url> = null,
    }
}

section! {
    /// Where a process listens for the others.
    Instance {
        /// The host. Either this and `port` or `path` must be given.
        host: Option<String> = null,
        /// The port.
        port: Option<u16> = null,
        /// The path of a unix socket, instead of host and port.
        path: Option<PathBuf> = null,
        /// Whether to speak TLS.
        tls: bool = false,
    }
}

section! {
    /// The processes that write each stream. Where several are named, rooms or users are spread over them.
    StreamWriters {
        /// Events of rooms.
        events: OneOrMany<String> = ["main"],
        /// Typing notifications.
        typing: OneOrMany<String> = ["main"],
        /// Messages from device to device.
        to_device: OneOrMany<String> = ["main"],
        /// Account data.
        account_data: OneOrMany<String> = ["main"],
        /// Receipts.
        receipts: OneOrMany<String> = ["main"],
        /// Presence.
        presence: OneOrMany<String> = ["main"],
        /// Push rules.
        push_rules: OneOrMany<String> = ["main"],
        /// Changes of devices and their keys.
        device_lists: OneOrMany<String> = ["main"],
        /// Subscriptions of threads.
        thread_subscriptions: OneOrMany<String> = ["main"],
    }
}

choice! {
    /// What kind of worker a process is.
    WorkerApp: "a kind of worker" {
        /// The main process.
        Homeserver = "synapse.app.homeserver",
        /// Any requests; and any duty that the shared file gives it by name.
        GenericWorker = "synapse.app.generic_worker" | "synapse.app.synchrotron" | "synapse.app.federation_reader"
            | "synapse.app.client_reader" | "synapse.app.event_creator",
        /// Push notifications.
        Pusher = "synapse.app.pusher",
        /// Traffic to application services.
        Appservice = "synapse.app.appservice",
        /// Traffic to other servers.
        FederationSender = "synapse.app.federation_sender",
        /// Media.
        MediaRepository = "synapse.app.media_repository",
        /// Search for users.
        UserDir = "synapse.app.user_dir",
        /// Uploads of keys.
        FrontendProxy = "synapse.app.frontend_proxy",
    }
}

all_defaulted!(Workers, StreamWriters, Instance);

/// Which process this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// What it was started for.
    pub app: WorkerApp,
    /// Its name: `main`, or the `worker_name`.
    pub name: String,
}

impl Process {
    /// Whether it is the main process.
    #[must_use]
    pub fn is_main(&self) -> bool {
        self.app == WorkerApp::Homeserver
    }
}

/// What a process does besides answering requests. Where several processes have a duty, leases share it out among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each duty is there or not, independent of the others")]
pub struct Duties {
    /// Sends push notifications.
    pub push: bool,
    /// Sends to other servers.
    pub send_federation: bool,
    /// Sends to application services.
    pub appservices: bool,
    /// Keeps the user directory.
    pub user_directory: bool,
    /// Runs background jobs.
    pub background_tasks: bool,
    /// May call other servers by itself.
    pub outbound_federation: bool,
}

impl Workers {
    /// Which process the files were read for.
    #[must_use]
    pub fn process(&self) -> Process {
        match self.worker_app {
            None | Some(WorkerApp::Homeserver) => {
                Process { app: WorkerApp::Homeserver, name: MAIN.to_owned() }
            }
            // Synapse takes the app for the name where none is given; a check asks for one.
            Some(app) => {
                Process { app, name: self.worker_name.clone().unwrap_or_else(|| app.as_str().to_owned()) }
            }
        }
    }

    /// The duties of `process`.
    #[must_use]
    pub fn duties(&self, process: &Process) -> Duties {
        // A worker of the fitting kind takes part also when the main process was not told to leave the duty to it:
        // the leases let any number of processes share it.
        let has = |named: &[String], main_takes_part: bool, app: Option<WorkerApp>| {
            if named.is_empty() {
                (process.is_main() && main_takes_part) || Some(process.app) == app
            } else {
                named.contains(&process.name)
            }
        };
        Duties {
            push: has(&self.pusher_instances, self.start_pushers, Some(WorkerApp::Pusher)),
            send_federation: has(
                &self.federation_sender_instances,
                self.send_federation,
                Some(WorkerApp::FederationSender),
            ),
            appservices: has(
                &self.notify_appservices_from_worker,
                self.notify_appservices,
                Some(WorkerApp::Appservice),
            ),
            user_directory: has(
                &self.update_user_directory_from_worker,
                self.update_user_directory,
                Some(WorkerApp::UserDir),
            ),
            background_tasks: has(&self.run_background_tasks_on, true, None),
            outbound_federation: self.outbound_federation_restricted_to.is_empty()
                || self.outbound_federation_restricted_to.contains(&process.name),
        }
    }
}

impl StreamWriters {
    /// The streams by name, each with its writers.
    pub fn by_stream(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        [
            ("events", &*self.events),
            ("typing", &*self.typing),
            ("to_device", &*self.to_device),
            ("account_data", &*self.account_data),
            ("receipts", &*self.receipts),
            ("presence", &*self.presence),
            ("push_rules", &*self.push_rules),
            ("device_lists", &*self.device_lists),
            ("thread_subscriptions", &*self.thread_subscriptions),
        ]
        .into_iter()
    }

    /// Whether any stream is written by another process than the main one.
    #[must_use]
    pub fn any_worker(&self) -> bool {
        self.by_stream().any(|(_, writers)| writers.iter().any(|writer| writer != MAIN))
    }

    /// The names of all writers.
    #[must_use]
    pub fn all(&self) -> BTreeSet<&str> {
        self.by_stream().flat_map(|(_, writers)| writers.iter().map(String::as_str)).collect()
    }
}
