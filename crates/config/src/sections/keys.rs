//! The server's keys, and the keys of others.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use ruma::OwnedServerName;

use crate::{
    section::{all_defaulted, section},
    value::Secret,
};

section! {
    /// Signing keys, and secrets that tokens and forms are made with.
    Keys {
        /// The file with the key that signs events and requests: `ed25519 <version> <base64>`, one key a line. Made by
        /// `myelin-ctl generate-signing-key`. Default: `<server_name>.signing.key`.
        signing_key_path: Option<PathBuf> = null,
        /// Keys that signed in the past, so that others can still check: by their ID, such as `ed25519:a_old`.
        old_signing_keys: BTreeMap<String, OldSigningKey> = {},
        /// How long other servers may keep our keys; half of it passes between refreshes of theirs.
        key_refresh_interval: Duration = 1d,
        /// Servers that are asked for the keys of others.
        trusted_key_servers: Vec<TrustedKeyServer> = [{ server_name: "matrix.org" }],
        /// Accepted for Synapse's sake: there is no such warning here.
        suppress_key_server_warning: bool = false,
        /// A secret for tokens that can be checked without the database. Default: made from the signing key.
        macaroon_secret_key: Option<Secret> = null,
        /// A secret for the protection of forms. Default: made from the signing key.
        form_secret: Option<Secret> = null,
    }
}

section! {
    /// A signing key of the past.
    OldSigningKey {
        /// The public key in base64.
        key: String,
        /// When it was last used, in milliseconds since 1970.
        expired_ts: u64,
    }
}

section! {
    /// A server that vouches for the keys of others.
    TrustedKeyServer {
        /// The server's name.
        server_name: OwnedServerName,
        /// Its keys, by ID and in base64, to be checked instead of trusting TLS.
        verify_keys: BTreeMap<String, String> = {},
        /// Whether to take answers of a server without `verify_keys` that are not signed.
        accept_keys_insecurely: bool = false,
    }
}

all_defaulted!(Keys);
