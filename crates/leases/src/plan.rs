//! What a process does after it looked at who lives and who holds what: the rules of [`Share`](crate::Share) without a database.
//! `model.rs` tries them in every order.

use std::{borrow::Borrow, collections::HashMap};

use myelin_storage::instances::{Living, Registration};

use crate::Duty;

/// What a process does after a look.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Plan {
    /// Parts to give up, each with its heir, if there is one.
    pub give: Vec<(u16, Option<Registration>)>,
    /// Parts to take: nobody has them.
    pub take: Vec<u16>,
    /// Parts that are the process's own by its lease.
    pub mine: Vec<u16>,
}

impl Plan {
    /// What follows from who lives and who holds what.
    pub fn new(
        duty: Duty,
        me: Registration,
        living: &[impl Borrow<Living>],
        leases: &HashMap<u16, Registration>,
    ) -> Self {
        let living = || living.iter().map(Borrow::borrow);
        let candidates: Vec<&Living> =
            living().filter(|process| process.duties.iter().any(|name| name == duty.name)).collect();
        let mut plan = Self { give: Vec::new(), take: Vec::new(), mine: Vec::new() };
        for shard in 0..duty.shards {
            let heir = duty.heir(shard, candidates.iter().map(|process| process.name.as_str()));
            let desired = candidates.iter().find(|process| Some(process.name.as_str()) == heir);
            let desired = desired.map(|process| process.registration);
            let lives = |holder: &&Registration| living().any(|process| process.registration == **holder);
            match leases.get(&shard).filter(lives) {
                Some(holder) if *holder == me && desired != Some(me) => plan.give.push((shard, desired)),
                Some(holder) if *holder == me => plan.mine.push(shard),
                Some(_) => {}
                None if desired == Some(me) => plan.take.push(shard),
                None => {}
            }
        }
        plan
    }

    /// Those of the parts to take that may be taken now: who was stopped itself, or cut off from the database (`is_steady` is
    /// false), can't tell whether others are gone, and takes only what nobody had, or its own predecessor.
    pub fn claims(&self, me: Registration, leases: &HashMap<u16, Registration>, is_steady: bool) -> Vec<u16> {
        let of_another = |shard: &u16| leases.get(shard).is_some_and(|held| held.writer != me.writer);
        self.take.iter().filter(|shard| is_steady || !of_another(shard)).copied().collect()
    }

    /// Parts that another process handed to this one.
    pub fn inherited(&self, held: &[u16]) -> Vec<u16> {
        self.mine.iter().filter(|shard| !held.contains(shard)).copied().collect()
    }

    /// Nothing has to move.
    pub fn is_quiet(&self) -> bool {
        self.give.is_empty() && self.take.is_empty()
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use myelin_types::WriterId;

    use super::*;

    const DUTY: Duty = Duty { name: "events", shards: 128 };

    fn living(writer: i16, is_willing: bool) -> Living {
        Living {
            registration: Registration { writer: WriterId(writer), epoch: 1 },
            name: format!("w{writer}"),
            duties: is_willing.then(|| DUTY.name.to_owned()).into_iter().collect(),
            address: None,
        }
    }

    /// Has all processes look in turn until nothing moves, and gives who has how many parts. The newest looks first: what should be
    /// its own is still another's then.
    fn settle(processes: &[Living], leases: &mut HashMap<u16, Registration>) -> Vec<usize> {
        for round in 0.. {
            let mut moved = false;
            for process in processes.iter().rev() {
                let me = process.registration;
                let plan = Plan::new(DUTY, me, processes, leases);
                moved |= !plan.is_quiet();
                for (shard, heir) in plan.give {
                    assert_eq!(leases.remove(&shard), Some(me), "one gives only what one has");
                    heir.map(|heir| leases.insert(shard, heir));
                }
                for shard in plan.take {
                    let before = leases.insert(shard, me);
                    let lived =
                        before.is_some_and(|before| processes.iter().any(|p| p.registration == before));
                    assert!(!lived, "one takes nothing from the living");
                }
            }
            if !moved {
                break;
            }
            assert!(round < 3, "it never settles");
        }
        let count = |process: &Living| leases.values().filter(|held| **held == process.registration).count();
        processes.iter().map(count).collect()
    }

    #[test]
    fn parts_are_spread_and_follow_those_who_come_and_go() {
        let mut leases = HashMap::new();
        let mut processes = vec![living(1, true)];
        assert_eq!(settle(&processes, &mut leases), [128]);
        processes.push(living(2, true));
        processes.push(living(3, false));
        let spread = settle(&processes, &mut leases);
        assert_eq!((spread[0] + spread[1], spread[2]), (128, 0));
        assert!(spread[0].abs_diff(spread[1]) < 50, "{spread:?}");

        // One that dies leaves its parts to the other; what the other has does not move.
        let before = leases.clone();
        processes.remove(0);
        assert_eq!(settle(&processes, &mut leases), [128, 0]);
        let second = processes[0].registration;
        assert!(before.iter().all(|(shard, held)| *held != second || leases[shard] == second));

        // One that leaves gives its parts away; the last one leaves them to nobody.
        processes[1] = living(3, true);
        processes[0] = living(2, false);
        assert_eq!(settle(&processes, &mut leases), [0, 128]);
        processes[1] = living(3, false);
        assert_eq!(settle(&processes, &mut leases), [0, 0]);
    }

    #[test]
    fn who_was_silent_itself_takes_nothing_from_the_silent() {
        let me = living(1, true).registration;
        let registration = |writer, epoch| Registration { writer: WriterId(writer), epoch };
        let leases = HashMap::from([(0, registration(1, 0)), (1, registration(2, 1))]);
        let plan = Plan::new(Duty { name: "events", shards: 3 }, me, &[living(1, true)], &leases);
        assert_eq!(plan.claims(me, &leases, true), [0, 1, 2]);
        assert_eq!(plan.claims(me, &leases, false), [0, 2]);
    }
}
