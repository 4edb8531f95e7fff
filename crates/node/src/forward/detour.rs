//! The way to a process that this one does not reach, but others do: through one of them.

use std::{hash::BuildHasher as _, time::Duration};

use myelin_config::Address;
use myelin_http::RequestHead;
use tokio::time::{Instant, interval_at};
use tracing::debug;

use super::{Forwarding, Peer};
use crate::{peers::Passed, pulse::Pulse};

/// How long a process of which nothing is heard may take to answer, until another one is asked to ask it. Not so long that
/// whoever waits notices, and not so short that a process is taken for silent that has much to do: that one answers others.
const PATIENCE: Duration = Duration::from_secs(1);

impl Forwarding {
    /// Passes a request on: by ourselves, and once through a third process if the other one is not reached or, where the request
    /// may be served twice, does not answer.
    pub(super) async fn reach(&self, peer: &Peer, head: &RequestHead) -> Passed {
        let pulse = self.pulses.of(&peer.name);
        if pulse.is_silent()
            && let Some(passed) = self.detour(peer, head).await
        {
            return passed;
        }
        let asked = Instant::now();
        let direct = self.peers.pass_on(&peer.address, head, None);
        let passed = tokio::select! {
            passed = direct => passed,
            passed = self.detour_if_silent(&pulse, asked, peer, head) => return passed,
        };
        match passed {
            Passed::NotReached(error) => {
                debug!(%error, process = peer.name, "a process could not be reached");
                pulse.stop();
                self.detour(peer, head).await.unwrap_or(Passed::NotReached(error))
            }
            Passed::Lost(_) => passed,
            Passed::Answered(_) | Passed::Elsewhere(_) => {
                pulse.beat();
                passed
            }
        }
    }

    /// Ends with an answer that came through a third process, if one was needed.
    async fn detour_if_silent(
        &self,
        pulse: &Pulse,
        asked: Instant,
        peer: &Peer,
        head: &RequestHead,
    ) -> Passed {
        if self.may_repeat(head) {
            let mut ticks = interval_at(asked + PATIENCE, PATIENCE);
            ticks.tick().await;
            while pulse.was_heard_within(PATIENCE) {
                ticks.tick().await;
            }
            pulse.stop();
            if let Some(passed) = self.detour(peer, head).await {
                return passed;
            }
        }
        std::future::pending().await
    }

    /// Has a third process pass a request on; `None` if there is none, or it did not come to an answer either.
    async fn detour(&self, peer: &Peer, head: &RequestHead) -> Option<Passed> {
        let through = self.third(peer)?;
        debug!(process = peer.name, endpoint = head.endpoint(), "asking through a third process");
        match self.peers.pass_on(&through, head, Some(&peer.name)).await {
            Passed::Answered(answered) => Some(Passed::Answered(answered)),
            Passed::Elsewhere(holder) => Some(Passed::Elsewhere(holder)),
            Passed::NotReached(_) => None,
            // Whoever was in between may have passed it on.
            Passed::Lost(_) if self.may_repeat(head) => None,
            Passed::Lost(error) => Some(Passed::Lost(error)),
        }
    }

    /// Any process but us and the one that is not reached, and not always the same.
    fn third(&self, peer: &Peer) -> Option<Address> {
        let assignment = self.assignment.borrow();
        let is_third = |name: &str| name != peer.name && name != self.session.name();
        let living = || assignment.living().iter().filter(|process| is_third(&process.name));
        let now = usize::try_from(self.hasher.hash_one(Instant::now())).unwrap_or_default();
        let skipped = now.checked_rem(living().count())?;
        let in_turn = living().skip(skipped).chain(living().take(skipped));
        let mut reached = in_turn.filter(|process| !self.pulses.of(&process.name).has_stopped());
        reached.find_map(|process| self.peers.address(&process.name, process.address.as_deref()))
    }
}
