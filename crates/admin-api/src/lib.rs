//! Synapse's admin API over HTTP.
