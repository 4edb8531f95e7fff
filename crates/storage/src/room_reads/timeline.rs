//! Pages of timelines.

use super::{TimelineEvent, timeline_event};
use crate::{GenericClient, Result, query, query_opt};

/// A part of a room's timeline, read from one of its ends.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The room.
    pub room_nid: i64,
    /// Only events after this place.
    pub after: i64,
    /// Only events up to this place.
    pub upto: i64,
    /// Latest first.
    pub is_backward: bool,
    /// Events at most.
    pub limit: i64,
}

/// A page of a timeline.
pub async fn list_timeline(db: &impl GenericClient, page: &Page) -> Result<Vec<TimelineEvent>> {
    const BACKWARD: &str = concat!(
        "SELECT ",
        timeline_event!(),
        " FROM events e WHERE e.room_nid = $1 AND e.pos > $2 AND e.pos <= $3 ORDER BY e.pos DESC LIMIT $4"
    );
    const FORWARD: &str = concat!(
        "SELECT ",
        timeline_event!(),
        " FROM events e WHERE e.room_nid = $1 AND e.pos > $2 AND e.pos <= $3 ORDER BY e.pos LIMIT $4"
    );
    let sql = if page.is_backward { BACKWARD } else { FORWARD };
    let rows = query(db, sql, &[&page.room_nid, &page.after, &page.upto, &page.limit]).await?;
    Ok(rows.iter().map(TimelineEvent::from).collect())
}

/// Which events of a timeline are wanted. `None` wants all; `*` in a type stands for any characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only these types.
    pub types: Option<Vec<String>>,
    /// None of these types.
    pub not_types: Vec<String>,
    /// Only of these senders.
    pub senders: Option<Vec<String>>,
    /// Of none of these senders.
    pub not_senders: Vec<String>,
    /// Of none of these senders, unless it is a state event.
    pub ignored: Vec<String>,
    /// Only with, or only without, a `url` in the content.
    pub contains_url: Option<bool>,
}

/// A page of those events that are wanted, among the next `scan` events.
pub async fn list_filtered_timeline(
    db: &impl GenericClient,
    page: &Page,
    scan: i64,
    filter: &EventFilter,
) -> Result<Vec<TimelineEvent>> {
    macro_rules! filtered {
        ($order:literal) => {
            concat!(
                "SELECT ",
                timeline_event!(),
                " FROM (SELECT * FROM events WHERE room_nid = $1 AND pos > $2 AND pos <= $3 ORDER BY pos ",
                $order,
                " LIMIT $5) AS e
                  JOIN strings t ON t.string_id = e.type_sid
                 WHERE ($6::text[] IS NULL OR t.value LIKE ANY ($6))
                   AND NOT t.value LIKE ANY ($7)
                   AND ($8::text[] IS NULL
                        OR e.sender_sid IN (SELECT string_id FROM strings WHERE value = ANY ($8)))
                   AND e.sender_sid NOT IN (SELECT string_id FROM strings WHERE value = ANY ($9))
                   AND (e.state_key_sid IS NOT NULL
                        OR e.sender_sid NOT IN (SELECT string_id FROM strings WHERE value = ANY ($10)))
                   AND ($11::boolean IS NULL OR $11 = (e.flags & 16 <> 0))
                 ORDER BY e.pos ",
                $order,
                " LIMIT $4"
            )
        };
    }
    const BACKWARD: &str = filtered!("DESC");
    const FORWARD: &str = filtered!("ASC");
    let sql = if page.is_backward { BACKWARD } else { FORWARD };
    let types: Option<Vec<String>> = filter.types.as_ref().map(|types| patterns(types));
    let not_types = patterns(&filter.not_types);
    let rows = query(
        db,
        sql,
        &[
            &page.room_nid,
            &page.after,
            &page.upto,
            &page.limit,
            &scan,
            &types,
            &not_types,
            &filter.senders,
            &filter.not_senders,
            &filter.ignored,
            &filter.contains_url,
        ],
    )
    .await?;
    Ok(rows.iter().map(TimelineEvent::from).collect())
}

/// Types with wildcards as patterns of `LIKE`.
fn patterns(types: &[String]) -> Vec<String> {
    let pattern = |event_type: &String| {
        let mut pattern = String::with_capacity(event_type.len() + 4);
        for character in event_type.chars() {
            match character {
                '*' => pattern.push('%'),
                '%' | '_' | '\\' => pattern.extend(['\\', character]),
                other => pattern.push(other),
            }
        }
        pattern
    };
    types.iter().map(pattern).collect()
}

