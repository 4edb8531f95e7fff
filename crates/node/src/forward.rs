//! Requests that another process has to serve.
//!
//! A room is written by one process, and the other streams by those that the configuration names. A request that reaches another
//! process is passed on as it is to the one that writes, and its answer passed back. While a writer is being replaced, requests
//! wait.

mod detour;

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Method};
use myelin_config::Address;
use myelin_http::{ApiError, Around, Next, REQUEST_ID, RawResponse, RequestHead, owner_of};
use myelin_leases::{Assignment, Living, Registration, Session, weigh};
use myelin_replication::Horizon;
use myelin_rooms::{Rooms, shard_of};
use myelin_routing::{Api, Operation, ServedBy};
use myelin_types::random_alphanumeric;
use ruma::RoomId;
use tokio::{sync::watch, time::Instant};
use tracing::debug;

use crate::{
    peers::{Passed, Peers},
    pulse::Pulses,
};

/// How long a request waits for a process that can serve it: longer than it takes until a dead one is replaced.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long between two attempts, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// How long the names of requests are that we give.
const REQUEST_ID_LENGTH: usize = 24;

/// Stands around all handlers of a process that is not alone.
pub(crate) struct Forwarding {
    session: Session,
    me: Registration,
    rooms: Rooms,
    horizon: Horizon,
    peers: Peers,
    pulses: Pulses,
    assignment: watch::Receiver<Assignment>,
    wishes: HashMap<&'static str, Wish>,
    /// The operations whose requests may be served twice.
    repeatable: HashSet<&'static str>,
    /// Those whose requests may be if they have a name.
    repeatable_by_name: HashSet<&'static str>,
    hasher: RandomState,
}

/// Who should serve an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// The writer of the room that this parameter of the path names.
    Room(usize),
    /// A writer of the stream, the same for each room that this parameter names.
    StreamByRoom(&'static str, usize),
    /// A writer of the stream, the same for each user.
    StreamByUser(&'static str),
}

/// Who has to serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// Any process.
    Any,
    /// The writer of a shard of rooms.
    Shard(u8),
    /// A writer of any shard of rooms.
    AnyShard,
    /// A writer of the stream, chosen by a hash.
    Stream(&'static str, u64),
}

/// Another process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    name: String,
    address: Address,
}

/// Where a request goes.
enum Place {
    Here,
    There(Peer),
    /// Nobody can serve it at the moment.
    Nowhere,
}

impl Forwarding {
    pub fn new(session: Session, rooms: Rooms, horizon: Horizon, peers: Peers) -> Option<Self> {
        let assignment = rooms.writers()?;
        let me = session.registration();
        let hasher = RandomState::new();
        let which = |may: fn(&Operation) -> bool| {
            let operations = myelin_routing::operations().iter().filter(|operation| may(operation));
            operations.map(|operation| operation.name.as_str()).collect()
        };
        let (repeatable, repeatable_by_name) =
            (which(Operation::may_repeat), which(Operation::may_repeat_by_name));
        let pulses = Pulses::default();
        Some(Self {
            session,
            me,
            rooms,
            horizon,
            peers,
            pulses,
            assignment,
            wishes: wishes(),
            repeatable,
            repeatable_by_name,
            hasher,
        })
    }

    fn target(&self, head: &RequestHead, next: &Next) -> Target {
        let arg = |index: usize| next.path_args().get(index).map(String::as_str).unwrap_or_default();
        match self.wishes.get(head.endpoint()) {
            Some(Wish::Room(index)) => {
                RoomId::parse(arg(*index)).map_or(Target::Any, |room_id| Target::Shard(shard_of(&room_id)))
            }
            Some(Wish::StreamByRoom(stream, index)) => Target::Stream(stream, weigh(arg(*index), "")),
            Some(Wish::StreamByUser(stream)) => {
                let token = head.access_token().unwrap_or_default();
                Target::Stream(stream, weigh(owner_of(&token), ""))
            }
            None => Target::Any,
        }
    }

    /// Whether a request may be served twice: a `POST` may have made something.
    fn may_repeat(&self, head: &RequestHead) -> bool {
        let endpoint = head.endpoint();
        let may_repeat_by_name = || self.repeatable_by_name.contains(endpoint);
        head.method() != Method::POST
            || self.repeatable.contains(endpoint)
            || may_repeat_by_name() && head.headers().contains_key(REQUEST_ID)
    }

    /// The request with a name, if it needs one to be served twice and whoever sent it gave it none.
    fn named_if_needed(&self, head: RequestHead) -> RequestHead {
        if !self.repeatable_by_name.contains(head.endpoint()) || head.headers().contains_key(REQUEST_ID) {
            return head;
        }
        match HeaderValue::from_str(&random_alphanumeric(REQUEST_ID_LENGTH)) {
            Ok(name) => head.with_header(REQUEST_ID, name),
            Err(_) => head,
        }
    }

