//! myelin-ctl: configuration, keys, users and the fleet.
