//! Configurations of reverse proxies, made from the table of operations.
//!
//! Every process serves or passes on whatever reaches it, so a proxy only makes things cheaper: a user's requests find warm
//! caches, a room's requests its writer's neighbor, uploads stay away from `/sync`. [`Plan::new`] sorts the operations into
//! [`Group`]s, each with the processes that serve it best; the writers for each proxy say the same in its language, so that they
//! can't drift from the table nor from each other.

mod haproxy;
mod kubernetes;
mod nginx;
mod nginx_main;
mod rules;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

pub use self::{nginx_main::nginx_main, rules::Rule};
use crate::{Api, Balance, Operation, Pool, ServedBy, operations};

/// A process as a proxy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its name.
    pub name: String,
    /// What it was made for: one of the roles that are no writers.
    pub role: ServedBy,
    /// The streams that it writes.
    pub writes: Vec<String>,
    /// Where it serves clients, if it does.
    pub client: Option<String>,
    /// Where it serves other servers, if it does.
    pub federation: Option<String>,
    /// Where it serves media, if it does.
    pub media: Option<String>,
}

/// How the proxy is to look from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The name that clients use; `None`: any.
    pub server_name: Option<String>,
    /// The certificate chain and its key; without, HTTP is spoken.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The largest upload, in bytes.
    pub max_upload_bytes: u64,
    /// The names of the processes that write each shard of rooms while all live, where that is known.
    pub writers_of_shards: Vec<String>,
}

/// Operations that go to the same processes by the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name, for instance `client_by_user_on_generic_worker`.
    pub name: String,
    /// What requests must agree in to reach the same process.
    pub balance: Balance,
    /// The addresses that serve it, best first in no order.
    pub servers: Vec<String>,
    /// The address that serves each shard of rooms, where requests go by that: indices of `servers`.
    pub shards: Vec<usize>,
    /// Addresses that serve it while none of the servers does.
    pub backups: Vec<String>,
    /// Its requests may wait for minutes.
    pub waits: bool,
    /// Its requests change rooms; one that is a `PUT` may be sent again.
    pub changes_rooms: bool,
    /// Its requests may be as large as an upload.
    pub uploads: bool,
    /// Which requests it takes.
    pub rules: Vec<Rule>,
}

/// Where everything goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The groups. A request belongs to the first one that has a rule for it.
    pub groups: Vec<Group>,
    /// The group of requests that no rule is for: main, and every other process while that is away.
    pub otherwise: Group,
    /// The group of `/sync` without a `since`, which is told apart by the query.
    pub initial_sync: Group,
    front: Front,
}

/// There is nothing to send requests to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no process has a listener for clients")]
pub struct NoProcess;

/// The group that `/sync` is in.
pub const SYNC: &str = "sync";

