//! How much is kept in memory.

use std::time::Duration;

use crate::{
    section::{all_defaulted, section},
    value::ByteSize,
};

section! {
    /// Caches. They count bytes here, so that memory stays within bounds whatever the entries are.
    Caches {
        /// How large all caches are, where 0.5 is the normal size.
        global_factor: f64 = 0.5,
        /// Bytes that all caches of a process may hold together; null for a share of the machine's memory.
        max_bytes: Option<ByteSize> = null,
        /// Whether entries that were not used for `cache_entry_ttl` are dropped.
        expire_caches: bool = true,
        /// How long an entry is kept unused.
        cache_entry_ttl: Duration = 30m,
        /// How long the answer of a sync is kept for a client that asks again.
        sync_response_cache_duration: Duration = 2m,
    }
}

all_defaulted!(Caches);
