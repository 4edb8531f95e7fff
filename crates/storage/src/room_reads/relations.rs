//! Events that point at others.

use super::{TIMELINE_EVENT_COLUMNS, TimelineEvent, timeline_event};
use crate::{GenericClient, Result, Row, query};

/// Events of rooms, as columns: room, id.
#[derive(Clone, Debug, Default)]
pub struct EventRef<'a> {
    /// The rooms.
    pub room_nids: Vec<i64>,
    /// The events.
    pub event_ids: Vec<&'a str>,
}

impl<'a> EventRef<'a> {
    /// Adds an event.
    pub fn push(&mut self, room_nid: i64, event_id: &'a str) {
        self.room_nids.push(room_nid);
        self.event_ids.push(event_id);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.event_ids.is_empty()
    }
}

/// What points at an event in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationSummary {
    /// The room.
    pub room_nid: i64,
    /// The event that is pointed at.
    pub parent_id: String,
    /// How.
    pub rel_type: String,
    /// By how many events.
    pub count: i64,
    /// Whether one of them is the user's.
    pub is_own: bool,
    /// The number of the latest of them.
    pub latest_nid: i64,
}

/// What points at some events as a thread, an edit or a reference. The relations of ignored senders don't count.
pub async fn summarize_relations(
    db: &impl GenericClient,
    parents: &EventRef<'_>,
    user: &str,
    ignored: &[&str],
) -> Result<Vec<RelationSummary>> {
    const SQL: &str = "
        SELECT r.room_nid, r.parent_id, r.rel_type, count(*), bool_or(r.sender_sid = u.string_id),
               (array_agg(r.event_nid ORDER BY r.pos DESC))[1]
          FROM unnest($1::bigint[], $2::text[]) AS p (room_nid, parent_id)
          JOIN relations r USING (room_nid, parent_id)
          LEFT JOIN strings u ON u.value = $3
         WHERE r.rel_type IN ('m.thread', 'm.replace', 'm.reference') AND r.pos IS NOT NULL
           AND r.sender_sid NOT IN (SELECT string_id FROM strings WHERE value = ANY ($4))
         GROUP BY r.room_nid, r.parent_id, r.rel_type";
    let rows = query(db, SQL, &[&parents.room_nids, &parents.event_ids, &user, &ignored]).await?;
    let summary = |row: &Row| RelationSummary {
        room_nid: row.get(0),
        parent_id: row.get(1),
        rel_type: row.get(2),
        count: row.get(3),
        is_own: row.get::<_, Option<bool>>(4).unwrap_or(false),
        latest_nid: row.get(5),
    };
    Ok(rows.iter().map(summary).collect())
}

/// An event with the one that it points at.
#[derive(Clone, Debug)]
pub struct Related {
    /// The event that is pointed at.
    pub parent_id: String,
    /// The event that points.
    pub event: TimelineEvent,
}

impl From<&Row> for Related {
    fn from(row: &Row) -> Self {
        Self { parent_id: row.get(TIMELINE_EVENT_COLUMNS), event: TimelineEvent::from(row) }
    }
}

/// The latest edits of events: by the same sender, of the same type, and no state
/// (<https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events>). Redacted events have none.
pub async fn list_edits(db: &impl GenericClient, parents: &EventRef<'_>) -> Result<Vec<Related>> {
    const SQL: &str = concat!(
        "SELECT DISTINCT ON (e.room_nid, r.parent_id) ",
        timeline_event!(),
        ", r.parent_id
          FROM unnest($1::bigint[], $2::text[]) AS p (room_nid, parent_id)
          JOIN events o ON o.event_id = p.parent_id AND o.room_nid = p.room_nid
          JOIN relations r ON r.room_nid = p.room_nid AND r.parent_id = p.parent_id
          JOIN events e ON e.room_nid = r.room_nid AND e.event_nid = r.event_nid
         WHERE r.rel_type = 'm.replace' AND r.pos IS NOT NULL AND o.redacted_by IS NULL
           AND o.sender_sid = e.sender_sid AND o.type_sid = e.type_sid
           AND o.state_key_sid IS NULL AND e.state_key_sid IS NULL
         ORDER BY e.room_nid, r.parent_id, e.origin_server_ts DESC, e.event_id DESC"
    );
    let rows = query(db, SQL, &[&parents.room_nids, &parents.event_ids]).await?;
    Ok(rows.iter().map(Related::from).collect())
}

/// The events that refer to others, of each the first `limit`.
pub async fn list_references(
    db: &impl GenericClient,
    parents: &EventRef<'_>,
    ignored: &[&str],
    limit: i64,
) -> Result<Vec<Related>> {
    const SQL: &str = concat!(
        "SELECT ",
        timeline_event!(),
        ", p.parent_id
          FROM unnest($1::bigint[], $2::text[]) AS p (room_nid, parent_id)
         CROSS JOIN LATERAL (
               SELECT event_nid FROM relations r
                WHERE r.room_nid = p.room_nid AND r.parent_id = p.parent_id AND r.rel_type = 'm.reference'
                  AND r.pos IS NOT NULL
                  AND r.sender_sid NOT IN (SELECT string_id FROM strings WHERE value = ANY ($3))
                ORDER BY r.pos LIMIT $4) AS r
          JOIN events e ON e.room_nid = p.room_nid AND e.event_nid = r.event_nid
         ORDER BY e.pos"
    );
    let rows = query(db, SQL, &[&parents.room_nids, &parents.event_ids, &ignored, &limit]).await?;
    Ok(rows.iter().map(Related::from).collect())
}

