//! Whether a process can do its work.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// The conditions that must all hold before a process counts as ready. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<parking_lot::RwLock<Vec<Condition>>>);

/// One condition; starts unmet. Clones are the same condition.
#[derive(Clone, Debug)]
pub struct Condition {
    name: &'static str,
    met: Arc<AtomicBool>,
}

impl Condition {
    /// Says whether it holds now.
    pub fn set(&self, met: bool) {
        self.met.store(met, Ordering::Release);
    }
}

impl Readiness {
    /// Adds a condition under the name by which operators see it.
    pub fn condition(&self, name: &'static str) -> Condition {
        let condition = Condition { name, met: Arc::default() };
        self.0.write().push(condition.clone());
        condition
    }

    /// Every condition by its name, and whether it holds. All hold: the process is ready.
    pub fn conditions(&self) -> Vec<(&'static str, bool)> {
        let conditions = self.0.read();
        conditions.iter().map(|condition| (condition.name, condition.met.load(Ordering::Acquire))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_every_condition_holds() {
        let readiness = Readiness::default();
        let (database, listeners) = (readiness.condition("database"), readiness.condition("listeners"));
        assert_eq!(readiness.conditions(), [("database", false), ("listeners", false)]);
        database.set(true);
        listeners.clone().set(true);
        assert_eq!(readiness.conditions(), [("database", true), ("listeners", true)]);
        database.set(false);
        assert_eq!(readiness.conditions(), [("database", false), ("listeners", true)]);
    }
}
