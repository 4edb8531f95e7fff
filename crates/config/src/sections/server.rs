//! Who this server is.

use std::{collections::BTreeMap, path::PathBuf};

use ruma::OwnedServerName;
use url::Url;

use crate::section::section;

section! {
    /// The server's name and its face to the world.
    Server {
        /// The name in user IDs and room aliases of this server, such as `example.com`. It can't be changed once the
        /// server has users.
        server_name: OwnedServerName,
        /// The URL under which clients reach this server. Without it, `/.well-known/matrix/client` is not answered.
        public_baseurl: Option<Url> = null,
        /// Whether to answer `/.well-known/matrix/server`, so that other servers find this one at port 443.
        serve_server_wellknown: bool = false,
        /// More members of the answer to `/.well-known/matrix/client`.
        extra_well_known_client_content: BTreeMap<String, serde_json::Value> = {},
        /// Where the main process writes its process ID. `worker_pid_file` is the same for a worker.
        pid_file: Option<PathBuf> = null,
        /// A way to reach the administrator, told to users whose request meets a limit: `mailto:…` or a URL.
        admin_contact: Option<String> = null,
        /// A text added to the `User-Agent` of requests to other servers.
        user_agent_suffix: Option<String> = null,
        /// Unfinished parts of the protocol, by the name of their proposal (`msc1234_enabled: true`). What is not known
        /// by this name has no effect.
        experimental_features: BTreeMap<String, serde_json::Value> = {},
    }
}
