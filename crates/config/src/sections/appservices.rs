//! Application services.

use std::path::PathBuf;

use crate::section::{all_defaulted, section};

section! {
    /// Bridges and bots.
    Appservices {
        /// The registration files of application services.
        app_service_config_files: Vec<PathBuf> = [],
        /// Whether the addresses of users that an application service plays are kept.
        track_appservice_user_ips: bool = false,
        /// Whether the addresses of users whose tokens an administrator uses are kept.
        track_puppeted_user_ips: bool = false,
        /// Whether the token is sent to application services in the query too, as before version 1.4 of the specification.
        use_appservice_legacy_authorization: bool = false,
    }
}

all_defaulted!(Appservices);
