//! Push rules and what an event means for each member's unread counts.
