//! Sharing out a duty among the processes that would take a part of it.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use myelin_storage::{
    StorageError,
    instances::{self, Living, Registration},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tracing::{info, warn};

use crate::{
    LeaseError, Session,
    census::{Census, Moment},
    plan::Plan,
};

/// How often a process that could not do all that it would tries again.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// A duty that is done in parts. All processes of all versions must agree on the number of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duty {
    /// Its name: `events`, `background`. The leases are `NAME/0`, `NAME/1`, ….
    pub name: &'static str,
    /// How many parts it has; 1: one process has it at a time.
    pub shards: u16,
}

impl Duty {
    /// The name of a part's lease.
    pub fn lease(&self, shard: u16) -> String {
        format!("{}/{shard}", self.name)
    }

    /// Which of these processes should have a part, by rendezvous hashing: when one comes or goes, only its own parts move.
    pub fn heir<'a>(&self, shard: u16, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let part = self.lease(shard);
        names.into_iter().max_by_key(|name| weigh(&part, name))
    }

    fn shard(&self, lease: &str) -> Option<u16> {
        let shard = lease.strip_prefix(self.name)?.strip_prefix('/')?.parse().ok()?;
        (shard < self.shards).then_some(shard)
    }
}

/// What does the work of a duty.
pub trait Holder: Send + Sync + 'static {
    /// These parts are the process's own now. Ends once work on them has begun.
    fn gained<'a>(&'a self, shards: &'a [u16]) -> BoxFuture<'a, ()>;

    /// Begins nothing more for these parts, and ends once all that was under way for them is committed or has failed: from
    /// then on another process may have them.
    fn give_up<'a>(&'a self, shards: &'a [u16]) -> BoxFuture<'a, ()>;
}

/// Who has which part, as it was seen last.
#[derive(Clone, Debug, Default)]
pub struct Assignment {
    /// By part, the process that holds it, if that lives.
    holders: Vec<Option<Arc<Living>>>,
    living: Vec<Arc<Living>>,
}

impl Assignment {
    /// The living process that holds a part.
    pub fn holder(&self, shard: u16) -> Option<&Living> {
        self.holders.get(usize::from(shard))?.as_deref()
    }

    fn new(duty: Duty, census: &Census) -> Self {
        let living = census.living.clone();
        let holder = |shard: u16| {
            let registration = census.leases(duty.name).get(&shard)?;
            living.iter().find(|process| process.registration == *registration).cloned()
        };
        let holders = (0..duty.shards).map(holder).collect();
        Self { holders, living }
    }

    /// All processes that live, whatever they do, by name.
    pub fn living(&self) -> &[Arc<Living>] {
        &self.living
    }

    /// The processes that hold any part, each once, by name.
    pub fn holders(&self) -> Vec<&Living> {
        let mut holders: Vec<&Living> = self.holders.iter().flatten().map(AsRef::as_ref).collect();
        holders.sort_by(|one, other| one.name.cmp(&other.name));
        holders.dedup_by(|one, other| one.registration == other.registration);
        holders
    }
}

/// A process's view of a duty, and its part of it if it takes one. Clones are the same.
#[derive(Clone)]
pub struct Share(Arc<Inner>);

struct Inner {
    session: Session,
    duty: Duty,
    holder: Option<Weak<dyn Holder>>,
    state: Mutex<State>,
    /// Serves one look at a time.
    looking: tokio::sync::Mutex<()>,
    assignment: watch::Sender<Assignment>,
    wanted: Arc<Notify>,
}

#[derive(Default)]
struct State {
    held: Vec<u16>,
    is_leaving: bool,
    /// When the process changed something last: an earlier census says that what it gave away is its own.
    changed: Moment,
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let held = self.0.state.lock().held.len();
        f.debug_struct("Share").field("duty", &self.0.duty.name).field("held", &held).finish_non_exhaustive()
    }
}

impl Share {
    /// Takes part in the duty, with `holder` doing the work for as long as it is there; or only watches who does. The first
    /// look is done when this returns.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn start(
        session: Session,
        duty: Duty,
        holder: Option<Weak<dyn Holder>>,
    ) -> Result<Self, LeaseError> {
        if holder.is_some() {
            session.take_part(duty.name).await?;
        }
        let share = Self(Arc::new(Inner {
            session,
            duty,
            holder,
            state: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            assignment: watch::Sender::default(),
            wanted: Arc::default(),
        }));
        share.look_now().await?;
        tokio::spawn(keep_looking(Arc::downgrade(&share.0)));
        Ok(share)
    }

    /// The parts that the process has now.
    pub fn held(&self) -> Vec<u16> {
        self.0.state.lock().held.clone()
    }

    /// Who has what, as it was seen last.
    pub fn assignment(&self) -> watch::Receiver<Assignment> {
        self.0.assignment.subscribe()
    }

    /// Has the next look come at once: something seems to have changed.
    pub fn look_soon(&self) {
        self.0.wanted.notify_one();
    }

    /// Gives all parts up, to others where there are any, and takes none any more.
    ///
    /// # Errors
    /// If the database fails; the parts come free then when the last heartbeat has run out.
    pub async fn leave(&self) -> Result<(), LeaseError> {
        self.0.state.lock().is_leaving = true;
        self.0.session.take_no_part(self.0.duty.name).await?;
        self.look_now().await?;
        Ok(())
    }

    /// Gives and takes what the process should. Says whether nothing is left to be done, for now.
    async fn look(&self) -> Result<bool, LeaseError> {
        let _turn = self.0.looking.lock().await;
        let inner = &*self.0;
        let (session, duty) = (&inner.session, inner.duty);
        let changed = inner.state.lock().changed;
        let mut census = session.census_since(changed).await?;
        let plan = Plan::new(duty, session.registration(), &census.living, census.leases(duty.name));
        inner.hand_over(&plan).await?;
        inner.take(&plan, &census).await?;
        if !plan.is_quiet() {
            census = session.census_since(inner.change()).await?;
        }
        inner.assignment.send_replace(Assignment::new(duty, &census));
        Ok(plan.is_quiet())
    }

    /// As [`Share::look`], at the fleet as it is now.
    async fn look_now(&self) -> Result<bool, LeaseError> {
        self.0.change();
        self.look().await
    }
}

