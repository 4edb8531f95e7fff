//! Which of the other processes answer.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

/// How often it is tried whether a process that fell silent answers again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// The pulses of the other processes, by their names.
#[derive(Default)]
pub(crate) struct Pulses(RwLock<HashMap<String, Arc<Pulse>>>);

impl Pulses {
    pub fn of(&self, name: &str) -> Arc<Pulse> {
        if let Some(pulse) = self.0.read().get(name) {
            return pulse.clone();
        }
        self.0.write().entry(name.to_owned()).or_default().clone()
    }
}

/// When a process answered.
#[derive(Default)]
pub(crate) struct Pulse(Mutex<State>);

#[derive(Default)]
struct State {
    heard: Option<Instant>,
    /// It does not answer; when that was last tried.
    silent: Option<Instant>,
}

impl Pulse {
    /// The process answered something.
    pub fn beat(&self) {
        *self.0.lock() = State { heard: Some(Instant::now()), silent: None };
    }

    /// Whether the process has answered anything of late.
    pub fn was_heard_within(&self, time: Duration) -> bool {
        self.0.lock().heard.is_some_and(|heard| heard.elapsed() < time)
    }

    /// The process was not reached, or does not answer.
    pub fn stop(&self) {
        self.0.lock().silent = Some(Instant::now());
    }

    /// Whether the process was found silent and has not answered since.
    pub fn has_stopped(&self) -> bool {
        self.0.lock().silent.is_some()
    }

    /// Whether the process was found silent and it is nobody's turn to try it again. It is the caller's if it is not.
    pub fn is_silent(&self) -> bool {
        let mut state = self.0.lock();
        let Some(tried) = &mut state.silent else { return false };
        let is_due = tried.elapsed() >= PROBE_EVERY;
        if is_due {
            *tried = Instant::now();
        }
        !is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_process_is_tried_by_one_request_a_second_until_it_answers() {
        let pulses = Pulses::default();
        let second = Duration::from_secs(1);
        assert!(!pulses.of("one").is_silent(), "of whom nothing is known");
        assert!(!pulses.of("one").was_heard_within(second));
        pulses.of("one").stop();
        assert!(pulses.of("one").is_silent());
        assert!(pulses.of("one").has_stopped());
        assert!(!pulses.of("two").is_silent());
        tokio::time::advance(PROBE_EVERY).await;
        assert!(!pulses.of("one").is_silent(), "the first one tries");
        assert!(pulses.of("one").is_silent(), "the next one does not");
        pulses.of("one").beat();
        assert!(!pulses.of("one").is_silent());
        assert!(pulses.of("one").was_heard_within(second));
        tokio::time::advance(second).await;
        assert!(!pulses.of("one").was_heard_within(second), "one answer does not count for ever");
    }
}
