//! Synapse's configuration files, read into typed sections.