impl Inner {
    /// Notes that something changes: what was read of the fleet before is not to be believed any more.
    fn change(&self) -> Moment {
        let now = self.session.now();
        self.state.lock().changed = now;
        now
    }

    fn holder(&self) -> Option<Arc<dyn Holder>> {
        self.holder.as_ref()?.upgrade()
    }

    async fn hand_over(&self, plan: &Plan) -> Result<(), LeaseError> {
        let leaving: Vec<u16> = plan.give.iter().map(|(shard, _)| *shard).collect();
        if leaving.is_empty() {
            return Ok(());
        }
        if let Some(holder) = self.holder() {
            holder.give_up(&leaving).await;
        }
        self.state.lock().held.retain(|shard| !leaving.contains(shard));
        let client = self.session.database().get().await?;
        let mut heirs: HashMap<Option<Registration>, Vec<String>> = HashMap::new();
        for (shard, heir) in &plan.give {
            heirs.entry(*heir).or_default().push(self.duty.lease(*shard));
        }
        for (heir, leases) in heirs {
            let leases: Vec<&str> = leases.iter().map(String::as_str).collect();
            instances::hand_over_leases(&client, &leases, self.session.registration(), heir).await?;
        }
        self.change();
        info!(duty = self.duty.name, shards = leaving.len(), "handed over");
        Ok(())
    }

    async fn take(&self, plan: &Plan, census: &Census) -> Result<(), LeaseError> {
        let Some(holder) = self.holder() else { return Ok(()) };
        // Who was stopped itself, or cut off from the database, can't tell who else was.
        let is_steady = self.session.is_steady();
        let free = plan.claims(self.session.registration(), census.leases(self.duty.name), is_steady);
        let wanted: Vec<String> = free.into_iter().map(|shard| self.duty.lease(shard)).collect();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let mut gained = plan.inherited(&self.state.lock().held);
        if !wanted.is_empty() {
            let taken = self.session.acquire(&wanted).await?;
            gained.extend(taken.iter().filter_map(|lease| self.duty.shard(lease)));
        }
        if !gained.is_empty() {
            info!(duty = self.duty.name, shards = gained.len(), "took over");
            holder.gained(&gained).await;
            self.state.lock().held.extend(&gained);
        }
        Ok(())
    }
}

/// How much a process weighs for a key, for rendezvous hashing: the heaviest has it. The same in all versions (FNV-1a with
/// the finalizer of MurmurHash3).
pub fn weigh(key: &str, process: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in key.bytes().chain([0xff]).chain(process.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

async fn keep_looking(share: Weak<Inner>) {
    let Some((wanted, mut changes)) =
        share.upgrade().map(|inner| (inner.wanted.clone(), inner.session.changes()))
    else {
        return;
    };
    let mut is_settled = false;
    loop {
        let has_changed = tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
            () = wanted.notified() => false,
            () = sleep(RETRY_EVERY), if !is_settled => false,
        };
        let Some(share) = share.upgrade().map(Share) else { return };
        if share.0.session.is_lost() || share.0.state.lock().is_leaving {
            return;
        }
        let looked = if has_changed { share.look().await } else { share.look_now().await };
        is_settled = matches!(looked, Ok(true));
        match looked {
            Ok(_) => {}
            Err(LeaseError::Storage(StorageError::Fenced)) => return share.0.session.mark_lost(),
            Err(error) => warn!(duty = share.0.duty.name, %error, "looking at who does what"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUTY: Duty = Duty { name: "events", shards: 128 };

    #[test]
    fn weights_stay_what_they_are() {
        assert_eq!(weigh("events/1", "main"), weigh("events/1", "main"));
        let chosen: Vec<_> = (0..8).map(|shard| DUTY.heir(shard, ["w1", "w2"]).unwrap_or_default()).collect();
        assert_eq!(chosen, CHOSEN, "running processes of another version would disagree");
    }

    const CHOSEN: [&str; 8] = ["w1", "w1", "w1", "w1", "w1", "w1", "w2", "w2"];
}
