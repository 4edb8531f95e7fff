//! Push notifications.

use std::time::Duration;

use crate::section::{all_defaulted, section};

section! {
    /// Push notifications to mobile devices.
    Push {
        /// Whether notifications are sent.
        enabled: bool = true,
        /// Whether they carry the event, and not only its ID.
        include_content: bool = true,
        /// Whether the unread count is that of rooms with something unread, and not that of unread messages.
        group_unread_count_by_room: bool = true,
        /// How long at most a notification is held back by chance, so that its time tells less.
        jitter_delay: Duration = 0s,
    }
}

all_defaulted!(Push);
