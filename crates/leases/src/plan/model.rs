//! The protocol of leases and fences, tried in every order of its steps.
//!
//! What processes decide is [`Plan`] itself; what the database does is said again here, a step for each transaction of
//! `myelin_storage::instances`. A process that stands still is one whose next step comes late, so every order includes that.
//! Time does not pass: a heartbeat may run out at any moment.

use std::collections::HashMap;

use myelin_storage::instances::{Living, Registration};
use myelin_types::WriterId;
use stateright::{Checker, HasDiscoveries, Model, Property};

use super::Plan;
use crate::Duty;

/// Parts at most.
const SHARDS: usize = 2;
/// Of two parts, each should have one.
const NAMES: [&str; 2] = ["events1", "events2"];
/// The name of each process: two may have the same one, since a process can lose the lock on its name and not know it.
const PROCESSES: [usize; 3] = [0, 0, 1];

/// What keeps a process from writing that may not do so any more. Each is left out by a test.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// A commit needs the epoch of the writer's position in the stream.
    commits_check_the_fence: bool,
    /// A process that registers moves the epoch of its name's positions in streams, too.
    registering_fences: bool,
    /// Parts are taken in a transaction that checks the taker's own epoch.
    takers_check_themselves: bool,
    /// Who gives parts away waits for what is under way.
    givers_wait: bool,
}

const RULES: Rules = Rules {
    commits_check_the_fence: true,
    registering_fences: true,
    takers_check_themselves: true,
    givers_wait: true,
};

struct Leases {
    rules: Rules,
    duty: Duty,
    mishaps: u8,
}

/// The database, and all processes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    instances: [Instance; NAMES.len()],
    leases: [Option<Registration>; SHARDS],
    processes: [Process; PROCESSES.len()],
    mishaps_left: u8,
    crime: Option<Crime>,
}

/// A row of `instances`, with its row of `stream_positions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Instance {
    epoch: i64,
    position_epoch: i64,
    lives: bool,
    is_willing: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Process {
    epoch: i64,
    is_running: bool,
    has_claimed: bool,
    /// What it has in memory of the parts that it has.
    held: [Option<Memory>; SHARDS],
    /// What it sent to the database, which may arrive after the process's death.
    writing: [Option<Memory>; SHARDS],
    look: Look,
}

/// Whether all that was committed to a part is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Memory {
    Fresh,
    Stale,
}

