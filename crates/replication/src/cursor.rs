//! Where a reader of a stream stands, and what a notice means to it: the rules of [`Feed`](crate::Feed)s without their rows.
//! `model.rs` tries them in every order.

use std::collections::BTreeMap;

use myelin_types::{Position, StreamId, WriterId};
use serde::{Deserialize, Serialize};

/// What a notice says beside its rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heading {
    /// Who committed.
    pub writer: WriterId,
    /// The writer's position before this commit: a reader that does not stand there has missed something.
    pub previous: StreamId,
    /// The writer's position now.
    pub position: StreamId,
    /// How many writers the stream had at this commit: a reader that knows fewer can't tell what it has seen.
    pub writers: usize,
    /// What the writer had seen of the stream when it committed. What these rows build on may be another writer's, whose
    /// shard this one took over: readers take that in first.
    #[serde(default)]
    pub after: Position,
}

/// What a notice means to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: its rows were taken in before.
    Known,
    /// Its rows are the next ones.
    Next,
    /// Rows before it are missing, or may be: the database has to be read.
    Gap,
}

/// Up to where a reader has taken in the rows of each writer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor {
    writers: BTreeMap<WriterId, StreamId>,
}

impl Cursor {
    /// A reader that stands at what these writers have committed.
    pub fn new(committed: impl IntoIterator<Item = (WriterId, StreamId)>) -> Self {
        Self { writers: committed.into_iter().collect() }
    }

    /// What a notice means here.
    pub fn judge(&self, heading: &Heading) -> Step {
        let seen = self.writers.get(&heading.writer).copied();
        if seen.is_some_and(|seen| seen >= heading.position) {
            return Step::Known;
        }
        let is_known = self.writers.len() >= heading.writers && self.position().covers_all(&heading.after);
        match seen == Some(heading.previous) && is_known {
            true => Step::Next,
            false => Step::Gap,
        }
    }

    /// Whether a row was not taken in yet.
    pub fn is_new(&self, writer: WriterId, id: StreamId) -> bool {
        self.writers.get(&writer).is_none_or(|seen| id > *seen)
    }

    /// Notes that the rows of writers were taken in up to here.
    ///
    /// A writer that was not known joined after all that was seen before, so its rows come after that too: a page of older rows,
    /// which was asked for before notices came, does not take the position back.
    pub fn reach(&mut self, reached: impl IntoIterator<Item = (WriterId, StreamId)>) {
        let before = self.position().minimum();
        for (writer, id) in reached {
            let seen = self.writers.entry(writer).or_insert(before);
            *seen = (*seen).max(id);
        }
    }

    /// Where the reader stands, as tokens tell it.
    pub fn position(&self) -> Position {
        Position::from_writers(self.writers.iter().map(|(writer, id)| (*writer, *id)))
    }
}

/// Up to where the rows of each writer are there once a page of them was read: as far as was `committed`, or as far as the page
/// reaches if its limit cut it off. Rows come by ascending id, so it is complete up to its last one, whoever wrote it.
pub(crate) fn reached_by_page(
    committed: &[(WriterId, StreamId)],
    page_end: Option<StreamId>,
) -> impl Iterator<Item = (WriterId, StreamId)> {
    committed.iter().map(move |(writer, id)| (*writer, page_end.map_or(*id, |end| end.min(*id))))
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    const A: WriterId = WriterId(1);
    const B: WriterId = WriterId(2);

    #[test]
    fn a_notice_is_the_next_one_only_if_nothing_can_be_missing_before_it() {
        let cursor = Cursor::new([(A, StreamId(5)), (B, StreamId(8))]);
        let heading = |previous: i64, position: i64, writers: usize, after: &[(WriterId, i64)]| Heading {
            writer: A,
            previous: StreamId(previous),
            position: StreamId(position),
            writers,
            after: Position::from_writers(after.iter().map(|(writer, id)| (*writer, StreamId(*id)))),
        };
        let check = |heading: Heading, step: Step| assert_eq!(cursor.judge(&heading), step, "{heading:?}");
        check(heading(5, 9, 2, &[(A, 5), (B, 8)]), Step::Next);
        check(heading(5, 9, 2, &[(A, 5), (B, 7)]), Step::Next);
        check(heading(4, 5, 2, &[]), Step::Known);
        check(heading(3, 4, 2, &[]), Step::Known);
        check(heading(6, 9, 2, &[(A, 5), (B, 8)]), Step::Gap);
        // There is a writer that is not known here.
        check(heading(5, 9, 3, &[(A, 5), (B, 8)]), Step::Gap);
        // It may build on what another writer committed and was not seen here.
        check(heading(5, 9, 2, &[(A, 5), (B, 9)]), Step::Gap);
        let stranger = Heading { writer: WriterId(3), ..heading(0, 9, 2, &[]) };
        check(stranger, Step::Gap);
    }
}
