//! Duties that no request asks for: who has them is settled by leases.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use myelin_client_api::App;
use myelin_config::Config;
use myelin_leases::{Duty, Holder, LeaseError, Session, Share};
use myelin_storage::{Database, streams};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// What one process does for all: deletes what has expired, and does what processes that ended left undone.
const BACKGROUND: Duty = Duty { name: "background", shards: 1 };

/// After how long a process that was not heard of is taken for gone for good.
const GONE: Duration = Duration::from_secs(600);
/// How often to look for such.
const MOVE_UP_EVERY: Duration = Duration::from_secs(60);
/// How often to look for profiles that rooms should show and don't.
const LOOK_FOR_LATE_PROFILES_EVERY: Duration = Duration::from_secs(10);

/// Duties whose work is not there yet; they are held all the same, so that it is seen who will do it.
const TO_COME: [Duty; 4] = [
    Duty { name: "pusher", shards: 32 },
    Duty { name: "federation_sender", shards: 32 },
    Duty { name: "appservice", shards: 32 },
    Duty { name: "user_directory", shards: 1 },
];

/// The duties of this process.
pub(crate) struct Duties {
    shares: Vec<(&'static str, Share)>,
    /// Kept for as long as the process has its duties.
    _holders: Vec<Arc<dyn Holder>>,
}

impl Duties {
    /// Takes part in what the configuration gives to this process.
    pub async fn start(config: &Config, session: &Session, app: Option<&App>) -> Result<Self, LeaseError> {
        let duties = config.duties();
        let wanted = [duties.push, duties.send_federation, duties.appservices, duties.user_directory];
        let mut holders: Vec<(Duty, Arc<dyn Holder>)> = Vec::new();
        for (duty, _) in TO_COME.into_iter().zip(wanted).filter(|(_, wanted)| *wanted) {
            holders.push((duty, Arc::new(Nothing)));
        }
        if let Some(app) = app.filter(|_| duties.background_tasks) {
            holders.push((BACKGROUND, Arc::new(Background { app: app.clone(), running: Mutex::default() })));
        }
        let mut shares = Vec::new();
        for (duty, holder) in &holders {
            let weak: Weak<dyn Holder> = Arc::downgrade(holder);
            shares.push((duty.name, Share::start(session.clone(), *duty, Some(weak)).await?));
        }
        Ok(Self { shares, _holders: holders.into_iter().map(|(_, holder)| holder).collect() })
    }

    /// Each duty with the process's share of it.
    pub fn shares(&self) -> Vec<(&'static str, Share)> {
        self.shares.clone()
    }

    /// Gives all of them to others.
    pub async fn leave(&self) {
        for (duty, share) in &self.shares {
            if let Err(error) = share.leave().await {
                warn!(duty, %error, "a duty could not be handed over; it comes free by itself");
            }
        }
    }
}

/// A duty without work.
struct Nothing;

impl Holder for Nothing {
    fn gained<'a>(&'a self, _: &'a [u16]) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn give_up<'a>(&'a self, _: &'a [u16]) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// Has the positions of processes that are gone for good forgotten, until `stop` is ready.
async fn move_up_gone(database: Database, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(MOVE_UP_EVERY) => {}
        }
        let moved = async { streams::move_up_gone(&database.get().await?, GONE).await };
        if let Err(error) = moved.await {
            warn!(%error, "the positions of processes that are gone could not be moved up");
        }
    }
}

/// The background work, while the process has it.
struct Background {
    app: App,
    running: Mutex<Option<(CancellationToken, JoinHandle<()>)>>,
}

impl Holder for Background {
    fn gained<'a>(&'a self, _: &'a [u16]) -> BoxFuture<'a, ()> {
        let stop = CancellationToken::new();
        let (accounts, to_device) = (self.app.accounts.clone(), self.app.to_device.clone());
        let rooms = self.app.rooms.clone();
        let (database, stopped) = (self.app.database.clone(), stop.clone());
        let work = async move {
            tokio::join!(
                accounts.run_sweeps(stopped.cancelled()),
                to_device.run(stopped.cancelled()),
                rooms.show_late_profiles(LOOK_FOR_LATE_PROFILES_EVERY, stopped.cancelled()),
                move_up_gone(database, stopped.cancelled()),
            );
        };
        *self.running.lock() = Some((stop, tokio::spawn(work)));
        Box::pin(async {})
    }

    fn give_up<'a>(&'a self, _: &'a [u16]) -> BoxFuture<'a, ()> {
        let running = self.running.lock().take();
        Box::pin(async move {
            if let Some((stop, work)) = running {
                stop.cancel();
                // A panic was reported; the work is over in any case.
                let _ = work.await;
            }
        })
    }
}
