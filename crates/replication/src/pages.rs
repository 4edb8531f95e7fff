//! Reading a stream back, page by page.

use std::future::Future;

use myelin_storage::Result;
use myelin_types::{Position, StreamId};

use crate::Stamped;

/// Reads pages until `limit` rows are found that `after` does not cover and `upto` does, or there are no more: what
/// [`Stream::since`](crate::Stream::since) gives. `page` reads the rows with ids between two, the second included, by ascending
/// id, and comes with the id up to which it is complete, if that is not the end.
///
/// Between the two positions' extremes there may be pages of rows that are covered already, or were committed after `upto` was
/// looked at: a short answer means that there is nothing left, so those pages have to be read over.
///
/// # Errors
/// Those of `page`.
pub async fn read_pages<R, F, Fut>(
    after: &Position,
    upto: &Position,
    limit: i64,
    page: F,
) -> Result<Vec<Stamped<R>>>
where
    F: Fn(StreamId, StreamId) -> Fut,
    Fut: Future<Output = Result<(Vec<Stamped<R>>, Option<StreamId>)>>,
{
    let mut found = Vec::new();
    let mut from = after.minimum();
    loop {
        let (rows, complete) = page(from, upto.maximum()).await?;
        found.extend(
            rows.into_iter()
                .filter(|row| !after.covers(row.writer, row.id) && upto.covers(row.writer, row.id)),
        );
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        match complete {
            Some(complete) if !is_full(found.len(), limit) => from = complete,
            _ => return Ok(found),
        }
    }
}

/// Whether a page of so many rows was cut off by its limit.
pub fn is_full(rows: usize, limit: i64) -> bool {
    i64::try_from(rows).is_ok_and(|rows| rows >= limit)
}

#[cfg(test)]
mod tests {
    use myelin_types::WriterId;

    use super::*;

    #[tokio::test]
    async fn pages_of_rows_that_are_of_no_interest_are_read_over() {
        let (one, two) = (WriterId(1), WriterId(2));
        // Writer 2 went on while we looked; what it wrote then is not asked for.
        let table: Vec<Stamped<()>> = (1..=30)
            .map(|id| Stamped { id: StreamId(id), writer: if id % 10 == 0 { one } else { two }, row: () })
            .collect();
        let after = Position::at(StreamId(0));
        let upto = Position::from_writers([(one, StreamId(30)), (two, StreamId(5))]);
        for limit in 1..40 {
            let page = async |from: StreamId, to: StreamId| {
                let rows = table.iter().filter(|row| row.id > from && row.id <= to);
                let rows: Vec<_> = rows.take(usize::try_from(limit).unwrap()).cloned().collect();
                let complete = rows.last().map(|row| row.id).filter(|_| is_full(rows.len(), limit));
                Ok((rows, complete))
            };
            let found = read_pages(&after, &upto, limit, page).await.unwrap();
            let ids: Vec<i64> = found.iter().map(|row| row.id.0).collect();
            let wanted: Vec<i64> =
                [1, 2, 3, 4, 5, 10, 20, 30].into_iter().take(usize::try_from(limit).unwrap()).collect();
            assert_eq!(ids, wanted, "limit {limit}");
        }
    }
}