impl Plan {
    /// Sorts all operations.
    ///
    /// # Errors
    /// If no process serves clients.
    pub fn new(processes: &[Process], front: Front) -> Result<Self, NoProcess> {
        let everyone = Servers { processes };
        let clients = everyone.list(|process| process.client.clone());
        if clients.is_empty() {
            return Err(NoProcess);
        }
        let mut groups: BTreeMap<String, (Group, Vec<&'static Operation>)> = BTreeMap::new();
        for operation in operations() {
            let name = group_name(operation);
            let entry = groups.entry(name.clone()).or_insert_with(|| {
                let (servers, backups) = everyone.of(operation);
                let group = Group {
                    name,
                    balance: operation.balance,
                    shards: everyone.shards(operation, &front.writers_of_shards, &servers),
                    servers,
                    backups,
                    waits: operation.pool == Pool::Sync,
                    changes_rooms: operation.served_by == ServedBy::EventsWriter,
                    uploads: operation.pool == Pool::Media,
                    rules: Vec::new(),
                };
                (group, Vec::new())
            });
            entry.1.push(operation);
        }
        let groups =
            groups.into_values().map(|(group, operations)| Group { rules: rules::of(&operations), ..group });
        let groups: Vec<Group> = groups.filter(|group| !group.servers.is_empty()).collect();
        let main = everyone.list(|process| process.client.clone().filter(|_| process.role == ServedBy::Main));
        let special = |name: &str, servers: Vec<String>, balance, waits| {
            let backups = clients.iter().filter(|client| !servers.contains(client)).cloned().collect();
            Group {
                name: name.to_owned(),
                balance,
                servers,
                shards: Vec::new(),
                backups,
                waits,
                changes_rooms: false,
                uploads: false,
                rules: Vec::new(),
            }
        };
        let main = if main.is_empty() { clients.clone() } else { main };
        let initial = everyone.initial_sync(&clients);
        Ok(Self {
            groups,
            otherwise: special("otherwise", main, Balance::Any, false),
            initial_sync: special("initial_sync", initial, Balance::User, true),
            front,
        })
    }

    /// The group that takes a request; the initial sync is not told apart.
    pub fn group(&self, method: &str, path: &str) -> &Group {
        let takes = |group: &&Group| group.rules.iter().any(|rule| rule.matches(method, path));
        self.groups.iter().find(takes).unwrap_or(&self.otherwise)
    }

    /// A whole configuration for nginx.
    pub fn nginx(&self) -> String {
        nginx::write(self)
    }

    /// A whole configuration for HAProxy.
    pub fn haproxy(&self) -> String {
        haproxy::write(self)
    }

    /// Services and Ingresses for Kubernetes with ingress-nginx.
    pub fn kubernetes(&self) -> String {
        kubernetes::write(self)
    }
}

fn group_name(operation: &Operation) -> String {
    if operation.pool == Pool::Sync {
        return SYNC.to_owned();
    }
    let word = |text: &str| text.replace([':', '-'], "_");
    let balance = match operation.balance {
        Balance::Any => "any",
        other => other.as_str(),
    };
    let api =
        if operation.api == Api::Federation && operation.pool == Pool::Media { "federation_" } else { "" };
    let (pool, role) = (word(operation.pool.as_str()), word(operation.served_by.as_str()));
    format!("{api}{pool}_by_{balance}_on_{role}")
}

/// The processes, asked for those that serve something.
struct Servers<'a> {
    processes: &'a [Process],
}

impl Servers<'_> {
    fn list(&self, address: impl Fn(&Process) -> Option<String>) -> Vec<String> {
        self.processes.iter().filter_map(address).collect()
    }

    /// The addresses that serve an operation best, and those that serve it too.
    fn of(&self, operation: &Operation) -> (Vec<String>, Vec<String>) {
        let address = |process: &Process| match (operation.api, operation.pool) {
            (_, Pool::Media) => process.media.clone().or_else(|| process.client.clone()),
            (Api::Client, _) => process.client.clone(),
            (Api::Federation, _) => process.federation.clone(),
        };
        let with = |wanted: &dyn Fn(&Process) -> bool| {
            self.list(|process| address(process).filter(|_| wanted(process)))
        };
        let plain_workers =
            || with(&|process| process.role == ServedBy::GenericWorker && process.writes.is_empty());
        let workers = || with(&|process| process.role == ServedBy::GenericWorker);
        let main = || with(&|process| process.role == ServedBy::Main);
        let own = match stream_of(operation.served_by) {
            Some(stream) => with(&|process| process.writes.iter().any(|writes| writes == stream)),
            None if operation.served_by == ServedBy::GenericWorker => plain_workers(),
            None => with(&|process| process.role == operation.served_by),
        };
        let choices: [Vec<String>; 4] = match operation.served_by {
            ServedBy::Main | ServedBy::MediaRepo | ServedBy::UserDir => {
                [own, main(), plain_workers(), workers()]
            }
            _ => [own, plain_workers(), workers(), main()],
        };
        let servers = choices.into_iter().find(|servers| !servers.is_empty()).unwrap_or_default();
        let others = with(&|_| true).into_iter().filter(|other| !servers.contains(other)).collect();
        (servers, others)
    }

    /// Which of the servers writes each shard of rooms, if the operation goes to the writer of a room; nothing if one is unknown.
    fn shards(&self, operation: &Operation, writers: &[String], servers: &[String]) -> Vec<usize> {
        if (operation.served_by, operation.balance) != (ServedBy::EventsWriter, Balance::Room)
            || servers.len() < 2
        {
            return Vec::new();
        }
        let server = |writer: &String| {
            let process = self.processes.iter().find(|process| process.name == *writer)?;
            let address = process.client.as_ref()?;
            servers.iter().position(|server| server == address)
        };
        writers.iter().map(server).collect::<Option<_>>().unwrap_or_default()
    }

    /// Initial syncs take long: where there are workers enough, one of them has nothing else to do.
    fn initial_sync(&self, clients: &[String]) -> Vec<String> {
        let plain = self.list(|process| {
            let is_plain = process.role == ServedBy::GenericWorker && process.writes.is_empty();
            process.client.clone().filter(|_| is_plain)
        });
        match plain.as_slice() {
            [.., last] if plain.len() >= 3 => vec![last.clone()],
            [] => clients.to_vec(),
            _ => plain,
        }
    }
}