    /// A process that another one named as the one to ask.
    fn named(&self, name: &str) -> Option<Peer> {
        let assignment = self.assignment.borrow();
        let announced = assignment.living().iter().find(|process| process.name == name);
        let address = self.peers.address(name, announced.and_then(|process| process.address.as_deref()));
        Some(Peer { name: name.to_owned(), address: address? })
    }

    fn place(&self, target: Target) -> Place {
        let assignment = self.assignment.borrow();
        match target {
            Target::Any => Place::Here,
            Target::Shard(shard) => match assignment.holder(shard.into()) {
                Some(holder) if holder.registration == self.me => Place::Here,
                Some(holder) => self.there(holder),
                None => Place::Nowhere,
            },
            Target::AnyShard => {
                let holders = assignment.holders();
                if holders.iter().any(|holder| holder.registration == self.me) {
                    return Place::Here;
                }
                // Any will do, and not always the same.
                let now = self.hasher.hash_one(Instant::now());
                let index = usize::try_from(now).unwrap_or_default().checked_rem(holders.len());
                index.and_then(|index| holders.get(index)).map_or(Place::Nowhere, |holder| self.there(holder))
            }
            Target::Stream(stream, key) => {
                let writers = assignment
                    .living()
                    .iter()
                    .filter(|process| process.duties.iter().any(|duty| duty == stream));
                let key = key.to_string();
                let chosen = writers.max_by_key(|process| weigh(&key, &process.name));
                match chosen {
                    // Whoever writes is fenced by its own epoch, so where the named writers are gone, any process can.
                    None => Place::Here,
                    Some(chosen) if chosen.registration == self.me => Place::Here,
                    Some(chosen) => self.there(chosen),
                }
            }
        }
    }

    fn there(&self, process: &Living) -> Place {
        match self.peers.address(&process.name, process.address.as_deref()) {
            Some(address) => Place::There(Peer { name: process.name.clone(), address }),
            None => Place::Nowhere,
        }
    }

    async fn serve(&self, head: RequestHead, next: Next) -> Result<RawResponse, ApiError> {
        let head = self.named_if_needed(head);
        let mut target = self.target(&head, &next);
        let started = Instant::now();
        let mut pause = PAUSE.0;
        let mut named = None;
        while started.elapsed() < PATIENCE {
            let advice: Option<Peer> = named.take();
            let is_advised = advice.is_some();
            match advice.map_or_else(|| self.place(target), Place::There) {
                Place::Here => match self.serve_here(target, &head, &next).await {
                    Err(error) => match error.is_elsewhere() {
                        Some(Some(shard)) => target = Target::Shard(shard),
                        Some(None) if target == Target::Any => target = Target::AnyShard,
                        Some(None) => {}
                        None => return Err(error),
                    },
                    Ok(answer) => return Ok(answer),
                },
                Place::There(peer) => match self.pass_on(&peer, &head, target).await {
                    Some(Passed::Answered(answered)) => return Ok(answered.into_response()),
                    Some(Passed::Elsewhere(holder)) => {
                        let holder = holder.and_then(|holder| self.named(&holder));
                        named = to_follow(holder, &peer, is_advised);
                        if named.is_some() {
                            continue;
                        }
                    }
                    None => {}
                    // Also a writer that is gone is no reason for what any process can do not to be done.
                    Some(Passed::NotReached(error)) => {
                        debug!(%error, "a process that should serve a request could not be reached");
                        if let Target::Stream(..) = target {
                            target = Target::Any;
                        }
                    }
                    Some(Passed::Lost(error)) => {
                        debug!(%error, endpoint = head.endpoint(), "a request that was passed on was not answered");
                        if !self.may_repeat(&head) {
                            return Err(ApiError::unavailable(
                                "The request may or may not have been served",
                                Duration::from_secs(1),
                            ));
                        }
                    }
                },
                Place::Nowhere => {}
            }
            self.rooms.look_for_writers();
            let mut assignment = self.assignment.clone();
            assignment.mark_unchanged();
            let _ = tokio::time::timeout(pause, assignment.changed()).await;
            pause = (pause * 2).min(PAUSE.1);
        }
        Err(ApiError::unavailable("No process can serve this at the moment", Duration::from_secs(1)))
    }

