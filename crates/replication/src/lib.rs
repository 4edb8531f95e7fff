//! Streams: writers with committed positions, notices, and readers that never skip a row.