/// The stream that a role writes.
fn stream_of(role: ServedBy) -> Option<&'static str> {
    role.as_str().strip_prefix("writer:")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn process(name: &str, role: ServedBy, port: u16, writes: &[&str]) -> Process {
        let address = || Some(format!("127.0.0.1:{port}"));
        Process {
            name: name.to_owned(),
            role,
            writes: writes.iter().map(|&stream| stream.to_owned()).collect(),
            client: address(),
            federation: address(),
            media: matches!(role, ServedBy::Main | ServedBy::MediaRepo).then(address).flatten(),
        }
    }

    pub(crate) fn front() -> Front {
        Front {
            listen: ([127, 0, 0, 1], 8008).into(),
            server_name: None,
            certificate: None,
            max_upload_bytes: 50 << 20,
            writers_of_shards: Vec::new(),
        }
    }

    /// Main, two workers, two writers of rooms, a writer of typing, media and users.
    pub(crate) fn cluster() -> Vec<Process> {
        vec![
            process("main", ServedBy::Main, 1000, &[]),
            process("worker1", ServedBy::GenericWorker, 1001, &[]),
            process("worker2", ServedBy::GenericWorker, 1002, &[]),
            process("events1", ServedBy::GenericWorker, 1003, &["events"]),
            process("events2", ServedBy::GenericWorker, 1004, &["events"]),
            process("typing1", ServedBy::GenericWorker, 1005, &["typing"]),
            process("media1", ServedBy::MediaRepo, 1006, &[]),
            process("users1", ServedBy::UserDir, 1007, &[]),
        ]
    }

    pub(crate) fn request_of(operation: &Operation) -> String {
        let segments = operation.path.split('/').map(|segment| match segment {
            "{roomId}" | "{roomIdOrAlias}" => "!room%3Amyelin.test",
            "{userId}" => "@alice:myelin.test",
            segment if segment.starts_with('{') => "x-1.2~",
            segment => segment,
        });
        segments.collect::<Vec<_>>().join("/")
    }

    #[test]
    fn every_operation_reaches_the_processes_of_its_row() {
        let plan = Plan::new(&cluster(), front()).unwrap();
        for operation in operations() {
            let method = operation.method.as_str();
            for query in ["", "?access_token=x&since=1"] {
                let group = plan.group(method, &format!("{}{query}", request_of(operation)));
                assert_eq!(group.name, group_name(operation), "{}", operation.name);
            }
            let older = request_of(operation).replace("/client/v3/", "/client/r0/");
            assert_eq!(plan.group(method, &older).name, group_name(operation), "{older}");
        }
    }

    #[test]
    fn groups_have_the_servers_that_fit_best() {
        let check = |processes: &[Process], method: &str, path: &str, ports: &[u16]| {
            let plan = Plan::new(processes, front()).unwrap();
            let servers: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
            assert_eq!(plan.group(method, path).servers, servers, "{method} {path}");
        };
        let room = "/_matrix/client/v3/rooms/!r";
        check(&cluster(), "PUT", &format!("{room}/send/m.room.message/1"), &[1003, 1004]);
        check(&cluster(), "PUT", &format!("{room}/state/m.room.name/"), &[1003, 1004]);
        check(&cluster(), "GET", &format!("{room}/state/m.room.name/"), &[1001, 1002]);
        check(&cluster(), "PUT", &format!("{room}/typing/@a:b"), &[1005]);
        check(&cluster(), "POST", &format!("{room}/receipt/m.read/$x"), &[1001, 1002]);
        check(&cluster(), "GET", "/_matrix/client/v3/sync?since=1", &[1001, 1002]);
        check(&cluster(), "POST", "/_matrix/media/v3/upload", &[1006]);
        check(&cluster(), "POST", "/_matrix/client/v3/user_directory/search", &[1007]);
        check(&cluster(), "GET", "/_synapse/admin/v1/register", &[1000]);
        check(&cluster(), "GET", "/nothing", &[1000]);
        let alone = [process("main", ServedBy::Main, 1000, &[])];
        check(&alone, "PUT", &format!("{room}/send/m.room.message/1"), &[1000]);
        check(&alone, "POST", "/_matrix/media/v3/upload", &[1000]);
        assert_eq!(Plan::new(&[], front()), Err(NoProcess));
    }

    #[test]
    fn what_changes_a_room_goes_to_the_writer_of_its_shard() {
        let writers = ["events2", "events1", "events2", "events2"].map(str::to_owned).to_vec();
        let plan = Plan::new(&cluster(), Front { writers_of_shards: writers, ..front() }).unwrap();
        let group = plan.group("PUT", "/_matrix/client/v3/rooms/!r/send/m.room.message/1");
        assert_eq!(group.servers, ["127.0.0.1:1003", "127.0.0.1:1004"]);
        assert_eq!(group.shards, [1, 0, 1, 1]);
        let nginx = plan.nginx();
        let servers = |port: u16| nginx.matches(&format!("server 127.0.0.1:{port} max_fails=0;")).count();
        assert_eq!((servers(1003), servers(1004)), (1, 3));
        let haproxy = plan.haproxy();
        assert!(haproxy.contains("use-server s1 if { var(txn.shard) -m int 0 2 3 }"), "{haproxy}");
        let read = plan.group("GET", "/_matrix/client/v3/rooms/!r/state/m.room.name/");
        assert!(read.shards.is_empty());
        // One that is not known: requests go by a hash, as before.
        let writers = ["events1", "stranger"].map(str::to_owned).to_vec();
        let plan = Plan::new(&cluster(), Front { writers_of_shards: writers, ..front() }).unwrap();
        assert!(plan.groups.iter().all(|group| group.shards.is_empty()));
    }

    #[test]
    fn initial_syncs_have_a_worker_of_their_own_where_there_are_three() {
        let mut processes = cluster();
        let initial = |processes: &[Process]| Plan::new(processes, front()).unwrap().initial_sync.servers;
        assert_eq!(initial(&processes), ["127.0.0.1:1001", "127.0.0.1:1002"]);
        processes.push(process("worker3", ServedBy::GenericWorker, 1010, &[]));
        assert_eq!(initial(&processes), ["127.0.0.1:1010"]);
        assert_eq!(initial(&processes[..1]), ["127.0.0.1:1000"]);
    }
}
