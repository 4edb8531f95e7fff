//! Small types that every crate shares: stream ids and positions, instance names, the clock.
