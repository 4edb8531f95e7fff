//! Redis.

use std::path::PathBuf;

use crate::{
    section::{all_defaulted, section},
    value::Secret,
};

section! {
    /// The Redis that carries notices between the processes. A server of one process needs none. Channels are named
    /// after the `server_name`, so a Redis can be shared.
    Redis {
        /// Whether to use Redis.
        enabled: bool = false,
        /// The host.
        host: String = "localhost",
        /// The port.
        port: u16 = 6379,
        /// The path of a unix socket, instead of host and port.
        path: Option<PathBuf> = null,
        /// The Sentinels that know where Redis is, instead of host and port: all processes follow them to another master.
        sentinels: Vec<Sentinel> = [],
        /// The name under which the Sentinels know the master.
        sentinel_master: String = "mymaster",
        /// The Sentinels' own password.
        sentinel_password: Option<Secret> = null,
        /// The user, for a Redis with access lists.
        username: Option<String> = null,
        /// The password.
        password: Option<Secret> = null,
        /// The number of the logical database.
        dbid: Option<u32> = null,
        /// Whether to speak TLS.
        use_tls: bool = false,
        /// The client's certificate (PEM).
        certificate_file: Option<PathBuf> = null,
        /// The key (PEM) of the client's certificate.
        private_key_file: Option<PathBuf> = null,
        /// The certificates (PEM) of authorities to trust, instead of the system's.
        ca_file: Option<PathBuf> = null,
        /// A folder of such certificates.
        ca_path: Option<PathBuf> = null,
    }
}

all_defaulted!(Redis);

section! {
    /// One of the Sentinels.
    Sentinel {
        /// Its host.
        host: String,
        /// Its port.
        port: u16 = 26379,
    }
}
