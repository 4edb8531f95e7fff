//! What processes tell each other of who is typing. Any message may be lost, repeated, late or out of order.
//!
//! A process says how far it is with each word, and by itself every now and then. Whoever finds that it missed something asks,
//! and everybody is told again what holds of it; until then, what comes after the gap does not count.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use myelin_types::{StreamId, WriterId};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Inner, State, Typing, Word};

/// How often a process says how far it is, after it said something.
const REMIND: Duration = Duration::from_secs(1);
/// For how long so often.
const REMIND_FOR: Duration = Duration::from_secs(60);
/// How many times less often it says so after that.
const SELDOM: u64 = 15;
/// How often a new process asks what the others have said, in case that they don't hear it yet.
const HELLOS: u64 = 3;
/// How long an answer may take until it is asked for again.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// For how long an answer is not repeated: more than one process may ask for it.
const ANSWER_EVERY: Duration = Duration::from_millis(100);
/// Words of one answer. Whoever needs more asks again.
const MAX_WORDS: usize = 2_000;

/// What a process tells the others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TypingMessage {
    from: WriterId,
    /// The greatest count of all stamps that it knows of.
    count: u64,
    what: What,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum What {
    /// A new word, and where the one before it was.
    Word { before: StreamId, word: Word },
    /// All that holds of what was said after a place, up to another.
    Words { after: StreamId, upto: StreamId, words: Vec<Word> },
    /// How far the process is.
    Upto(StreamId),
    /// What did this process, or each, say after this place?
    Ask { of: Option<WriterId>, after: StreamId },
}

/// Tells the other processes. Must not block.
pub(super) type Outlet = Box<dyn Fn(TypingMessage) + Send + Sync>;

/// What was heard of another process.
#[derive(Default)]
pub(super) struct Heard {
    /// Everything up to here.
    upto: StreamId,
    asked: Option<Instant>,
}

/// An answer that everybody was given.
pub(super) struct Answered {
    after: StreamId,
    upto: StreamId,
    at: Instant,
}

impl Typing {
    /// Has `outlet` called with what the other processes are to [`hear`](Self::hear), and asks them what they have said. It must
    /// not block. Only the first counts.
    pub fn publish_to(&self, outlet: impl Fn(TypingMessage) + Send + Sync + 'static) {
        if self.0.outlet.set(Box::new(outlet)).is_ok() {
            tokio::spawn(remind(Arc::downgrade(&self.0)));
        }
    }

    /// Takes in what another process tells.
    pub fn hear(&self, message: TypingMessage) {
        let TypingMessage { from, count, what } = message;
        if from == self.0.me {
            return;
        }
        let mut state = self.0.state.lock();
        state.count = state.count.max(count);
        let upto = state.heard.entry(from).or_default().upto;
        match what {
            What::Word { before, word } if before == upto => {
                self.0.take(&mut state, from, &word, false);
                state.heard.entry(from).or_default().upto = word.id;
            }
            What::Word { word, .. } => self.0.ask_if_missed(&mut state, from, word.id),
            What::Words { after, upto: to, words } if after <= upto => {
                words.iter().filter(|word| word.id > upto).for_each(|word| {
                    self.0.take(&mut state, from, word, true);
                });
                let heard = state.heard.entry(from).or_default();
                (heard.upto, heard.asked) = (to.max(upto), None);
            }
            What::Words { upto: to, .. } | What::Upto(to) => self.0.ask_if_missed(&mut state, from, to),
            What::Ask { of, after } if of.is_none_or(|of| of == self.0.me) => {
                self.0.answer(&mut state, after);
            }
            What::Ask { .. } => {}
        }
    }
}

impl Inner {
    pub(super) fn tell(&self, state: &State, what: What) {
        if let Some(outlet) = self.outlet.get() {
            outlet(TypingMessage { from: self.me, count: state.count, what });
        }
    }

    fn ask_if_missed(&self, state: &mut State, of: WriterId, said: StreamId) {
        let heard = state.heard.entry(of).or_default();
        if said <= heard.upto || heard.asked.is_some_and(|asked| asked.elapsed() < ASK_EVERY) {
            return;
        }
        heard.asked = Some(Instant::now());
        let after = heard.upto;
        self.tell(state, What::Ask { of: Some(of), after });
    }

    /// Tells everybody what holds of what was said here after a place.
    fn answer(&self, state: &mut State, after: StreamId) {
        let is_told = state.answered.as_ref().is_some_and(|answered| {
            answered.after <= after && answered.upto == state.last && answered.at.elapsed() < ANSWER_EVERY
        });
        if is_told {
            return;
        }
        let now = Instant::now();
        let rooms = state.rooms.iter();
        let mut words: Vec<Word> =
            rooms.flat_map(|(room_nid, room)| room.words_after(*room_nid, self.me, after, now)).collect();
        words.sort_unstable_by_key(|word| word.id);
        let is_cut = words.len() > MAX_WORDS;
        words.truncate(MAX_WORDS);
        let upto = words.last().filter(|_| is_cut).map_or(state.last, |word| word.id);
        state.answered = Some(Answered { after, upto, at: now });
        self.tell(state, What::Words { after, upto, words });
    }
}

/// Says how far this process is, as long as it lives.
async fn remind(typing: Weak<Inner>) {
    let mut ticks = interval(REMIND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0_u64.. {
        ticks.tick().await;
        let Some(typing) = typing.upgrade() else { return };
        let state = typing.state.lock();
        if tick < HELLOS {
            typing.tell(&state, What::Ask { of: None, after: StreamId::ZERO });
        }
        let is_news = |said: Instant| said.elapsed() < REMIND_FOR || tick % SELDOM == 0;
        if state.last_said.is_some_and(is_news) {
            typing.tell(&state, What::Upto(state.last));
        }
    }
}