/// How far a look has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Look {
    #[default]
    Idle,
    /// It has read who lives: the epoch, and whether they take part.
    Seen([Option<(i64, bool)>; NAMES.len()]),
    Giving(Plan, Vec<u16>),
    Taking(Plan, Vec<u16>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Crime {
    /// Something was committed by a process that does not have the lease.
    NotTheHolder,
    /// Something was committed that builds on less than what was committed before.
    LostUpdate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Start(usize),
    Beat(usize),
    RunOut(usize),
    Die(usize),
    Leave(usize),
    See(usize),
    Decide(usize),
    Give(usize),
    Take(usize),
    Begin(usize, usize),
    Commit(usize, usize),
}

fn registration(name: usize, epoch: i64) -> Registration {
    Registration { writer: WriterId(i16::try_from(name).expect("there are few names")), epoch }
}

impl World {
    fn me(&self, process: usize) -> Registration {
        registration(PROCESSES[process], self.processes[process].epoch)
    }

    fn instance(&self, of: Registration) -> &Instance {
        &self.instances[usize::try_from(of.writer.0).expect("names are counted from 0")]
    }

    fn is_current(&self, process: usize) -> bool {
        self.instances[PROCESSES[process]].epoch == self.processes[process].epoch
    }

    /// `instances::register`, and `take_part`.
    fn start(&mut self, rules: Rules, process: usize) {
        let instance = &mut self.instances[PROCESSES[process]];
        instance.epoch += 1;
        (instance.lives, instance.is_willing) = (true, true);
        if rules.registering_fences {
            instance.position_epoch = instance.epoch;
        }
        let epoch = instance.epoch;
        self.processes[process] = Process { epoch, is_running: true, ..Process::default() };
    }

    /// The process ends; what it has sent is still on its way.
    fn end(&mut self, process: usize) {
        let Process { epoch, has_claimed, writing, .. } = self.processes[process].clone();
        self.processes[process] = Process { epoch, has_claimed, writing, ..Process::default() };
    }

    /// `instances::heartbeat`.
    fn beat(&mut self, process: usize) {
        match self.is_current(process) {
            true => self.instances[PROCESSES[process]].lives = true,
            false => self.end(process),
        }
    }

    /// `instances::list_living`.
    fn see(&mut self, process: usize) {
        let living = self.instances.clone().map(|row| row.lives.then_some((row.epoch, row.is_willing)));
        self.processes[process].look = Look::Seen(living);
    }

    /// `instances::list_leases`, and what follows from it.
    fn decide(&mut self, duty: Duty, process: usize) {
        let Look::Seen(seen) = self.processes[process].look else { return };
        let living = |(name, seen): (usize, &Option<(i64, bool)>)| {
            let (epoch, is_willing) = (*seen)?;
            let duties = is_willing.then(|| duty.name.to_owned()).into_iter().collect();
            let (registration, name) = (registration(name, epoch), NAMES[name].to_owned());
            Some(Living { registration, name, duties, address: None })
        };
        let living: Vec<Living> = seen.iter().enumerate().filter_map(living).collect();
        let leases: HashMap<u16, Registration> =
            (0..).zip(self.leases).filter_map(|(shard, holder)| Some((shard, holder?))).collect();
        let me = self.me(process);
        let plan = Plan::new(duty, me, &living, &leases);
        let claims = plan.claims(me, &leases, true);
        let has_nothing_to_take = claims.is_empty() && plan.inherited(&self.held(process)).is_empty();
        self.processes[process].look = match plan.give.is_empty() {
            false => Look::Giving(plan, claims),
            true if has_nothing_to_take => Look::Idle,
            true => Look::Taking(plan, claims),
        };
    }

    fn held(&self, process: usize) -> Vec<u16> {
        let held = (0..).zip(self.processes[process].held);
        held.filter_map(|(shard, memory)| memory.map(|_| shard)).collect()
    }

    /// What is under way for the parts to give has ended.
    fn may_give(&self, process: usize, plan: &Plan) -> bool {
        plan.give.iter().all(|(shard, _)| self.processes[process].writing[usize::from(*shard)].is_none())
    }

    /// `instances::hand_over_leases`.
    fn give(&mut self, process: usize) {
        let Look::Giving(plan, claims) = self.processes[process].look.clone() else { return };
        let me = self.me(process);
        for (shard, heir) in &plan.give {
            let shard = usize::from(*shard);
            self.processes[process].held[shard] = None;
            if self.leases[shard] == Some(me) {
                self.leases[shard] = *heir;
            }
        }
        self.processes[process].look = Look::Taking(plan, claims);
    }

    /// `Session::acquire`.
    fn take(&mut self, rules: Rules, process: usize) {
        let Look::Taking(plan, claims) = std::mem::take(&mut self.processes[process].look) else { return };
        let me = self.me(process);
        if !claims.is_empty() && rules.takers_check_themselves && !self.is_current(process) {
            return self.end(process);
        }
        let mut gained = plan.inherited(&self.held(process));
        let wanted = claims.iter().map(|shard| usize::from(*shard));
        let holders: Vec<Registration> = wanted.filter_map(|shard| self.leases[shard]).collect();
        for holder in holders {
            let instance = &mut self.instances[usize::try_from(holder.writer.0).expect("a name")];
            if !instance.lives && instance.epoch == holder.epoch && holder.writer != me.writer {
                instance.epoch += 1;
                instance.position_epoch = instance.epoch;
            }
        }
        for shard in claims {
            let is_anothers = self.leases[usize::from(shard)].is_some_and(|holder| {
                let instance = self.instance(holder);
                instance.lives && instance.epoch == holder.epoch && holder.writer != me.writer
            });
            if !is_anothers {
                self.leases[usize::from(shard)] = Some(me);
                gained.push(shard);
            }
        }
        for shard in gained {
            self.processes[process].held[usize::from(shard)] = Some(Memory::Fresh);
        }
    }

    /// `StreamWriter`'s transaction: a position is claimed before the first one.
    fn commit(&mut self, rules: Rules, process: usize, shard: usize) {
        let Some(memory) = self.processes[process].writing[shard].take() else { return };
        if !self.processes[process].has_claimed {
            // Ends as a transaction of its own, so what is checked here holds for the rest of this step.
            if !self.is_current(process) {
                return self.end(process);
            }
            self.processes[process].has_claimed = true;
            self.instances[PROCESSES[process]].position_epoch = self.processes[process].epoch;
        }
        let is_fenced = self.instances[PROCESSES[process]].position_epoch != self.processes[process].epoch;
        if is_fenced && rules.commits_check_the_fence {
            return self.end(process);
        }
        if memory == Memory::Stale {
            self.crime = Some(Crime::LostUpdate);
        }
        if self.leases[shard] != Some(self.me(process)) {
            self.crime = Some(Crime::NotTheHolder);
        }
        for (other, process_of_shard) in self.processes.iter_mut().enumerate() {
            if other != process {
                let Process { held, writing, .. } = process_of_shard;
                held[shard] = held[shard].map(|_| Memory::Stale);
                writing[shard] = writing[shard].map(|_| Memory::Stale);
            }
        }
    }

    fn is_busy(&self) -> bool {
        self.processes
            .iter()
            .any(|Process { look, writing, .. }| *look != Look::Idle || writing.iter().any(Option::is_some))
    }

    /// Whether all parts are held by those who should have them, once nothing more goes wrong for a while.
    fn comes_to_rest(&self, rules: Rules, duty: Duty) -> bool {
        let mut world = self.clone();
        for _ in 0..4 {
            for process in 0..PROCESSES.len() {
                if world.processes[process].is_running {
                    world.beat(process);
                }
                if world.processes[process].is_running {
                    world.see(process);
                    world.decide(duty, process);
                    world.give(process);
                    world.take(rules, process);
                }
            }
            for (name, instance) in world.instances.iter_mut().enumerate() {
                let lives = |(process, its_name): (usize, &usize)| {
                    let process = &world.processes[process];
                    *its_name == name && process.is_running && process.epoch == instance.epoch
                };
                instance.lives = PROCESSES.iter().enumerate().any(lives);
            }
        }
        let is_willing = |name: &usize| world.instances[*name].lives && world.instances[*name].is_willing;
        let willing: Vec<usize> = (0..NAMES.len()).filter(is_willing).collect();
        let has_heir = |shard: u16| {
            let heir = duty.heir(shard, willing.iter().map(|name| NAMES[*name]))?;
            let has_it = |process: &usize| {
                NAMES[PROCESSES[*process]] == heir
                    && world.processes[*process].is_running
                    && world.processes[*process].held[usize::from(shard)].is_some()
                    && world.leases[usize::from(shard)] == Some(world.me(*process))
            };
            (0..PROCESSES.len()).find(has_it)
        };
        willing.is_empty() || (0..duty.shards).all(|shard| has_heir(shard).is_some())
    }
}

impl Model for Leases {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let mut world = World {
            instances: Default::default(),
            leases: [None; SHARDS],
            processes: Default::default(),
            mishaps_left: self.mishaps,
            crime: None,
        };
        world.start(self.rules, 0);
        world.start(self.rules, 2);
        vec![world]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for (process, Process { is_running, look, held, writing, .. }) in world.processes.iter().enumerate() {
            let shards = 0..SHARDS;
            steps.extend(
                shards.clone().filter(|shard| writing[*shard].is_some()).map(|s| Step::Commit(process, s)),
            );
            if !is_running {
                if world.mishaps_left > 0 && writing.iter().all(Option::is_none) {
                    steps.push(Step::Start(process));
                }
                continue;
            }
            let is_current = world.is_current(process);
            let instance = &world.instances[PROCESSES[process]];
            if !is_current || !instance.lives {
                steps.push(Step::Beat(process));
            }
            if world.mishaps_left > 0 {
                steps.push(Step::Die(process));
                if is_current && instance.is_willing {
                    steps.push(Step::Leave(process));
                }
            }
            match look {
                Look::Idle => steps.push(Step::See(process)),
                Look::Seen(_) => steps.push(Step::Decide(process)),
                Look::Giving(plan, _) if world.may_give(process, plan) || !self.rules.givers_wait => {
                    steps.push(Step::Give(process));
                }
                Look::Giving(..) => {}
                Look::Taking(..) => steps.push(Step::Take(process)),
            }
            let is_given = |shard: usize| match look {
                Look::Giving(plan, _) => plan.give.iter().any(|(given, _)| usize::from(*given) == shard),
                _ => false,
            };
            let may_begin =
                |shard: &usize| held[*shard].is_some() && writing[*shard].is_none() && !is_given(*shard);
            steps.extend(shards.filter(may_begin).map(|shard| Step::Begin(process, shard)));
        }
        let names = (0..NAMES.len()).filter(|name| world.mishaps_left > 0 && world.instances[*name].lives);
        steps.extend(names.map(Step::RunOut));
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        // What comes after a crime is of no interest.
        let mut world = last.crime.is_none().then(|| last.clone())?;
        if let Step::Start(_) | Step::Die(_) | Step::Leave(_) | Step::RunOut(_) = step {
            world.mishaps_left -= 1;
        }
        match step {
            Step::Start(process) => world.start(self.rules, process),
            Step::Beat(process) => world.beat(process),
            Step::RunOut(name) => world.instances[name].lives = false,
            Step::Die(process) => world.end(process),
            Step::Leave(process) => world.instances[PROCESSES[process]].is_willing = false,
            Step::See(process) => world.see(process),
            Step::Decide(process) => world.decide(self.duty, process),
            Step::Give(process) => world.give(process),
            Step::Take(process) => world.take(self.rules, process),
            Step::Begin(process, shard) => {
                let process = &mut world.processes[process];
                process.writing[shard] = process.held[shard];
            }
            Step::Commit(process, shard) => world.commit(self.rules, process, shard),
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("only the holder writes", |_, world: &World| {
                world.crime != Some(Crime::NotTheHolder)
            }),
            Property::always("whoever writes knows what was written", |_, world: &World| {
                world.crime != Some(Crime::LostUpdate)
            }),
            Property::always("no part stays with nobody", |model: &Self, world: &World| {
                // What is under way can end first, so it is enough to start where nothing is.
                world.crime.is_some() || world.is_busy() || world.comes_to_rest(model.rules, model.duty)
            }),
        ]
    }
}

