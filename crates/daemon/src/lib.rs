//! Start, readiness, drain and stop of every daemon.
