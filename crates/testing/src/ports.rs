//! Ports for servers of tests.

use std::{
    net::TcpListener,
    process,
    sync::atomic::{AtomicU16, Ordering},
};

/// A port on which nothing listens, and which is not given out again; outside of the range from which the system takes those of
/// outgoing connections: otherwise a client could take it between this look and the server's start, or while the server is down.
///
/// # Panics
///
/// If all of them are in use.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 16_000;
    const COUNT: u16 = 16_000;

    // Test processes that run at the same time start looking at different places.
    let start = u16::try_from(process::id() % u32::from(COUNT)).expect("the remainder is small");
    (0..COUNT)
        .map(|_| FIRST + (start + TAKEN.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("not all of sixteen thousand ports are in use")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_to_one_server_also_where_others_are_in_use() {
        let first = free_port();
        let _in_use = TcpListener::bind(("127.0.0.1", first + 1)).expect("nobody else wants it now");
        let next = [free_port(), free_port(), free_port()];
        assert!(!next.contains(&(first + 1)) && next[0] != next[1] && next[1] != next[2], "{next:?}");
    }
}