    /// Has the handler answer; not what needs rooms of this process once others take it for dead, and have these or soon will.
    async fn serve_here(
        &self,
        target: Target,
        head: &RequestHead,
        next: &Next,
    ) -> Result<RawResponse, ApiError> {
        let served = async {
            // Whoever was answered by another process finds here what that one wrote.
            self.horizon.reach().await;
            next.run(head.clone()).await
        };
        if !matches!(target, Target::Shard(_) | Target::AnyShard) {
            return served.await;
        }
        tokio::select! {
            biased;
            answer = served => answer,
            () = self.session.silent() => {
                let message = "This process does not reach its database; the request may or may not have been served";
                Err(ApiError::unavailable(message, Duration::from_secs(1)))
            }
        }
    }

    /// Passes a request on; `None` if the process lost its part meanwhile, or was not heard of any more, and the request may be
    /// given to its heir. What a process that was replaced still has under way is refused by the database, or does no harm.
    async fn pass_on(&self, peer: &Peer, head: &RequestHead, target: Target) -> Option<Passed> {
        let passing = self.reach(peer, head);
        if !self.may_repeat(head) || target == Target::Any {
            return Some(passing.await);
        }
        let mut assignment = self.assignment.clone();
        let moved = async {
            while assignment.changed().await.is_ok() {
                if self.has_moved(target, peer) {
                    return;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            passed = passing => Some(passed),
            () = moved => None,
        }
    }

    /// Whether what a process was asked for is not its own any more. What is nobody's may still be.
    fn has_moved(&self, target: Target, peer: &Peer) -> bool {
        if target == Target::AnyShard {
            let assignment = self.assignment.borrow();
            let holders = assignment.holders();
            return !holders.is_empty() && holders.iter().all(|holder| holder.name != peer.name);
        }
        match self.place(target) {
            Place::There(now) => now != *peer,
            Place::Nowhere => false,
            Place::Here => true,
        }
    }
}

impl Around for Forwarding {
    fn call(
        self: Arc<Self>,
        head: RequestHead,
        next: Next,
    ) -> BoxFuture<'static, Result<RawResponse, ApiError>> {
        Box::pin(async move { self.serve(head, next).await })
    }
}

/// The process to ask at once, of which one that was `asked` says that it has to serve the request: it may know better than we do.
/// Who was asked on another's advice is not followed farther, since two may name each other.
fn to_follow(named: Option<Peer>, asked: &Peer, was_advised: bool) -> Option<Peer> {
    named.filter(|named| named != asked && !was_advised)
}

/// What the table of operations says, by the operation's name.
fn wishes() -> HashMap<&'static str, Wish> {
    let operations = myelin_routing::operations().iter().filter(|operation| operation.api == Api::Client);
    let wish = |operation: &'static myelin_routing::Operation| {
        let parameters = operation.path.split('/').filter(|segment| segment.starts_with('{'));
        let room = parameters.into_iter().position(|segment| segment == "{roomId}");
        let wish = match operation.served_by {
            ServedBy::EventsWriter => Wish::Room(room?),
            ServedBy::TypingWriter => Wish::StreamByRoom("typing", room?),
            ServedBy::ToDeviceWriter => Wish::StreamByUser("to_device"),
            ServedBy::ReceiptsWriter => Wish::StreamByUser("receipts"),
            ServedBy::PresenceWriter => Wish::StreamByUser("presence"),
            ServedBy::AccountDataWriter => Wish::StreamByUser("account_data"),
            ServedBy::PushRulesWriter => Wish::StreamByUser("push_rules"),
            ServedBy::DeviceListsWriter => Wish::StreamByUser("device_lists"),
            ServedBy::Main | ServedBy::GenericWorker | ServedBy::MediaRepo | ServedBy::UserDir => {
                return None;
            }
        };
        Some((operation.name.as_str(), wish))
    };
    operations.filter_map(wish).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_that_write_know_their_writer() {
        let wishes = wishes();
        let check = |name: &str, wish| assert_eq!(wishes.get(name).copied(), wish, "{name}");
        check("sendMessage", Some(Wish::Room(0)));
        check("setTyping", Some(Wish::StreamByRoom("typing", 0)));
        check("setAccountDataPerRoom", Some(Wish::StreamByUser("account_data")));
        check("sync", None);
        check("createRoom", None);
    }

    #[test]
    fn a_request_does_not_go_round_between_processes() {
        let [one, other] = [("one", "http://127.0.0.1:1"), ("other", "http://127.0.0.1:2")]
            .map(|(name, address)| Peer { name: name.to_owned(), address: Address::parse(address).unwrap() });
        assert_eq!(to_follow(Some(other.clone()), &one, false), Some(other.clone()));
        assert_eq!(to_follow(Some(one.clone()), &other, true), None, "the other had named this one");
        assert_eq!(to_follow(Some(one.clone()), &one, false), None, "it names itself");
        assert_eq!(to_follow(None, &one, false), None);
    }
}
