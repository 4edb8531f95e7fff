//! Reads `endpoints.tsv` and looks things up in it.

use std::sync::LazyLock;

use http::Method;

/// One row: an operation of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The API that it belongs to.
    pub api: Api,
    /// The HTTP method.
    pub method: Method,
    /// The path with its parameters as `{name}`.
    pub path: &'static str,
    /// The operation's id in the specification's OpenAPI files, for instance `sendMessage`. Unique within its API.
    pub id: &'static str,
    /// A name that is unique among all operations: the id, behind `federation:` for those of the federation API.
    pub name: String,
    /// How callers show who they are.
    pub auth: Auth,
    /// The process that serves it best. Every other can, or forwards.
    pub served_by: ServedBy,
    /// What requests should agree in to reach the same process.
    pub balance: Balance,
    /// Which requests share a pool of processes.
    pub pool: Pool,
}

impl Operation {
    /// Whether a request that was served twice does no more than one that was served once: all but `POST` by HTTP's own rules
    /// or by their transaction id, and those `POST`s that only ask, or say what is to be.
    pub fn may_repeat(&self) -> bool {
        self.method != Method::POST || REPEATABLE_POSTS.contains(&self.name.as_str())
    }

    /// Whether that is so where both bear the same `X-Myelin-Request-Id`.
    pub fn may_repeat_by_name(&self) -> bool {
        REPEATABLE_BY_NAME.contains(&self.name.as_str())
    }
}

/// `POST` operations that ask, or say what is to be. A membership that the same user gives for the second time is not given again
/// (`Rooms::change_membership`).
const REPEATABLE_POSTS: [&str; 17] = [
    "ban",
    "defineFilter",
    "forgetRoom",
    "inviteBy3PID",
    "joinRoom",
    "joinRoomById",
    "kick",
    "knockRoom",
    "leaveRoom",
    "postReceipt",
    "queryKeys",
    "queryPublicRooms",
    "search",
    "searchUserDirectory",
    "setReadMarker",
    "unban",
    "uploadKeys",
];

/// `POST` operations that make one thing, however often they come, if each time under the same name.
const REPEATABLE_BY_NAME: [&str; 2] = ["createRoom", "upgradeRoom"];

/// An enum that is written as one word in the table.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $name {
            /// The word that stands for it in the table.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

words! {
    /// An API of the specification that a homeserver serves.
    Api {
        /// The [client-server API](https://spec.matrix.org/v1.19/client-server-api/).
        Client = "client",
        /// The [server-server API](https://spec.matrix.org/v1.19/server-server-api/).
        Federation = "federation",
    }
}

words! {
    /// How the caller of an operation shows who it is.
    Auth {
        /// Not at all.
        None = "none",
        /// By the access token of a user.
        Token = "token",
        /// By the access token of a user, or not at all.
        OptionalToken = "optional_token",
        /// By the token of an application service.
        AppserviceToken = "as_token",
        /// By the signature of a server.
        Signature = "signature",
    }
}

words! {
    /// The process that serves an operation best.
    ServedBy {
        /// The main process.
        Main = "main",
        /// Any generic worker.
        GenericWorker = "generic-worker",
        /// A media repository.
        MediaRepo = "media-repo",
        /// The user directory.
        UserDir = "user-dir",
        /// A writer of events, that of the room's shard.
        EventsWriter = "writer:events",
        /// A writer of the typing stream.
        TypingWriter = "writer:typing",
        /// A writer of the to-device stream.
        ToDeviceWriter = "writer:to_device",
        /// A writer of the receipts stream.
        ReceiptsWriter = "writer:receipts",
        /// A writer of the presence stream.
        PresenceWriter = "writer:presence",
        /// A writer of the account data stream.
        AccountDataWriter = "writer:account_data",
        /// A writer of the push rules stream.
        PushRulesWriter = "writer:push_rules",
        /// A writer of the device lists stream.
        DeviceListsWriter = "writer:device_lists",
    }
}

words! {
    /// What requests should agree in to reach the same process, whose caches then have what they need.
    Balance {
        /// Nothing: any process will do.
        Any = "none",
        /// The user, whom a proxy finds in the access token.
        User = "user",
        /// The room in the path.
        Room = "room",
        /// The server that asks.
        Origin = "origin",
        /// The whole path.
        Uri = "uri",
    }
}

words! {
    /// Requests that weigh about the same and share a pool of processes.
    Pool {
        /// `/sync` and its forerunners.
        Sync = "sync",
        /// Logging in and registering.
        Login = "login",
        /// Writing events.
        Send = "send",
        /// Reading a room's history and state.
        Read = "read",
        /// Everything else that clients ask.
        Client = "client",
        /// What other servers send.
        FederationIn = "federation-in",
        /// What other servers ask.
        FederationRead = "federation-read",
        /// Up- and downloads.
        Media = "media",
    }
}

struct Table {
    operations: Vec<Operation>,
    /// A router per method, to the index in `operations`.
    routers: Vec<(Method, matchit::Router<usize>)>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::read(include_str!("../endpoints.tsv")));

/// All operations, ordered by API and path.
pub fn operations() -> &'static [Operation] {
    &TABLE.operations
}

