//! What somebody does who talks in a room.

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    LIMIT, PAUSE_BEFORE_RETRY, Plan,
    collect::{NOT_TYPING, TYPING, account_data_of, name_of, presence_of, receipt_of, typing_of},
    progress::Progress,
};
use crate::{Answer, User, invariants::Acknowledged, path_segment};

/// For how long whoever types does, unless they say something else before: longer than it may take until everybody has seen it,
/// and the longest that the server takes.
const TYPES_FOR: Duration = Duration::from_secs(120);
/// How often it is looked at whether the test has done what it wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A member who sends.
pub(super) struct Speaker {
    pub(super) plan: Plan,
    pub(super) user: User,
    pub(super) room_id: String,
    /// Another member.
    pub(super) neighbor: User,
    /// The users in the room beside this one.
    pub(super) others: Vec<String>,
    /// The users who share any room with this one.
    pub(super) contacts: Vec<String>,
    /// The user's rooms and who is in them, if it is here that the user says how they are and what they are called: of two who do so
    /// at once nobody could tell which is the last.
    pub(super) homes: Vec<(String, Vec<String>)>,
}

/// What was answered 200.
pub(super) struct Spoken {
    pub(super) acknowledged: Vec<Acknowledged>,
    /// The event of the last receipt.
    pub(super) read_up_to: Option<String>,
}

impl Speaker {
    /// Sends messages one after the other, each until it is acknowledged, with something else in between.
    pub(super) async fn talk(self, progress: Arc<Progress>) -> Spoken {
        let mut spoken = Spoken { acknowledged: Vec::with_capacity(self.plan.messages), read_up_to: None };
        let mut n = 0;
        while n < self.plan.messages || (self.plan.until_done && !progress.is_done()) {
            let asked = Instant::now();
            let acknowledged = self.say(n, &progress).await;
            let event_id = acknowledged.event_id.clone();
            spoken.acknowledged.push(acknowledged);
            progress.acknowledged(&self.room_id, asked.elapsed());
            if self.plan.extras_every > 0 && n % self.plan.extras_every == 0 {
                match n / self.plan.extras_every % 3 {
                    0 => {
                        self.write_to_device(n, &progress).await;
                        self.note(n, &progress).await;
                    }
                    1 => {
                        self.read(&event_id, &progress).await;
                        spoken.read_up_to = Some(event_id);
                    }
                    _ => {
                        self.change_state(n, &progress).await;
                        self.change_name(n, &progress).await;
                    }
                }
                self.change_keys(&progress).await;
                self.type_something((n / self.plan.extras_every).is_multiple_of(2), &progress).await;
                self.tell_presence(n, &progress).await;
            }
            if !self.plan.pause.is_zero() {
                sleep(self.plan.pause).await;
            }
            n += 1;
        }
        if self.plan.extras_every > 0 {
            self.say_last_words(n, &progress).await;
        }

        spoken
    }

    /// Who types is known to processes' memory only, and what was said to one that is killed in that moment is lost. What is
    /// judged is therefore what is said once the test has done its worst: those go on typing who don't say how they are.
    async fn say_last_words(&self, n: usize, progress: &Progress) {
        self.tell_presence(n, progress).await;
        while !progress.is_done() {
            sleep(LOOK_EVERY).await;
        }
        self.type_something(!self.is_spokesman(), progress).await;
    }

    /// Whether it is here that the user says what is not of one room.
    fn is_spokesman(&self) -> bool {
        !self.homes.is_empty()
    }

    async fn type_something(&self, is_typing: bool, progress: &Progress) {
        let (room, user) = (path_segment(&self.room_id), path_segment(&self.user.id));
        let path = format!("/_matrix/client/v3/rooms/{room}/typing/{user}");
        let timeout_ms = TYPES_FOR.as_secs() * 1_000;
        let body = match is_typing {
            true => json!({ "typing": true, "timeout": timeout_ms }),
            false => json!({ "typing": false }),
        };
        until_acknowledged(progress, || self.user.try_request(Method::PUT, &path, Some(&body))).await;
        let value = if is_typing { TYPING } else { NOT_TYPING };
        progress.wrote(typing_of(&self.user.id, &self.room_id), value, &self.others);
    }

    /// Says how the user is; of this, what they say lasts, while `presence` changes by itself.
    async fn tell_presence(&self, n: usize, progress: &Progress) {
        if !self.is_spokesman() {
            return;
        }
        let path = format!("/_matrix/client/v3/presence/{}/status", path_segment(&self.user.id));
        let status_msg = n.to_string();
        let body = json!({ "presence": "online", "status_msg": status_msg });
        until_acknowledged(progress, || self.user.try_request(Method::PUT, &path, Some(&body))).await;
        progress.wrote(presence_of(&self.user.id), &status_msg, &self.contacts);
    }

