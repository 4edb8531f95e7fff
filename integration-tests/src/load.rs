//! Many rooms in which people talk at the same time, while a test breaks something.

mod audit;
mod collect;
mod progress;
mod talk;

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::future::{join, join_all};
use serde_json::json;
use tokio::time::Instant;

use self::{
    collect::{Device, collect},
    progress::Progress,
    talk::{Speaker, Spoken},
};
use crate::{Api, User, invariants::History};

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
    /// Whether they go on sending, more messages than that, until the test has done what it wanted.
    pub until_done: bool,
    /// After how many messages each of them does something else: types, says how they are, writes to a device, reads, changes their
    /// name, the state of the room or their keys. Zero for never.
    pub extras_every: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            users: 10,
            rooms: 30,
            members: 4,
            senders: 2,
            messages: 10,
            pause: Duration::ZERO,
            until_done: false,
            extras_every: 0,
        }
    }
}

impl Plan {
    /// A conversation that goes on for as long as something is broken, with a bit of everything that clients do.
    pub fn steady() -> Self {
        Self {
            rooms: 16,
            messages: 12,
            pause: Duration::from_millis(250),
            until_done: true,
            extras_every: 3,
            ..Self::default()
        }
    }

    /// How many messages are sent at least.
    pub fn total(&self) -> usize {
        self.rooms * self.senders * self.messages
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
            let everyone_may_change_it = json!({ "state_default": 0 });
            let room =
                json!({ "preset": "public_chat", "power_level_content_override": everyone_may_change_it });
            let id = users[members[0]].create_room(room).await;
            join_all(members[1..].iter().map(async |member| users[*member].join(&id).await)).await;
            Room { id, members }
        }))
        .await;

        Self { plan, users, rooms }
    }

    /// Lets everyone talk; when half of the messages are acknowledged, does what the test wants meanwhile. Requests
    /// that fail are repeated under their transaction IDs, as clients do. Returns when everything was seen by everybody,
    /// or the time is over.
    ///
    /// # Panics
    ///
    /// If not all messages can be sent in time.
    pub async fn run(&self, meanwhile: impl AsyncFnOnce()) -> History {
        let progress = Arc::new(Progress::new(Instant::now() + LIMIT, self.plan.total() / 2));
        let devices: Vec<_> = (0..self.users.len())
            .map(|user| tokio::spawn(collect(self.device(user), Arc::clone(&progress))))
            .collect();
        let talks: Vec<_> =
            self.speakers().map(|speaker| tokio::spawn(speaker.talk(Arc::clone(&progress)))).collect();
        let at_half = async {
            progress.wait_for_half().await;
            meanwhile().await;
            progress.done();
        };
        let (spoken, ()) = join(join_all(talks), at_half).await;
        progress.all_is_said();

        let mut history = History::default();
        for (speaker, spoken) in self.speakers().zip(spoken) {
            let Spoken { acknowledged, read_up_to } = spoken.expect("no sender failed");
            if let Some(event_id) = read_up_to {
                history.read_up_to(&speaker.room_id, &speaker.user.id, &event_id);
            }
            acknowledged.into_iter().for_each(|acknowledged| history.acknowledge(acknowledged));
        }
        for (user, device) in join_all(devices).await.into_iter().enumerate() {
            let timelines = device.expect("no device failed");
            for room in self.rooms_of(user) {
                history.saw(&room.id, &self.users[user].id, timelines.room(&room.id));
            }
        }
        Arc::into_inner(progress).expect("all tasks have ended").write_down(&mut history);

        history
    }

    fn rooms_of(&self, user: usize) -> impl Iterator<Item = &Room> {
        self.rooms.iter().filter(move |room| room.members.contains(&user))
    }

    fn device(&self, user: usize) -> Device {
        Device {
            user: self.users[user].clone(),
            rooms: self.homes(user).into_iter().collect(),
            loses_answers: self.plan.extras_every > 0,
        }
    }

    fn speakers(&self) -> impl Iterator<Item = Speaker> {
        let places =
            self.rooms.iter().flat_map(|room| (0..self.plan.senders).map(move |place| (room, place)));
        let mut told = HashSet::new();
        places.map(move |(room, place)| Speaker {
            plan: self.plan,
            user: self.users[room.members[place]].clone(),
            room_id: room.id.clone(),
            // The one after them: somebody who sends too, or only reads.
            neighbor: self.users[room.members[(place + 1) % room.members.len()]].clone(),
            others: self.others(room, place),
            contacts: self.contacts(room.members[place]),
            homes: match told.insert(room.members[place]) {
                true => self.homes(room.members[place]),
                false => Vec::new(),
            },
        })
    }

    fn ids(&self, users: &[usize]) -> Vec<String> {
        users.iter().map(|user| self.users[*user].id.clone()).collect()
    }

    /// The members of a room beside one.
    fn others(&self, room: &Room, place: usize) -> Vec<String> {
        let others = room.members.iter().enumerate().filter(|(other, _)| *other != place);
        others.map(|(_, user)| self.users[*user].id.clone()).collect()
    }

    /// The rooms of a user, with all who are in them.
    fn homes(&self, user: usize) -> Vec<(String, Vec<String>)> {
        self.rooms_of(user).map(|room| (room.id.clone(), self.ids(&room.members))).collect()
    }

    /// Those who share a room with a user.
    fn contacts(&self, user: usize) -> Vec<String> {
        let mut contacts: Vec<_> =
            self.rooms_of(user).flat_map(|room| &room.members).filter(|other| **other != user).collect();
        contacts.sort_unstable();
        contacts.dedup();

        contacts.into_iter().map(|other| self.users[*other].id.clone()).collect()
    }
}
