//! How far a stream has been seen.
//!
//! Every row of a stream has a [`StreamId`] from one sequence and was written by one [`WriterId`]. A writer commits
//! its rows in order, but two writers commit independently: that row 7 of writer 1 is visible says nothing about
//! row 6 of writer 2. A [`Position`] therefore is a vector, writer → id, kept small by its common minimum.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

/// The place of a row in a stream. Ids grow in the order in which one writer commits; they have gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub i64);

impl StreamId {
    /// Before the first row of every stream.
    pub const ZERO: Self = Self(0);

    /// The number, as the database has it.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A process that writes streams: its `worker_name`, interned by the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WriterId(pub i16);

/// Up to where a stream has been seen: every row with an id up to [`Position::minimum`], and of some writers more.
///
/// Written as `12` or, where writers are ahead of the minimum, as `12~2.15~3.20`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    minimum: StreamId,
    /// Writers that are past the minimum, ordered by writer.
    ahead: SmallVec<[(WriterId, StreamId); 2]>,
}

impl Position {
    /// A position that covers every row up to and including `minimum`, whoever wrote it.
    pub fn at(minimum: StreamId) -> Self {
        Self { minimum, ahead: SmallVec::new() }
    }

    /// The position that is made of each writer's last committed id. No writers: the very beginning.
    pub fn from_writers(writers: impl IntoIterator<Item = (WriterId, StreamId)>) -> Self {
        let all: SmallVec<[(WriterId, StreamId); 4]> = writers.into_iter().collect();
        let minimum = all.iter().map(|(_, id)| *id).min().unwrap_or_default();
        let mut position = Self::at(minimum);
        for (writer, id) in all {
            position.advance(writer, id);
        }
        position
    }

    /// Every row up to this id has been seen.
    pub fn minimum(&self) -> StreamId {
        self.minimum
    }

    /// No row past this id has been seen.
    pub fn maximum(&self) -> StreamId {
        self.ahead.iter().map(|(_, id)| *id).max().unwrap_or(self.minimum)
    }

    /// The writers of whom more has been seen than [`Position::minimum`], and up to where.
    pub fn ahead(&self) -> impl Iterator<Item = (WriterId, StreamId)> + '_ {
        self.ahead.iter().copied()
    }

    /// Up to where `writer`'s rows have been seen.
    pub fn of(&self, writer: WriterId) -> StreamId {
        match self.ahead.binary_search_by_key(&writer, |(writer, _)| *writer) {
            Ok(index) => self.ahead[index].1,
            Err(_) => self.minimum,
        }
    }

    /// Whether the row `id` of `writer` has been seen.
    pub fn covers(&self, writer: WriterId, id: StreamId) -> bool {
        id <= self.minimum || id <= self.of(writer)
    }

    /// Whether everything that `other` has seen has been seen here too.
    pub fn covers_all(&self, other: &Self) -> bool {
        // A writer that neither names stands at the minimum.
        self.minimum >= other.minimum && other.ahead.iter().all(|(writer, id)| self.covers(*writer, *id))
    }

    /// Notes that `writer`'s rows up to `id` have been seen; never goes back.
    pub fn advance(&mut self, writer: WriterId, id: StreamId) {
        if self.covers(writer, id) {
            return;
        }
        match self.ahead.binary_search_by_key(&writer, |(writer, _)| *writer) {
            Ok(index) => self.ahead[index].1 = id,
            Err(index) => self.ahead.insert(index, (writer, id)),
        }
    }

    /// Notes that every row up to `id` has been seen, whoever wrote it; never goes back.
    pub fn advance_all(&mut self, id: StreamId) {
        if id > self.minimum {
            self.minimum = id;
            self.ahead.retain(|(_, ahead)| *ahead > id);
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.minimum)?;
        for (writer, id) in &self.ahead {
            write!(f, "~{}.{id}", writer.0)?;
        }
        Ok(())
    }
}

/// The text is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a stream position")]
pub struct ParsePositionError;

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('~');
        let minimum = parse_id(parts.next().unwrap_or_default())?;
        let mut position = Self::at(minimum);
        for part in parts {
            // A forged token must not make us remember more writers than a deployment can have.
            if position.ahead.len() >= 256 {
                return Err(ParsePositionError);
            }
            let (writer, id) = part.split_once('.').ok_or(ParsePositionError)?;
            let writer = WriterId(writer.parse().map_err(|_| ParsePositionError)?);
            position.advance(writer, parse_id(id)?);
        }
        Ok(position)
    }
}

