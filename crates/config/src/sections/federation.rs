//! Other servers, and which addresses may be called.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;
use ruma::OwnedServerName;

use crate::{
    section::{all_defaulted, section},
    value::{Glob, OneOrMany, choice},
};

section! {
    /// Traffic with other servers.
    Federation {
        /// The only servers to speak with; null for all. This server itself is always among them.
        federation_domain_whitelist: Option<Vec<OwnedServerName>> = null,
        /// Whether clients can ask which servers these are.
        federation_whitelist_endpoint_enabled: bool = false,
        /// Networks that requests to other servers, push gateways and previewed pages never go to.
        ip_range_blacklist: Vec<IpNet> = [
            "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "192.0.0.0/24",
            "169.254.0.0/16", "192.88.99.0/24", "198.18.0.0/15", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",
            "224.0.0.0/4", "::1/128", "fe80::/10", "fc00::/7", "2001:db8::/32", "ff00::/8", "fec0::/10"
        ],
        /// Networks that are allowed although `ip_range_blacklist` holds them.
        ip_range_whitelist: Vec<IpNet> = [],
        /// Certificates (PEM) of further authorities to trust.
        federation_custom_ca_list: Vec<PathBuf> = [],
        /// Whether the certificates of other servers are checked.
        federation_verify_certificates: bool = true,
        /// Servers whose certificates are not checked, as patterns.
        federation_certificate_verification_whitelist: OneOrMany<Glob> = [],
        /// The oldest TLS to speak with other servers. TLS 1.0 and 1.1 are never spoken.
        federation_client_minimum_tls_version: TlsVersion = "1.2",
        /// How other servers are called.
        federation: FederationClient = {},
    }
}

section! {
    /// How other servers are called.
    FederationClient {
        /// How long a request may take.
        client_timeout: Duration = 60s,
        /// The longest pause between attempts of a request that someone waits for.
        max_short_retry_delay: Duration = 2s,
        /// The longest pause between attempts of any other request.
        max_long_retry_delay: Duration = 60s,
        /// Further attempts of a request that someone waits for.
        max_short_retries: u32 = 3,
        /// Further attempts of any other request.
        max_long_retries: u32 = 10,
        /// The pause after a server could not be reached for the first time.
        destination_min_retry_interval: Duration = 10m,
        /// By how much each further pause is longer.
        destination_retry_multiplier: u32 = 2,
        /// The longest pause.
        destination_max_retry_interval: Duration = 1w,
    }
}

choice! {
    /// A version of TLS.
    TlsVersion: "a version of TLS" {
        /// TLS 1.2, or one of the older versions, which are not spoken.
        Tls12 = "1.2" | "1" | "1.0" | "1.1",
        /// TLS 1.3.
        Tls13 = "1.3",
    }
}

all_defaulted!(Federation, FederationClient);
