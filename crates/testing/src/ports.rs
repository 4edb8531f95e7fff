//! Ports for servers of tests.

use std::{
    net::TcpListener,
    process,
    sync::atomic::{AtomicU16, Ordering},
};

/// A port on which nothing listens, outside of the range from which the system takes those of outgoing connections:
/// otherwise a client could take it between this look and the server's start, or while the server is down.
///
/// # Panics
///
/// If all of them are in use.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    const RANGE: std::ops::Range<u16> = 16_000..32_000;

    // Test processes that run at the same time start looking at different places.
    let start = usize::try_from(process::id()).expect("a process number fits");
    let skip = start % RANGE.len() + usize::from(TAKEN.fetch_add(1, Ordering::Relaxed));

    RANGE
        .cycle()
        .skip(skip % RANGE.len())
        .take(RANGE.len())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("not all of sixteen thousand ports are in use")
}