/// The properties that some order of steps violates, and how many states were looked at.
fn violations(rules: Rules, shards: u16, mishaps: u8) -> (Vec<&'static str>, usize) {
    let duty = Duty { name: "events", shards };
    let checker = Leases { rules, duty, mishaps }.checker().finish_when(HasDiscoveries::Any);
    let found = checker.threads(2).spawn_bfs().join();
    (found.discoveries().keys().copied().collect(), found.unique_state_count())
}

#[test]
fn one_holder_at_a_time_writes_whatever_goes_wrong() {
    let duty = Duty { name: "events", shards: 2 };
    assert_eq!([0, 1].map(|shard| duty.heir(shard, NAMES)), NAMES.map(Some), "each should have one");
    for (shards, mishaps) in [(2, 2), (1, 3)] {
        let (violated, states) = violations(RULES, shards, mishaps);
        assert!(violated.is_empty(), "{violated:?}");
        assert!(states > 100_000, "only {states} states: too few for all that can go wrong");
    }
}

/// Each rule is needed: without it the model is found guilty, so it can be.
#[test]
fn without_any_of_the_rules_two_write() {
    let check = |rules: Rules| {
        let (violated, _) = violations(rules, 1, 3);
        assert!(violated.iter().any(|property| property.contains("writes")), "{rules:?}: {violated:?}");
    };
    check(Rules { commits_check_the_fence: false, ..RULES });
    check(Rules { registering_fences: false, ..RULES });
    check(Rules { takers_check_themselves: false, ..RULES });
    check(Rules { givers_wait: false, ..RULES });
}
