//! What a device knows of its rooms after any number of syncs, gaps filled.

use std::collections::HashMap;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{Answer, Sync, User, invariants::Seen};

/// More pages than any test writes: a server that never comes to an end is not followed further.
const MAX_PAGES: usize = 1_000;

/// The timelines of all rooms of one device, as a client keeps them: `/sync` adds to their ends, and where that says
/// `limited`, what is missing in between is fetched by `/messages`.
#[derive(Debug)]
pub struct Timelines {
    user: User,
    since: Option<String>,
    rooms: HashMap<String, Vec<Seen>>,
}

impl Timelines {
    /// A device that has not synced yet.
    pub fn new(user: User) -> Self {
        Self { user, since: None, rooms: HashMap::new() }
    }

    /// The user whose device this is.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// The room's events, oldest first.
    pub fn room(&self, room_id: &str) -> &[Seen] {
        self.rooms.get(room_id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Syncs once, waiting for at most `timeout_ms` for news, and gives the whole answer.
    ///
    /// # Errors
    ///
    /// If the server did not answer, or not by 200. Nothing is taken in then; the step can be repeated.
    pub async fn step(&mut self, timeout_ms: u32) -> anyhow::Result<Sync> {
        let sync = Sync(success(self.user.try_sync(self.since.as_deref(), timeout_ms).await)?);
        let mut news = Vec::new();
        for (room_id, section) in sync.0["rooms"]["join"].as_object().into_iter().flatten() {
            let timeline = &section["timeline"];
            let mut events: Vec<_> = seen(&timeline["events"]).collect();
            if timeline["limited"].as_bool() == Some(true) {
                let mut gap = self.fill(room_id, timeline["prev_batch"].as_str()).await?;
                gap.append(&mut events);
                events = gap;
            }
            news.push((room_id.clone(), events));
        }
        for (room_id, mut events) in news {
            self.rooms.entry(room_id).or_default().append(&mut events);
        }
        self.since = Some(sync.next_batch().to_owned());

        Ok(sync)
    }

    /// The token of the last answer.
    pub fn since(&self) -> Option<&str> {
        self.since.as_deref()
    }

    /// What lies between the last event known and a token, oldest first.
    async fn fill(&self, room_id: &str, prev_batch: Option<&str>) -> anyhow::Result<Vec<Seen>> {
        let last_known = self.room(room_id).last().map(|seen| seen.event_id.as_str());
        let mut token = Some(prev_batch.context("a limited timeline has a prev_batch")?.to_owned());
        let mut backwards = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(from) = token else { break };
            let page = success(self.user.try_messages(room_id, Some(&from)).await)?;
            let events: Vec<_> = seen(&page["chunk"]).collect();
            let new = events.iter().take_while(|seen| Some(seen.event_id.as_str()) != last_known).count();
            let at_the_end = new < events.len() || events.is_empty();
            backwards.extend(events.into_iter().take(new));
            token = page["end"].as_str().filter(|_| !at_the_end).map(str::to_owned);
        }
        backwards.reverse();

        Ok(backwards)
    }
}

/// The parts of events that the invariants speak of.
fn seen(events: &Value) -> impl Iterator<Item = Seen> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();

    events.as_array().into_iter().flatten().map(move |event| Seen {
        event_id: text(&event["event_id"]),
        sender: text(&event["sender"]),
        body: event["content"]["body"].as_str().map(str::to_owned),
    })
}

fn success(answer: Result<Answer, reqwest::Error>) -> anyhow::Result<Value> {
    let answer = answer?;
    ensure!(answer.status == 200, "the server answered {}: {}", answer.status, answer.body);

    Ok(answer.body)
}
