//! What the clients of a load know of each other's doings.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::invariants::{Figures, History};

/// How long devices may take to see everything after the last message was sent.
const LIMIT_FOR_SEEING: Duration = Duration::from_secs(60);

/// What has happened so far in a load.
pub(super) struct Progress {
    pub(super) deadline: Instant,
    half: usize,
    reached: Notify,
    done: AtomicBool,
    devices_in_sync: AtomicUsize,
    facts: Mutex<Facts>,
}

#[derive(Default)]
struct Facts {
    failures: Vec<String>,
    acknowledged: usize,
    // By room.
    messages: HashMap<String, usize>,
    longest_wait: Duration,
    all_was_said: Option<Instant>,
    all_was_seen: Option<Instant>,
    /// By the user's device, what was sent to it.
    to_device: HashMap<String, HashSet<String>>,
    arrived: HashMap<String, HashSet<String>>,
    /// By user whose devices change, who should be told.
    changes: HashMap<String, Vec<String>>,
    /// Who was told of whom.
    told: HashSet<(String, String)>,
    /// By what is written again and again, what was acknowledged last, and who should know of it.
    written: HashMap<String, (String, Vec<String>)>,
    /// By observer and that, what they were told last.
    told_last: HashMap<(String, String), String>,
}

impl Progress {
    pub(super) fn new(deadline: Instant, half: usize) -> Self {
        Self {
            deadline,
            half,
            reached: Notify::new(),
            done: AtomicBool::new(false),
            devices_in_sync: AtomicUsize::new(0),
            facts: Mutex::default(),
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request failed, and is repeated.
    pub(super) fn failed(&self, problem: impl ToString) {
        self.facts().failures.push(problem.to_string());
    }

    /// A message was acknowledged after so long a wait, repetitions included.
    pub(super) fn acknowledged(&self, room_id: &str, waited: Duration) {
        let mut facts = self.facts();
        facts.longest_wait = facts.longest_wait.max(waited);
        *facts.messages.entry(room_id.to_owned()).or_default() += 1;
        facts.acknowledged += 1;
        if facts.acknowledged == self.half {
            self.reached.notify_one();
        }
    }

    pub(super) async fn wait_for_half(&self) {
        self.reached.notified().await;
    }

    /// Half of the messages of the plan were sent.
    pub(super) fn is_past_half(&self) -> bool {
        self.facts().acknowledged >= self.half
    }

    /// The test has done what it wanted.
    pub(super) fn done(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Nothing more will be sent.
    pub(super) fn all_is_said(&self) {
        self.facts().all_was_said = Some(Instant::now());
    }

    /// Nothing more will be sent, or was seen in time.
    pub(super) fn is_over(&self) -> bool {
        let said = self.facts().all_was_said;
        said.is_some_and(|said| said.elapsed() > LIMIT_FOR_SEEING) || Instant::now() > self.deadline
    }

    /// A device has its first answer: it is told of what changes from now on.
    pub(super) fn device_is_in_sync(&self) {
        self.devices_in_sync.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn devices_in_sync(&self) -> usize {
        self.devices_in_sync.load(Ordering::Relaxed)
    }

    pub(super) fn sent_to_device(&self, device: &str, message: &str) {
        self.facts().to_device.entry(device.to_owned()).or_default().insert(message.to_owned());
    }

    pub(super) fn arrived(&self, device: &str, message: &str) {
        self.facts().arrived.entry(device.to_owned()).or_default().insert(message.to_owned());
    }

    /// A user's devices are about to change, which `contacts` are to be told. `false` if they did before.
    pub(super) fn devices_change(&self, user: &str, contacts: &[String]) -> bool {
        let mut facts = self.facts();
        let is_new = !facts.changes.contains_key(user);
        if is_new {
            facts.changes.insert(user.to_owned(), contacts.to_vec());
        }
        is_new
    }

    /// An observer was told of a user. What was told before that user's devices changed does not count.
    pub(super) fn told_of(&self, observer: &str, user: &str) {
        let mut facts = self.facts();
        if facts.changes.contains_key(user) {
            facts.told.insert((observer.to_owned(), user.to_owned()));
        }
    }

    /// Something that is written again and again was acknowledged; `observers` should know of it.
    pub(super) fn wrote(&self, key: String, value: &str, observers: &[String]) {
        self.facts().written.insert(key, (value.to_owned(), observers.to_vec()));
    }

    /// An observer was told what that is now.
    pub(super) fn told_latest(&self, observer: &str, key: String, value: &str) {
        self.facts().told_last.insert((observer.to_owned(), key), value.to_owned());
    }

    /// Whether a device has seen as many messages as were sent, and has everything else that it should have.
    pub(super) fn has_all(&self, user: &str, device: &str, seen: &HashMap<&str, usize>) -> bool {
        let mut facts = self.facts();
        let has_all = facts.all_was_said.is_some()
            && seen
                .iter()
                .all(|(room_id, seen)| facts.messages.get(*room_id).is_none_or(|messages| seen >= messages))
            && facts
                .to_device
                .get(device)
                .is_none_or(|sent| facts.arrived.get(device).is_some_and(|arrived| sent.is_subset(arrived)))
            && facts.changes.iter().all(|(changed, observers)| {
                !observers.iter().any(|observer| observer == user)
                    || facts.told.contains(&(user.to_owned(), changed.clone()))
            })
            && facts.written.iter().all(|(key, (value, observers))| {
                !observers.iter().any(|observer| observer == user)
                    || facts.told_last.get(&(user.to_owned(), key.clone())) == Some(value)
            });
        if has_all {
            facts.all_was_seen = Some(Instant::now());
        }
        has_all
    }

    pub(super) fn write_down(self, history: &mut History) {
        let facts = self.facts.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (is_arrival, devices) in [(false, facts.to_device), (true, facts.arrived)] {
            for (device, messages) in devices {
                messages.iter().for_each(|message| history.message_to_device(&device, message, is_arrival));
            }
        }
        for (user, observers) in &facts.changes {
            let observers: Vec<_> = observers.iter().map(String::as_str).collect();
            let told: Vec<_> =
                facts.told.iter().filter(|(_, of)| of == user).map(|(observer, _)| &**observer).collect();
            history.devices_changed(user, &observers, &told);
        }
        for (key, (value, observers)) in &facts.written {
            for observer in observers {
                let told = facts.told_last.get(&(observer.clone(), key.clone()));
                history.latest(key, value, observer, told.map(String::as_str));
            }
        }
        history.failures = facts.failures;
        let seen_after = facts.all_was_seen.zip(facts.all_was_said).map(|(seen, said)| seen - said);
        history.figures =
            Figures { longest_wait: facts.longest_wait, seen_after: seen_after.unwrap_or(LIMIT_FOR_SEEING) };
    }
}
