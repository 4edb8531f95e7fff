//! The latest rows of a stream, as far back as they were kept.

use std::collections::VecDeque;

use myelin_types::{Position, StreamId, WriterId};

/// The rows of a stream that concern one user or room: all of them since some position.
#[derive(Debug)]
pub(crate) struct RecentLog<T> {
    /// Every row that this does not cover is here.
    known_since: Position,
    rows: VecDeque<(WriterId, StreamId, T)>,
    capacity: usize,
}

impl<T> RecentLog<T> {
    /// A log of at most `capacity` rows that is told of every row from `known_since` on.
    pub fn new(known_since: Position, capacity: usize) -> Self {
        Self { known_since, rows: VecDeque::new(), capacity }
    }

    /// Adds a row that was just committed; what is too much is forgotten.
    pub fn push(&mut self, writer: WriterId, id: StreamId, row: T) {
        self.rows.push_back((writer, id, row));
        while self.rows.len() > self.capacity {
            if let Some((writer, id, _)) = self.rows.pop_front() {
                self.known_since.advance(writer, id);
            }
        }
    }

    /// Whether every row since then is still here.
    pub fn reaches_back_to(&self, since: &Position) -> bool {
        since.covers_all(&self.known_since)
    }

    /// The rows that `since` does not cover and `upto` does, in their order; `None` if some of them are forgotten.
    pub fn between<'a>(
        &'a self,
        since: &'a Position,
        upto: &'a Position,
    ) -> Option<impl DoubleEndedIterator<Item = &'a T>> {
        self.reaches_back_to(since).then(|| {
            self.rows
                .iter()
                .filter(|(writer, id, _)| !since.covers(*writer, *id) && upto.covers(*writer, *id))
                .map(|(.., row)| row)
        })
    }

    /// All rows that are here, with their places.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &(WriterId, StreamId, T)> {
        self.rows.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_knows_what_it_forgot() {
        let at = |id| Position::at(StreamId(id));
        let mut log = RecentLog::new(at(10), 2);
        for id in [11, 12] {
            log.push(WriterId(1), StreamId(id), id);
        }
        let read = |log: &RecentLog<i64>, since: &Position, upto: &Position| {
            log.between(since, upto).map(|rows| rows.copied().collect::<Vec<_>>())
        };
        assert_eq!(read(&log, &at(10), &at(99)), Some(vec![11, 12]));
        assert_eq!(read(&log, &at(10), &at(11)), Some(vec![11]));
        assert_eq!(read(&log, &at(12), &at(99)), Some(vec![]));
        assert_eq!(read(&log, &at(9), &at(99)), None, "before its time");
        log.push(WriterId(1), StreamId(13), 13);
        assert_eq!(read(&log, &at(10), &at(99)), None, "11 is forgotten");
        assert_eq!(read(&log, &at(11), &at(99)), Some(vec![12, 13]));
    }
}