    /// Takes another name, which all rooms are to show.
    async fn change_name(&self, n: usize, progress: &Progress) {
        if !self.is_spokesman() {
            return;
        }
        let path = format!("/_matrix/client/v3/profile/{}/displayname", path_segment(&self.user.id));
        let name = format!("the {n}th");
        let body = json!({ "displayname": name });
        until_acknowledged(progress, || self.user.try_request(Method::PUT, &path, Some(&body))).await;
        for (room_id, members) in &self.homes {
            progress.wrote(name_of(&self.user.id, room_id), &name, members);
        }
    }

    /// Unique on the device, as transaction IDs are.
    fn txn_id(&self, n: usize) -> String {
        format!("{n}-{}", self.room_id.trim_start_matches('!').replace(':', "-"))
    }

    async fn say(&self, n: usize, progress: &Progress) -> Acknowledged {
        let txn_id = self.txn_id(n);
        let content = json!({ "msgtype": "m.text", "body": txn_id });
        let send = || self.user.try_send(&self.room_id, "m.room.message", &txn_id, &content);
        let answer = until_acknowledged(progress, send).await;
        let Some(event_id) = answer["event_id"].as_str() else { panic!("200 without an event_id: {answer}") };

        Acknowledged {
            room_id: self.room_id.clone(),
            sender: self.user.id.clone(),
            event_id: event_id.to_owned(),
            txn_id,
        }
    }

    async fn write_to_device(&self, n: usize, progress: &Progress) {
        let txn_id = self.txn_id(n);
        let message = format!("{txn_id} of {}", self.user.id);
        let User { id, device_id, .. } = &self.neighbor;
        let body = json!({ "messages": { (id.as_str()): { (device_id.as_str()): { "body": message } } } });
        let path = format!("/_matrix/client/v3/sendToDevice/org.myelin.test/{txn_id}");
        until_acknowledged(progress, || self.user.try_request(Method::PUT, &path, Some(&body))).await;
        progress.sent_to_device(device_id, &message);
    }

    async fn read(&self, event_id: &str, progress: &Progress) {
        let (room, event) = (path_segment(&self.room_id), path_segment(event_id));
        let path = format!("/_matrix/client/v3/rooms/{room}/receipt/m.read/{event}");
        let body = json!({});
        until_acknowledged(progress, || self.user.try_request(Method::POST, &path, Some(&body))).await;
        progress.wrote(receipt_of(&self.user.id, &self.room_id), event_id, &self.others);
    }

    /// Notes something for their own devices.
    async fn note(&self, n: usize, progress: &Progress) {
        let (room, user) = (path_segment(&self.room_id), path_segment(&self.user.id));
        let path = format!("/_matrix/client/v3/user/{user}/rooms/{room}/account_data/org.myelin.test");
        let body = json!({ "n": n });
        until_acknowledged(progress, || self.user.try_request(Method::PUT, &path, Some(&body))).await;
        let key = account_data_of(&self.user.id, &self.room_id);
        progress.wrote(key, &n.to_string(), std::slice::from_ref(&self.user.id));
    }

    /// Half of the time what only they change, otherwise what others change, too.
    async fn change_state(&self, n: usize, progress: &Progress) {
        let (room, user) = (path_segment(&self.room_id), path_segment(&self.user.id));
        let key = if n.is_multiple_of(2) { user.as_str() } else { "" };
        let path = format!("/_matrix/client/v3/rooms/{room}/state/org.myelin.test/{key}");
        let body = json!({ "by": self.user.id, "n": n });
        until_acknowledged(progress, || self.user.try_request(Method::PUT, &path, Some(&body))).await;
    }

    /// Once in the life of each user, while the test breaks something.
    async fn change_keys(&self, progress: &Progress) {
        if !progress.is_past_half() || progress.devices_in_sync() < self.plan.users {
            return;
        }
        let User { id, device_id, .. } = &self.user;
        if !progress.devices_change(id, &self.contacts) {
            return;
        }
        let keys = json!({ "device_keys": {
            "user_id": id, "device_id": device_id, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": { format!("curve25519:{device_id}"): "3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI" },
            "signatures": {},
        } });
        let path = "/_matrix/client/v3/keys/upload";
        until_acknowledged(progress, || self.user.try_request(Method::POST, path, Some(&keys))).await;
    }
}

/// Repeats a request until it is answered 200, and gives the answer.
async fn until_acknowledged<Sent>(progress: &Progress, mut send: impl FnMut() -> Sent) -> Value
where
    Sent: Future<Output = Result<Answer, reqwest::Error>>,
{
    loop {
        let problem = match send().await {
            Ok(answer) if answer.status == 200 => return answer.body,
            // 408: the process was stopped while the request arrived.
            Ok(answer) if answer.status < 500 && answer.status != 429 && answer.status != 408 => {
                panic!("a request was refused with {}: {}", answer.status, answer.body)
            }
            Ok(answer) => format!("{}: {}", answer.status, answer.body),
            Err(error) => error.to_string(),
        };
        let is_late = Instant::now() >= progress.deadline;
        assert!(!is_late, "a request did not succeed in {LIMIT:?}, at last: {problem}");
        progress.failed(problem);
        sleep(PAUSE_BEFORE_RETRY).await;
    }
}
