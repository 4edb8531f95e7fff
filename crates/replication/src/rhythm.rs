//! How long a transaction that many could share waits for them.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};

/// Requests that are not worth waiting for more: what a transaction takes by itself is little of what so many take.
const ENOUGH: usize = 16;
/// After waiting in vain, so many transactions are made without waiting, at most.
const LONGEST_REST: u32 = 256;

/// When to begin the next of a row of transactions.
///
/// Clients that write one thing after the other fall into two halves: while the requests of one are being committed, those of the
/// other gather. If the first half comes back in less time than a transaction takes, then waiting for it costs nobody anything, and
/// half of the transactions are saved. So a transaction waits for as many requests as were answered by the one before it, up to
/// [`ENOUGH`], but not longer than that one took; if they don't come, or not in time, the next few transactions do not wait.
#[derive(Debug)]
pub(crate) struct Rhythm {
    /// Requests that the last transaction answered, and those that came meanwhile.
    expected: usize,
    began: Instant,
    ended: Instant,
    /// Transactions to make without waiting.
    rest: u32,
    next_rest: u32,
    has_waited: bool,
}

impl Default for Rhythm {
    fn default() -> Self {
        let now = Instant::now();
        Self { expected: 0, began: now, ended: now, rest: 0, next_rest: 1, has_waited: false }
    }
}

impl Rhythm {
    /// The next request for a transaction that has `members`; `None` if it is to begin.
    pub async fn next<T>(&mut self, queue: &mut mpsc::Receiver<T>, members: usize) -> Option<T> {
        if let Ok(request) = queue.try_recv() {
            return Some(request);
        }
        if self.rest > 0 || members >= self.wanted() {
            return None;
        }
        let latest = self.ended + self.took();
        if Instant::now() >= latest {
            return None;
        }
        self.has_waited = true;
        tokio::time::timeout_at(latest, queue.recv()).await.ok().flatten()
    }

    /// A transaction with `members` begins.
    pub fn begin(&mut self, members: usize) {
        let now = Instant::now();
        if self.has_waited {
            if members < self.wanted() || now > self.ended + self.took() {
                self.rest = self.next_rest;
                self.next_rest = (2 * self.next_rest).min(LONGEST_REST);
            } else {
                self.next_rest = 1;
            }
        } else {
            self.rest = self.rest.saturating_sub(1);
        }
        self.has_waited = false;
        self.began = now;
    }

    /// It ended, and is about to answer its `members`; so many others are `waiting`.
    pub fn end(&mut self, members: usize, waiting: usize) {
        self.expected = members + waiting;
        self.ended = Instant::now();
    }

    /// How many requests are waited for.
    fn wanted(&self) -> usize {
        self.expected.min(ENOUGH)
    }

    /// How long the last transaction took.
    fn took(&self) -> Duration {
        self.ended.saturating_duration_since(self.began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: Duration = Duration::from_millis(10);

    /// A transaction that began with one request: how many shared it.
    async fn transact(rhythm: &mut Rhythm, queue: &mut mpsc::Receiver<()>) -> usize {
        queue.recv().await.unwrap();
        let mut members = 1;
        while rhythm.next(queue, members).await.is_some() {
            members += 1;
        }
        rhythm.begin(members);
        tokio::time::sleep(COMMIT).await;
        rhythm.end(members, queue.len());
        members
    }

    /// As many clients as given, each of which sends its next request so long after an answer; the second half begins while
    /// the first is being committed. Gives the sizes of so many transactions.
    async fn run(clients: usize, pause: Duration, transactions: usize) -> Vec<usize> {
        let (sender, mut queue) = mpsc::channel(64);
        let mut rhythm = Rhythm::default();
        let ask = |after: Duration, count: usize| {
            for _ in 0..count {
                let sender = sender.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    let _ = sender.send(()).await;
                });
            }
        };
        ask(Duration::ZERO, clients / 2);
        ask(COMMIT / 2, clients - clients / 2);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut sizes = Vec::new();
        for _ in 0..transactions {
            let served = transact(&mut rhythm, &mut queue).await;
            ask(pause, served);
            sizes.push(served);
        }
        sizes
    }

    #[tokio::test(start_paused = true)]
    async fn clients_who_come_back_at_once_share_one_transaction() {
        assert_eq!(run(8, COMMIT / 5, 5).await, [4, 8, 8, 8, 8]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_later_than_a_transaction_takes_is_seldom_waited_for() {
        let sizes = run(8, COMMIT * 2, 40).await;
        assert!(sizes.iter().all(|&size| size <= 4), "{sizes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_where_many_are_there() {
        assert_eq!(run(40, COMMIT / 5, 6).await, [20; 6]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_alone_waits_for_nobody() {
        let start = Instant::now();
        assert_eq!(run(1, COMMIT / 5, 10).await, [1; 10]);
        // The first request comes in the middle of a transaction that was not needed.
        assert!(start.elapsed() <= 11 * COMMIT + 10 * COMMIT / 5, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_in_vain_is_rarer_each_time() {
        let (sender, mut queue) = mpsc::channel(64);
        let mut rhythm = Rhythm::default();
        let mut waits = 0;
        for _ in 0..200 {
            // Of two that are answered together, one comes back; then it finds another.
            for requests in [2, 1] {
                for _ in 0..requests {
                    sender.send(()).await.unwrap();
                }
                let before = Instant::now();
                assert_eq!(transact(&mut rhythm, &mut queue).await, requests);
                waits += usize::from(before.elapsed() > COMMIT * 3 / 2);
            }
        }
        assert!((1..=9).contains(&waits), "waited {waits} times of 400");
    }
}