/// The place of the last of the next `scan` events of a page, if there are that many.
pub async fn get_scan_end(db: &impl GenericClient, page: &Page, scan: i64) -> Result<Option<i64>> {
    const BACKWARD: &str = "
        SELECT pos FROM events WHERE room_nid = $1 AND pos > $2 AND pos <= $3 ORDER BY pos DESC OFFSET $4 LIMIT 1";
    const FORWARD: &str = "
        SELECT pos FROM events WHERE room_nid = $1 AND pos > $2 AND pos <= $3 ORDER BY pos OFFSET $4 LIMIT 1";
    let sql = if page.is_backward { BACKWARD } else { FORWARD };
    let row = query_opt(db, sql, &[&page.room_nid, &page.after, &page.upto, &(scan - 1)]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Those of the events with these ids that are part of a room's timeline, in no order.
pub async fn list_timeline_by_id(
    db: &impl GenericClient,
    room_nid: i64,
    event_ids: &[&str],
) -> Result<Vec<TimelineEvent>> {
    const SQL: &str = concat!(
        "SELECT ",
        timeline_event!(),
        " FROM events e WHERE e.event_id = ANY ($2) AND e.room_nid = $1 AND e.pos IS NOT NULL"
    );
    Ok(query(db, SQL, &[&room_nid, &event_ids]).await?.iter().map(TimelineEvent::from).collect())
}

/// The events with these numbers, in no order; the lists belong together.
pub async fn list_timeline_by_nid(
    db: &impl GenericClient,
    room_nids: &[i64],
    event_nids: &[i64],
) -> Result<Vec<TimelineEvent>> {
    const SQL: &str = concat!(
        "SELECT ",
        timeline_event!(),
        " FROM unnest($1::bigint[], $2::bigint[]) AS w (room_nid, event_nid)
          JOIN events e ON e.room_nid = w.room_nid AND e.event_nid = w.event_nid"
    );
    Ok(query(db, SQL, &[&room_nids, &event_nids]).await?.iter().map(TimelineEvent::from).collect())
}

/// When an event of a timeline was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeRow {
    /// Its place.
    pub pos: i64,
    /// Its id.
    pub event_id: String,
    /// When it was sent, in milliseconds since 1970.
    pub origin_server_ts: i64,
}

/// Looks for the events of a timeline that were sent closest to a time, at or after it or at or before it, closest
/// first.
///
/// There is no index by time, which every message would pay for: halving finds where the timeline passes that time,
/// and the `around` events on both sides of that place are compared. So it is exact as far as the timeline is sorted by
/// time to within `around` events.
pub async fn find_event_by_time(
    db: &impl GenericClient,
    page: &Page,
    origin_server_ts: i64,
    around: i64,
) -> Result<Vec<TimeRow>> {
    const SQL: &str = "
        WITH RECURSIVE halving (low, high, rounds) AS (
            SELECT (SELECT min(pos) FROM events WHERE room_nid = $1 AND pos > $2 AND pos <= $3),
                   (SELECT max(pos) FROM events WHERE room_nid = $1 AND pos > $2 AND pos <= $3),
                   0
             UNION ALL
            SELECT CASE WHEN middle.ts < $4 THEN middle.pos + 1 ELSE low END,
                   CASE WHEN middle.ts < $4 THEN high ELSE least(middle.pos, (low + high) / 2) END,
                   rounds + 1
              FROM halving CROSS JOIN LATERAL (
                   SELECT pos, origin_server_ts AS ts FROM events
                    WHERE room_nid = $1 AND pos >= (low + high) / 2 AND pos <= high ORDER BY pos LIMIT 1) AS middle
             WHERE low < high AND rounds < 64),
        border AS (SELECT low FROM halving WHERE low IS NOT NULL ORDER BY rounds DESC LIMIT 1),
        near AS (
            (SELECT e.pos, e.event_id, e.origin_server_ts FROM events e, border
              WHERE e.room_nid = $1 AND e.pos >= border.low AND e.pos <= $3 ORDER BY e.pos LIMIT $6)
             UNION ALL
            (SELECT e.pos, e.event_id, e.origin_server_ts FROM events e, border
              WHERE e.room_nid = $1 AND e.pos < border.low AND e.pos > $2 ORDER BY e.pos DESC LIMIT $6))
        SELECT pos, event_id, origin_server_ts FROM near
         WHERE CASE WHEN $5 THEN origin_server_ts <= $4 ELSE origin_server_ts >= $4 END
         ORDER BY abs(origin_server_ts - $4), CASE WHEN $5 THEN -pos ELSE pos END LIMIT $7";
    let Page { room_nid, after, upto, is_backward, limit } = page;
    let rows =
        query(db, SQL, &[room_nid, after, upto, &origin_server_ts, is_backward, &around, limit]).await?;
    let event =
        |row: &crate::Row| TimeRow { pos: row.get(0), event_id: row.get(1), origin_server_ts: row.get(2) };
    Ok(rows.iter().map(event).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_the_only_thing_that_is_special_in_a_type() {
        let types = ["m.room.*", "a_b", "50%", "\\"].map(str::to_owned);
        assert_eq!(patterns(&types), ["m.room.%", "a\\_b", "50\\%", "\\\\"]);
    }
}