/// The operation of a request. Also finds it by its pattern, and under the older `r0` prefix.
pub fn find(method: &Method, path: &str) -> Option<&'static Operation> {
    let table = &*TABLE;
    let (_, router) = table.routers.iter().find(|(known, _)| known == method)?;
    let look_up = |path: &str| router.at(path).ok().map(|found| *found.value);
    let index = look_up(path).or_else(|| {
        let (api, rest) = path.strip_prefix("/_matrix/")?.split_once("/r0/")?;
        look_up(&format!("/_matrix/{api}/v3/{rest}"))
    })?;
    table.operations.get(index)
}

impl Table {
    /// The table is part of the program, so a row that can't be read is a mistake that the first test finds.
    fn read(text: &'static str) -> Self {
        let rows = text.lines().filter(|line| !line.starts_with('#'));
        let mut table = Self { operations: rows.map(read_row).collect(), routers: Vec::new() };
        for (index, operation) in table.operations.iter().enumerate() {
            let position = table.routers.iter().position(|(method, _)| *method == operation.method);
            let position = position.unwrap_or_else(|| {
                table.routers.push((operation.method.clone(), matchit::Router::new()));
                table.routers.len() - 1
            });
            let inserted = table.routers[position].1.insert(numbered(operation.path), index);
            inserted.unwrap_or_else(|error| panic!("endpoints.tsv: {}: {error}", operation.path));
        }
        table
    }
}

fn read_row(line: &'static str) -> Operation {
    let read = || -> Option<Operation> {
        let mut columns = line.split('\t');
        let api = Api::from_word(columns.next()?)?;
        let method = columns.next()?.parse().ok()?;
        let path = columns.next()?;
        let id = columns.next()?;
        let name = match api {
            Api::Client => id.to_owned(),
            Api::Federation => format!("federation:{id}"),
        };
        let auth = Auth::from_word(columns.next()?)?;
        let served_by = ServedBy::from_word(columns.next()?)?;
        let balance = Balance::from_word(columns.next()?)?;
        let pool = Pool::from_word(columns.next()?)?;
        columns.next().is_none().then_some(())?;
        Some(Operation { api, method, path, id, name, auth, served_by, balance, pool })
    };
    read().unwrap_or_else(|| panic!("endpoints.tsv: {line}"))
}

/// The router wants one name for one place.
fn numbered(path: &str) -> String {
    let mut number = 0;
    let segments = path.split('/').map(|segment| {
        if segment.starts_with('{') {
            number += 1;
            format!("{{p{number}}}")
        } else {
            segment.to_owned()
        }
    });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_is_found_by_its_own_path_and_has_a_name_of_its_own() {
        for operation in operations() {
            assert_eq!(find(&operation.method, operation.path), Some(operation));
        }
        let names: BTreeSet<&str> = operations().iter().map(|operation| operation.name.as_str()).collect();
        assert_eq!(names.len(), operations().len());
    }

    #[test]
    fn requests_are_found() {
        let check = |method: Method, path: &str, name: Option<&str>| {
            assert_eq!(find(&method, path).map(|operation| operation.name.as_str()), name, "{method} {path}");
        };
        check(Method::GET, "/_matrix/client/v3/sync", Some("sync"));
        check(Method::GET, "/_matrix/client/r0/sync", Some("sync"));
        check(Method::PUT, "/_matrix/client/v3/rooms/!a:b.c/send/m.room.message/1", Some("sendMessage"));
        check(Method::PUT, "/_matrix/client/v3/rooms/!a%2Fb/state/m.x/k%2Fk", Some("setRoomStateWithKey"));
        check(Method::PUT, "/_matrix/federation/v1/send/17", Some("federation:sendTransaction"));
        check(Method::POST, "/_matrix/client/v3/sync", None);
        check(Method::PATCH, "/_matrix/client/v3/sync", None);
        check(Method::GET, "/_matrix/client/v3/nothing", None);
        check(Method::GET, "", None);
    }

    #[test]
    fn posts_that_may_be_repeated_are_in_the_table() {
        for name in REPEATABLE_POSTS {
            assert!(
                operations().iter().any(|operation| operation.name == name && operation.may_repeat()),
                "{name}"
            );
        }
        let check = |name: &str, may| {
            let operation = operations().iter().find(|operation| operation.name == name);
            assert_eq!(operation.map(Operation::may_repeat), Some(may), "{name}");
        };
        check("sendMessage", true);
        check("createRoom", false);
        check("upgradeRoom", false);
        check("claimKeys", false);
        let by_name: Vec<_> =
            operations().iter().filter(|operation| operation.may_repeat_by_name()).collect();
        assert_eq!(by_name.len(), REPEATABLE_BY_NAME.len());
    }

    #[test]
    fn what_is_balanced_by_room_names_a_room() {
        for operation in operations().iter().filter(|operation| operation.balance == Balance::Room) {
            assert!(operation.path.contains("{roomId}"), "{}", operation.name);
        }
    }

    #[test]
    fn what_is_balanced_by_user_or_origin_has_one() {
        for operation in operations() {
            let known = match operation.balance {
                Balance::User => operation.auth != Auth::None,
                Balance::Origin => operation.auth == Auth::Signature,
                Balance::Any | Balance::Room | Balance::Uri => true,
            };
            assert!(known, "{}", operation.name);
        }
    }
}