fn parse_id(text: &str) -> Result<StreamId, ParsePositionError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParsePositionError);
    }
    text.parse().map(StreamId).map_err(|_| ParsePositionError)
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: WriterId = WriterId(1);
    const B: WriterId = WriterId(2);

    #[test]
    fn a_position_covers_each_writer_up_to_its_own_id() {
        let position = Position::from_writers([(A, StreamId(5)), (B, StreamId(9))]);
        assert_eq!(position.minimum(), StreamId(5));
        assert_eq!(position.maximum(), StreamId(9));
        assert!(position.covers(B, StreamId(9)));
        assert!(!position.covers(A, StreamId(6)));
        assert!(!position.covers(WriterId(3), StreamId(6)), "a writer nobody named stands at the minimum");
        assert_eq!(position.to_string(), "5~2.9");
    }

    #[test]
    fn a_position_has_seen_all_that_another_has_only_if_no_writer_is_missing() {
        let check = |one: &[(WriterId, i64)], other: &[(WriterId, i64)], covers: bool| {
            let of = |writers: &[(WriterId, i64)]| {
                Position::from_writers(writers.iter().map(|(writer, id)| (*writer, StreamId(*id))))
            };
            assert_eq!(of(one).covers_all(&of(other)), covers, "{one:?} {other:?}");
        };
        check(&[(A, 5), (B, 9)], &[(A, 5), (B, 9)], true);
        check(&[(A, 5), (B, 9)], &[(A, 5), (B, 8)], true);
        check(&[(A, 5), (B, 9)], &[(A, 6), (B, 6)], false);
        check(&[(A, 5), (B, 9)], &[(A, 5), (B, 10)], false);
        check(&[(A, 9), (B, 5)], &[(A, 5), (B, 9)], false);
        check(&[(A, 9), (B, 9)], &[(A, 5), (B, 9)], true);
    }

    #[test]
    fn who_is_ahead_stays_there_when_the_minimum_moves() {
        let mut position = Position::from_writers([(A, StreamId(5)), (B, StreamId(9))]);
        position.advance_all(StreamId(7));
        assert_eq!(position.to_string(), "7~2.9");
        assert_eq!(serde_json::to_string(&position).unwrap(), "\"7~2.9\"");
        assert_eq!(serde_json::from_str::<Position>("\"7~2.9\"").unwrap(), position);
    }

    #[test]
    fn positions_never_go_back() {
        let mut position = Position::at(StreamId(7));
        position.advance(A, StreamId(3));
        position.advance_all(StreamId(2));
        assert_eq!(position, Position::at(StreamId(7)));
        position.advance(A, StreamId(12));
        position.advance_all(StreamId(12));
        assert_eq!(position.to_string(), "12", "nobody is ahead any more");
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in
            ["", "-1", "x", "1~", "1~2", "1~2.", "1~.3", "1~a.3", "1~2.-3", "+1", "99999999999999999999"]
        {
            assert_eq!(text.parse::<Position>(), Err(ParsePositionError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_position_survives_being_written_and_read(
            minimum in 0..1000i64,
            writers in proptest::collection::vec((0..8i16, 0..2000i64), 0..6),
        ) {
            let mut position = Position::at(StreamId(minimum));
            for (writer, id) in writers {
                position.advance(WriterId(writer), StreamId(id));
            }
            prop_assert_eq!(position.to_string().parse::<Position>(), Ok(position.clone()));
            prop_assert!(position.covers_all(&position));
        }

        #[test]
        fn the_order_of_advances_does_not_matter(
            mut writers in proptest::collection::vec((0..4i16, 0..50i64), 0..10),
        ) {
            let apply = |writers: &[(i16, i64)]| {
                let mut position = Position::at(StreamId(10));
                writers.iter().for_each(|(writer, id)| position.advance(WriterId(*writer), StreamId(*id)));
                position
            };
            let forwards = apply(&writers);
            writers.reverse();
            prop_assert_eq!(forwards, apply(&writers));
        }
    }
}
