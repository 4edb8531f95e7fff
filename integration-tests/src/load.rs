//! Many rooms in which people talk at the same time, while a test breaks something.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::{join, join_all};
use serde_json::json;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    Api, Timelines, User,
    invariants::{Acknowledged, History},
};

/// How long the whole of a load may take, servers being killed and started in the middle of it.
const LIMIT: Duration = Duration::from_secs(180);

/// What a client waits before it repeats a request that failed.
const PAUSE_BEFORE_RETRY: Duration = Duration::from_millis(50);

/// The size of a load.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many users there are, each with one device that syncs all the time.
    pub users: usize,
    /// How many rooms.
    pub rooms: usize,
    /// How many of the users are in each room.
    pub members: usize,
    /// How many of the members send, each at the same time as the others.
    pub senders: usize,
    /// How many messages each of them sends, one after the other.
    pub messages: usize,
    /// How long each of them waits between two messages.
    pub pause: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self { users: 10, rooms: 30, members: 4, senders: 2, messages: 10, pause: Duration::ZERO }
    }
}

/// Users and rooms that are ready to talk.
#[derive(Debug)]
pub struct Load {
    plan: Plan,
    users: Vec<User>,
    rooms: Vec<Room>,
}

#[derive(Debug)]
struct Room {
    id: String,
    /// Indices of users; the first of them send.
    members: Vec<usize>,
}

impl Load {
    /// Registers the users and makes the rooms.
    ///
    /// # Panics
    ///
    /// If the server doesn't let them.
    pub async fn prepare(api: &Api, plan: Plan) -> Self {
        assert!(plan.senders <= plan.members && plan.members <= plan.users, "{plan:?} can't be");
        let users =
            join_all((0..plan.users).map(async |n| User::register(api, &format!("user{n}")).await)).await;
        let rooms = join_all((0..plan.rooms).map(async |n| {
            let members: Vec<_> = (0..plan.members).map(|m| (n + m) % plan.users).collect();
            let id = users[members[0]].create_room(json!({ "preset": "public_chat" })).await;
            join_all(members[1..].iter().map(async |member| users[*member].join(&id).await)).await;
            Room { id, members }
        }))
        .await;

        Self { plan, users, rooms }
    }

    /// Lets everyone talk; when half of the messages are acknowledged, does what the test wants meanwhile. Requests
    /// that fail are repeated under their transaction IDs, as clients do. Returns when every message was seen by every
    /// member, or the time is over.
    ///
    /// # Panics
    ///
    /// If not all messages can be sent in time.
    pub async fn run(self, meanwhile: impl AsyncFnOnce()) -> History {
        let deadline = Instant::now() + LIMIT;
        let half = self.rooms.len() * self.plan.senders * self.plan.messages / 2;
        let progress = Arc::new(Progress {
            half,
            acknowledged: AtomicUsize::new(0),
            reached: Notify::new(),
            failures: Mutex::default(),
        });

        let devices = (0..self.users.len())
            .map(|user| tokio::spawn(collect(self.expectations(user), Arc::clone(&progress), deadline)));
        let devices: Vec<_> = devices.collect();
        let senders: Vec<_> = self
            .rooms
            .iter()
            .flat_map(|room| {
                room.members[..self.plan.senders].iter().map(|member| (room.id.clone(), *member))
            })
            .map(|(room_id, member)| {
                tokio::spawn(talk(
                    self.users[member].clone(),
                    room_id,
                    (self.plan.messages, self.plan.pause),
                    Arc::clone(&progress),
                    deadline,
                ))
            })
            .collect();
        let at_half = async {
            progress.reached.notified().await;
            meanwhile().await;
        };
        let (sent, ()) = join(join_all(senders), at_half).await;

        let mut history = History::default();
        for acknowledged in sent.into_iter().flat_map(|sender| sender.expect("no sender failed")) {
            history.acknowledge(acknowledged);
        }
        for (user, device) in join_all(devices).await.into_iter().enumerate() {
            let timelines = device.expect("no device failed");
            for room in self.rooms.iter().filter(|room| room.members.contains(&user)) {
                history.saw(&room.id, &timelines.user().id, timelines.room(&room.id));
            }
        }

        history.failures =
            std::mem::take(&mut *progress.failures.lock().unwrap_or_else(PoisonError::into_inner));

        history
    }

    /// What a user must see in the end: as many different messages in each of their rooms.
    fn expectations(&self, user: usize) -> Expectations {
        Expectations {
            user: self.users[user].clone(),
            rooms: self
                .rooms
                .iter()
                .filter(|room| room.members.contains(&user))
                .map(|room| room.id.clone())
                .collect(),
            messages: self.plan.senders * self.plan.messages,
        }
    }
}

struct Progress {
    half: usize,
    acknowledged: AtomicUsize,
    reached: Notify,
    failures: Mutex<Vec<String>>,
}

impl Progress {
    fn failed(&self, problem: impl ToString) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(problem.to_string());
    }
}

struct Expectations {
    user: User,
    rooms: Vec<String>,
    messages: usize,
}

/// Sends messages one after the other, each until it is acknowledged.
async fn talk(
    user: User,
    room_id: String,
    (messages, pause): (usize, Duration),
    progress: Arc<Progress>,
    deadline: Instant,
) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::with_capacity(messages);
    for n in 0..messages {
        // Unique on the device, as transaction IDs are.
        let txn_id = format!("{n}-{}", room_id.trim_start_matches('!').replace(':', "-"));
        let content = json!({ "msgtype": "m.text", "body": txn_id });
        let event_id = loop {
            let problem = match user.try_send(&room_id, "m.room.message", &txn_id, &content).await {
                Ok(answer) if answer.status == 200 => match answer.body["event_id"].as_str() {
                    Some(event_id) => break event_id.to_owned(),
                    None => panic!("200 without an event_id: {}", answer.body),
                },
                // 408: the process was stopped while the request arrived.
                Ok(answer) if answer.status < 500 && answer.status != 429 && answer.status != 408 => {
                    panic!("a message was refused with {}: {}", answer.status, answer.body)
                }
                Ok(answer) => format!("{}: {}", answer.status, answer.body),
                Err(error) => error.to_string(),
            };
            assert!(
                Instant::now() < deadline,
                "a message could not be sent in {LIMIT:?}, at last: {problem}"
            );
            progress.failed(problem);
            sleep(PAUSE_BEFORE_RETRY).await;
        };
        acknowledged.push(Acknowledged {
            room_id: room_id.clone(),
            sender: user.id.clone(),
            txn_id,
            event_id,
        });
        if progress.acknowledged.fetch_add(1, Ordering::Relaxed) + 1 == progress.half {
            progress.reached.notify_one();
        }
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }

    acknowledged
}

/// Syncs until all is there that is expected, and once more for what should not be there.
async fn collect(expected: Expectations, progress: Arc<Progress>, deadline: Instant) -> Timelines {
    let mut timelines = Timelines::new(expected.user);
    while Instant::now() < deadline {
        if let Err(problem) = timelines.step(1_000).await {
            progress.failed(format!("{problem:#}"));
            sleep(PAUSE_BEFORE_RETRY).await;
        }
        let complete = expected.rooms.iter().all(|room_id| {
            let messages =
                timelines.room(room_id).iter().filter_map(|seen| seen.body.as_ref().map(|_| &seen.event_id));
            messages.collect::<HashSet<_>>().len() >= expected.messages
        });
        if complete {
            break;
        }
    }
    // What fails now shows as missing, if anything is missing.
    drop(timelines.step(0).await);

    timelines
}
