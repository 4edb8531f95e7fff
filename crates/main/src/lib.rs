//! The main process: everything which no worker was given.
