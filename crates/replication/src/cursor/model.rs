//! Positions and notices, tried in every order of their steps.
//!
//! A reader is [`Cursor`] itself; what writers and the database do is said again here. Notices that were published stay on their
//! way for ever: each may arrive at any time, again, or never, which is all that can happen to them.

use std::collections::BTreeSet;

use myelin_types::{Position, StreamId, WriterId};
use stateright::{Checker, HasDiscoveries, Model, Property};

use super::{Cursor, Heading, Step, reached_by_page};

const WRITERS: usize = 2;
/// Rows that a reader gets from the database at once.
const PAGE: usize = 1;

/// What of a heading a reader goes by. Each is left out by a test.
#[derive(Clone, Copy, Debug)]
struct Rules {
    previous: bool,
    writers: bool,
    after: bool,
    /// A commit needs the writer's epoch.
    fence: bool,
    /// A commit goes on from the position that its writer knew.
    from: bool,
}

const RULES: Rules = Rules { previous: true, writers: true, after: true, fence: true, from: true };

struct Streams {
    rules: Rules,
    /// How many ids are given to rows.
    ids: i64,
    mishaps: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// The newest id that was given to a transaction.
    sequence: i64,
    rows: Vec<Row>,
    /// Each writer's row of `stream_positions`: where it stands, and its epoch.
    positions: [Option<(StreamId, u8)>; WRITERS],
    writers: [Writer; WRITERS],
    /// What is with the database of a connection that broke.
    late: Option<Late>,
    notices: Vec<(Heading, Option<Row>)>,
    reader: Reader,
    mishaps_left: u8,
    crime: Option<Crime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row {
    id: i64,
    writer: usize,
    /// The ids of the rows that its writer knew when it made this one, as bits.
    builds_on: u8,
}

/// A transaction of whose end its writer does not hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Late {
    row: Row,
    from: StreamId,
    epoch: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Writer {
    epoch: u8,
    /// Where it stands, as it knows.
    position: StreamId,
    /// Whether it has yet to find out what became of a transaction.
    is_unsettled: bool,
    /// What it has seen of the stream.
    seen: Cursor,
    under_way: Option<Row>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Reader {
    cursor: Cursor,
    taken_in: Vec<Row>,
    catching_up: Option<CatchingUp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CatchingUp {
    committed: Vec<(WriterId, StreamId)>,
    from: Position,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Crime {
    TakenInTwice,
    OutOfOrder,
    BeforeItsCause,
    WentBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Join(usize),
    Begin(usize),
    Commit(usize),
    Abort(usize),
    /// The connection breaks while the transaction is under way.
    Break(usize),
    CommitLate,
    /// It never comes to the database.
    Lose,
    Settle(usize),
    See(usize),
    MoveUp(usize),
    Fence(usize),
    Deliver(usize),
    Ask,
    Page,
}

fn writer_id(writer: usize) -> WriterId {
    WriterId(i16::try_from(writer).expect("there are few writers"))
}

fn bit(id: i64) -> u8 {
    1 << id
}

impl Reader {
    fn take_in(
        &mut self,
        rows: &[Row],
        reached: impl IntoIterator<Item = (WriterId, StreamId)>,
    ) -> Option<Crime> {
        let mut crime = None;
        for row in rows {
            let mut same_writer = self.taken_in.iter().filter(|other| other.writer == row.writer);
            if self.taken_in.contains(row) {
                crime = Some(Crime::TakenInTwice);
            } else if same_writer.any(|other| other.id > row.id) {
                crime = Some(Crime::OutOfOrder);
            } else if row.builds_on & !self.taken_in.iter().fold(0, |ids, row| ids | bit(row.id)) != 0 {
                crime = Some(Crime::BeforeItsCause);
            }
            self.taken_in.push(*row);
        }
        // In what order rows came matters only when they come.
        self.taken_in.sort_unstable();
        let before = self.cursor.position();
        self.cursor.reach(reached);
        if !self.cursor.position().covers_all(&before) {
            crime = Some(Crime::WentBack);
        }
        crime
    }
}

impl World {
    fn committed(&self) -> Vec<(WriterId, StreamId)> {
        let positions = self.positions.iter().enumerate();
        positions.filter_map(|(writer, position)| Some((writer_id(writer), (*position)?.0))).collect()
    }

    /// `streams::claim`, after `Session::register`.
    fn join(&mut self, writer: usize) {
        let newest = self.committed().iter().map(|(_, id)| id.0).max().unwrap_or_default();
        let end = self.sequence.max(newest);
        let epoch = self.writers[writer].epoch + 1;
        let position = self.positions[writer].map_or(StreamId(end), |(position, _)| position);
        self.positions[writer] = Some((position, epoch));
        self.writers[writer] =
            Writer { epoch, position, seen: Cursor::new(self.committed()), ..Writer::default() };
    }

    fn begin(&mut self, writer: usize) {
        self.sequence += 1;
        let seen = &self.writers[writer].seen;
        let known = self.rows.iter().filter(|row| !seen.is_new(writer_id(row.writer), StreamId(row.id)));
        let builds_on = known.fold(0, |ids, row| ids | bit(row.id));
        self.writers[writer].under_way = Some(Row { id: self.sequence, writer, builds_on });
    }

    /// `streams::advance` and the commit, and the notice.
    fn commit(&mut self, rules: Rules, writer: usize) {
        let Some(row) = self.writers[writer].under_way.take() else { return };
        if !self.may_commit(rules, writer, self.writers[writer].position, self.writers[writer].epoch) {
            return;
        }
        self.store(row);
        self.tell(writer, StreamId(row.id), Some(row));
    }

    fn may_commit(&self, rules: Rules, writer: usize, from: StreamId, epoch: u8) -> bool {
        self.positions[writer].is_some_and(|(position, holder)| {
            (epoch == holder || !rules.fence) && (from == position || !rules.from)
        })
    }

    fn store(&mut self, row: Row) {
        self.rows.push(row);
        // In what order rows were committed is seen by their positions.
        self.rows.sort_unstable();
    }

    fn lose_connection(&mut self, writer: usize) {
        let Writer { epoch, position: from, under_way, is_unsettled, .. } = &mut self.writers[writer];
        self.late = under_way.take().map(|row| Late { row, from: *from, epoch: *epoch });
        *is_unsettled = true;
    }

    fn commit_late(&mut self, rules: Rules) {
        let Some(Late { row, from, epoch }) = self.late.take() else { return };
        if self.may_commit(rules, row.writer, from, epoch) {
            self.store(row);
            let holder = self.positions[row.writer].map_or(0, |(_, holder)| holder);
            self.positions[row.writer] = Some((StreamId(row.id), holder));
        }
    }

    /// `streams::seal`, and what its outcome is taken for.
    fn settle(&mut self, writer: usize) {
        self.writers[writer].is_unsettled = false;
        let Some((position, _)) = self.positions[writer] else { return };
        if position == self.writers[writer].position {
            self.sequence += 1;
            self.tell(writer, StreamId(self.sequence), None);
        } else {
            self.writers[writer].position = position;
            self.writers[writer].seen = Cursor::new(self.committed());
        }
    }

    fn is_fenced(&self, writer: usize) -> bool {
        self.positions[writer].is_none_or(|(_, epoch)| epoch != self.writers[writer].epoch)
    }

    fn tell(&mut self, writer: usize, position: StreamId, row: Option<Row>) {
        let epoch = self.positions[writer].map_or(0, |(_, epoch)| epoch);
        self.positions[writer] = Some((position, epoch));
        let writers = self.committed().len();
        let Writer { position: own, seen, .. } = &mut self.writers[writer];
        let heading =
            Heading { writer: writer_id(writer), previous: *own, position, writers, after: seen.position() };
        seen.reach([(writer_id(writer), position)]);
        *own = position;
        self.notices.push((heading, row));
    }

    /// `streams::move_up_gone`: nobody is told.
    fn fence(&mut self, writer: usize) {
        if let Some((position, epoch)) = &mut self.positions[writer] {
            (*position, *epoch) = (StreamId(self.sequence), *epoch + 1);
        }
    }

    /// [`Feed::take_in`](crate::Feed).
    fn deliver(&mut self, rules: Rules, index: usize) {
        let (heading, row) = &self.notices[index];
        let mut heading = heading.clone();
        let seen = self.reader.cursor.position().of(heading.writer);
        heading.previous = if rules.previous { heading.previous } else { seen };
        heading.writers = if rules.writers { heading.writers } else { 0 };
        heading.after = if rules.after { heading.after } else { Position::default() };
        if self.reader.cursor.judge(&heading) == Step::Next {
            let rows: Vec<Row> = row.iter().copied().collect();
            self.crime = self.reader.take_in(&rows, [(heading.writer, heading.position)]);
        }
    }

    /// A round of [`Feed::catch_up`](crate::Feed::catch_up).
    fn read_page(&mut self) {
        let Some(CatchingUp { committed, mut from }) = self.reader.catching_up.take() else { return };
        let target = Position::from_writers(committed.iter().copied());
        if from.covers_all(&target) {
            return;
        }
        let wanted = |row: &&Row| {
            let (writer, id) = (writer_id(row.writer), StreamId(row.id));
            !from.covers(writer, id) && target.covers(writer, id)
        };
        let rows: Vec<Row> = self.rows.iter().filter(wanted).take(PAGE).copied().collect();
        let is_new = |row: &&Row| self.reader.cursor.is_new(writer_id(row.writer), StreamId(row.id));
        let fresh: Vec<Row> = rows.iter().filter(is_new).copied().collect();
        let page_end = rows.last().map(|last| StreamId(last.id)).filter(|_| rows.len() == PAGE);
        self.crime = self.reader.take_in(&fresh, reached_by_page(&committed, page_end));
        if let Some(page_end) = page_end {
            from.advance_all(page_end);
            self.reader.catching_up = Some(CatchingUp { committed, from });
        }
    }

    fn ask(&mut self) {
        let from = self.reader.cursor.position();
        self.reader.catching_up = Some(CatchingUp { committed: self.committed(), from });
    }

    /// Whether the reader has had all rows that its position covers.
    fn has_what_it_covers(&self) -> bool {
        let position = self.reader.cursor.position();
        let mut covered =
            self.rows.iter().filter(|row| position.covers(writer_id(row.writer), StreamId(row.id)));
        covered.all(|row| self.reader.taken_in.contains(row))
    }

    /// Whether the reader has everything once it has asked the database.
    fn catches_up(&self) -> bool {
        let mut world = self.clone();
        world.ask();
        for _ in 0..=self.rows.len() + 1 {
            world.read_page();
        }
        let committed = Position::from_writers(self.committed());
        world.reader.catching_up.is_none()
            && world.reader.cursor.position().covers_all(&committed)
            && world.reader.taken_in == world.rows
    }
}

impl Model for Streams {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = World {
            sequence: 0,
            rows: Vec::new(),
            positions: [None; WRITERS],
            writers: Default::default(),
            late: None,
            notices: Vec::new(),
            reader: Reader::default(),
            mishaps_left: self.mishaps,
            crime: None,
        };
        world.join(0);
        // A feed opens where the writers stand.
        world.reader.cursor = Cursor::new(world.committed());
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (index, writer) in world.writers.iter().enumerate() {
            let has_joined = world.positions[index].is_some();
            if !has_joined || world.is_fenced(index) {
                actions.push(Action::Join(index));
            }
            if writer.under_way.is_some() {
                actions.push(Action::Commit(index));
            } else if writer.is_unsettled {
                actions.push(Action::Settle(index));
            } else if has_joined && world.sequence < self.ids {
                actions.push(Action::Begin(index));
            }
            if has_joined && writer.seen != Cursor::new(world.committed()) {
                actions.push(Action::See(index));
            }
            if world.mishaps_left == 0 || !has_joined || world.is_fenced(index) {
                continue;
            }
            actions.push(Action::Fence(index));
            match writer.under_way {
                Some(_) => actions.extend([Action::Abort(index), Action::Break(index)]),
                None if writer.position.0 < world.sequence => actions.push(Action::MoveUp(index)),
                None => {}
            }
        }
        if world.late.is_some() {
            actions.extend([Action::CommitLate, Action::Lose]);
        }
        let is_of_use =
            |(heading, _): &(Heading, Option<Row>)| world.reader.cursor.judge(heading) != Step::Known;
        let notices = world.notices.iter().enumerate().filter(|(_, notice)| is_of_use(notice));
        actions.extend(notices.map(|(index, _)| Action::Deliver(index)));
        actions.push(if world.reader.catching_up.is_some() { Action::Page } else { Action::Ask });
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        // What comes after a crime is of no interest.
        let mut world = last.crime.is_none().then(|| last.clone())?;
        if let Action::Abort(_) | Action::Break(_) | Action::MoveUp(_) | Action::Fence(_) = action {
            world.mishaps_left -= 1;
        }
        match action {
            Action::Join(writer) => world.join(writer),
            Action::Begin(writer) => world.begin(writer),
            Action::Commit(writer) => world.commit(self.rules, writer),
            Action::Abort(writer) => world.writers[writer].under_way = None,
            Action::Break(writer) => world.lose_connection(writer),
            Action::CommitLate => world.commit_late(self.rules),
            Action::Lose => world.late = None,
            Action::Settle(writer) => world.settle(writer),
            Action::See(writer) => world.writers[writer].seen = Cursor::new(world.committed()),
            Action::MoveUp(writer) => world.tell(writer, StreamId(world.sequence), None),
            Action::Fence(writer) => world.fence(writer),
            Action::Deliver(notice) => world.deliver(self.rules, notice),
            Action::Ask => world.ask(),
            Action::Page => world.read_page(),
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a reader has all rows that its position covers", |_, world: &World| {
                world.has_what_it_covers()
            }),
            Property::always(
                "rows come once, in order, after those that they build on",
                |_, world: &World| world.crime.is_none(),
            ),
            Property::always("a reader that asks has everything", |_, world: &World| {
                world.crime.is_some() || !world.has_what_it_covers() || world.catches_up()
            }),
        ]
    }
}

/// The properties that some order of steps violates, and how many states were looked at.
fn violations(rules: Rules, ids: i64, mishaps: u8) -> (BTreeSet<&'static str>, usize) {
    let checker = Streams { rules, ids, mishaps }.checker().finish_when(HasDiscoveries::Any);
    let found = checker.threads(2).spawn_bfs().join();
    (found.discoveries().keys().copied().collect(), found.unique_state_count())
}

#[test]
fn a_reader_skips_nothing_whatever_happens_to_notices_and_writers() {
    check_all_orders(2, 1);
    check_all_orders(3, 0);
}

#[test]
#[ignore = "takes a minute"]
fn a_reader_skips_nothing_either_if_there_is_more() {
    check_all_orders(3, 1);
}

#[track_caller]
fn check_all_orders(ids: i64, mishaps: u8) {
    let (violated, states) = violations(RULES, ids, mishaps);
    assert!(violated.is_empty(), "{violated:?}");
    assert!(states > 30_000, "only {states} states: too few for all that can happen");
}

/// Each rule is needed: without it the model is found guilty, so it can be.
#[test]
fn without_any_of_the_rules_rows_are_skipped_or_come_too_early() {
    let check = |rules: Rules, mishaps: u8| {
        let (violated, _) = violations(rules, 3, mishaps);
        assert!(!violated.is_empty(), "{rules:?}");
    };
    check(Rules { writers: false, ..RULES }, 1);
    check(Rules { after: false, ..RULES }, 0);
    // What a writer had seen says also where it stood.
    check(Rules { previous: false, after: false, ..RULES }, 0);
    // Who was replaced is not where it was left, either.
    check(Rules { fence: false, from: false, ..RULES }, 1);
    check(Rules { from: false, ..RULES }, 1);
}