/// A page of the events that point at one.
#[derive(Clone, Copy, Debug)]
pub struct RelationPage<'a> {
    /// The room.
    pub room_nid: i64,
    /// The event that is pointed at.
    pub parent_id: &'a str,
    /// Only those that point so.
    pub rel_type: Option<&'a str>,
    /// Only those of this type.
    pub event_type: Option<&'a str>,
    /// None of these senders.
    pub ignored: &'a [&'a str],
    /// Only after this place.
    pub after: i64,
    /// Only up to this place.
    pub upto: i64,
    /// Latest first.
    pub is_backward: bool,
    /// Events at most.
    pub limit: i64,
    /// How many steps away events may be. 1: only those that point at the event itself.
    pub depth: i32,
    /// How many events are followed at most.
    pub max_followed: i64,
}

/// A page of the events that point at one, by way of others too.
pub async fn list_relations(db: &impl GenericClient, page: &RelationPage<'_>) -> Result<Vec<TimelineEvent>> {
    // What doesn't fit the filter is not followed either, as the specification says.
    macro_rules! related {
        ($order:literal) => {
            concat!(
                "WITH RECURSIVE related (event_nid, depth) AS (
                    (SELECT r.event_nid, 1 FROM relations r
                      WHERE r.room_nid = $1 AND r.parent_id = $2
                        AND ($3::text IS NULL OR r.rel_type = $3)
                        AND ($4::text IS NULL OR r.type_sid = (SELECT string_id FROM strings WHERE value = $4))
                        AND r.pos IS NOT NULL)
                     UNION
                    (SELECT r.event_nid, parent.depth + 1
                       FROM related parent
                       JOIN events p ON p.room_nid = $1 AND p.event_nid = parent.event_nid
                       JOIN relations r ON r.room_nid = $1 AND r.parent_id = p.event_id
                      WHERE parent.depth < $9
                        AND ($3::text IS NULL OR r.rel_type = $3)
                        AND ($4::text IS NULL OR r.type_sid = (SELECT string_id FROM strings WHERE value = $4))
                        AND r.pos IS NOT NULL)),
                 wanted AS (SELECT DISTINCT event_nid FROM (SELECT event_nid FROM related LIMIT $10) AS r)
                 SELECT ",
                timeline_event!(),
                " FROM wanted JOIN events e ON e.room_nid = $1 AND e.event_nid = wanted.event_nid
                 WHERE e.pos > $5 AND e.pos <= $6
                   AND (e.state_key_sid IS NOT NULL
                        OR e.sender_sid NOT IN (SELECT string_id FROM strings WHERE value = ANY ($7)))
                 ORDER BY e.pos ",
                $order,
                " LIMIT $8"
            )
        };
    }
    const BACKWARD: &str = related!("DESC");
    const FORWARD: &str = related!("ASC");
    let sql = if page.is_backward { BACKWARD } else { FORWARD };
    let RelationPage { room_nid, parent_id, rel_type, event_type, ignored, after, upto, limit, .. } = page;
    let rows = query(
        db,
        sql,
        &[
            room_nid,
            parent_id,
            rel_type,
            event_type,
            after,
            upto,
            ignored,
            limit,
            &page.depth,
            &page.max_followed,
        ],
    )
    .await?;
    Ok(rows.iter().map(TimelineEvent::from).collect())
}

/// A page of a room's threads.
#[derive(Clone, Copy, Debug)]
pub struct ThreadPage<'a> {
    /// The room.
    pub room_nid: i64,
    /// Only threads whose latest event is before this place.
    pub before: i64,
    /// Only events up to this place count.
    pub upto: i64,
    /// Only threads that this user wrote in, or began.
    pub participant: Option<&'a str>,
    /// The events of these senders don't count.
    pub ignored: &'a [&'a str],
    /// Threads at most.
    pub limit: i64,
}

/// A thread.
#[derive(Clone, Debug)]
pub struct ThreadRow {
    /// The place of its latest event.
    pub latest: i64,
    /// The event that it began with.
    pub root: TimelineEvent,
}

/// A page of a room's threads, latest activity first.
pub async fn list_threads(db: &impl GenericClient, page: &ThreadPage<'_>) -> Result<Vec<ThreadRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        timeline_event!(),
        ", t.latest
          FROM (SELECT r.parent_id, max(r.pos) AS latest, bool_or(r.sender_sid = u.string_id) AS is_own
                  FROM relations r LEFT JOIN strings u ON u.value = $4
                 WHERE r.room_nid = $1 AND r.rel_type = 'm.thread' AND r.pos IS NOT NULL AND r.pos <= $3
                   AND r.sender_sid NOT IN (SELECT string_id FROM strings WHERE value = ANY ($5))
                 GROUP BY r.parent_id HAVING max(r.pos) < $2) AS t
          JOIN events e ON e.event_id = t.parent_id AND e.room_nid = $1 AND e.pos IS NOT NULL
         WHERE $4::text IS NULL OR t.is_own
            OR e.sender_sid = (SELECT string_id FROM strings WHERE value = $4)
         ORDER BY t.latest DESC LIMIT $6"
    );
    let ThreadPage { room_nid, before, upto, participant, ignored, limit } = page;
    let rows = query(db, SQL, &[room_nid, before, upto, participant, ignored, limit]).await?;
    Ok(rows
        .iter()
        .map(|row| ThreadRow { latest: row.get(TIMELINE_EVENT_COLUMNS), root: TimelineEvent::from(row) })
        .collect())
}
