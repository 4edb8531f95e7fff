//! Whether a process can do its work.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// The conditions that must all hold before a process counts as ready. Clones share them.
#[derive(Clone, Default)]
pub struct Readiness(Arc<parking_lot::RwLock<Vec<Named>>>);

/// One condition; starts unmet. Clones are the same condition.
#[derive(Clone, Debug)]
pub struct Condition(Arc<AtomicBool>);

struct Named {
    name: &'static str,
    holds: Box<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.conditions()).finish()
    }
}

impl Condition {
    /// Says whether it holds now.
    pub fn set(&self, met: bool) {
        self.0.store(met, Ordering::Release);
    }
}

impl Readiness {
    /// Adds a condition under the name by which operators see it.
    pub fn condition(&self, name: &'static str) -> Condition {
        let condition = Condition(Arc::default());
        let met = condition.clone();
        self.depend_on(name, move || met.0.load(Ordering::Acquire));
        condition
    }

    /// Adds a condition that holds whenever `holds` says so.
    pub fn depend_on(&self, name: &'static str, holds: impl Fn() -> bool + Send + Sync + 'static) {
        self.0.write().push(Named { name, holds: Box::new(holds) });
    }

    /// Every condition by its name, and whether it holds. All hold: the process is ready.
    pub fn conditions(&self) -> Vec<(&'static str, bool)> {
        self.0.read().iter().map(|condition| (condition.name, (condition.holds)())).collect()
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
        readiness.depend_on("clock", move || !listeners.0.load(Ordering::Acquire));
        assert_eq!(readiness.conditions()[2], ("clock", false));
    }
}
