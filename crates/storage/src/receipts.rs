//! `receipts`: up to where users have read ([spec](https://spec.matrix.org/v1.19/client-server-api/#receipts)).

use myelin_types::{Position, StreamId, WriterId};

use crate::{GenericClient, Result, Row, Write, query};

/// A row of `receipts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The room's number.
    pub room_nid: i64,
    /// Who read.
    pub user_id: String,
    /// 0 `m.read`, 1 `m.read.private`.
    pub receipt_type: i16,
    /// Empty for the whole room, else `main` or the id of a thread's root.
    pub thread_id: String,
    /// The last event that was read.
    pub event_id: String,
    /// Its place in the timeline, if it is known.
    pub event_pos: Option<i64>,
    /// When it was read, in milliseconds since the epoch.
    pub ts: i64,
    /// The row's id in the receipts stream.
    pub stream_id: StreamId,
    /// Who wrote it.
    pub writer: WriterId,
}

impl From<&Row> for Receipt {
    fn from(row: &Row) -> Self {
        Self {
            room_nid: row.get(0),
            user_id: row.get(1),
            receipt_type: row.get(2),
            thread_id: row.get(3),
            event_id: row.get(4),
            event_pos: row.get(5),
            ts: row.get(6),
            stream_id: StreamId(row.get(7)),
            writer: WriterId(row.get(8)),
        }
    }
}

/// Writes receipts over older ones of the same key. No key may be there twice.
pub async fn upsert_receipts(db: &impl Write, receipts: &[Receipt]) -> Result<()> {
    const SQL: &str = "
        INSERT INTO receipts (room_nid, user_id, receipt_type, thread_id, event_id, event_pos, ts, stream_id, writer_id)
        SELECT * FROM unnest($1::bigint[], $2::text[], $3::smallint[], $4::text[], $5::text[], $6::bigint[],
                             $7::bigint[], $8::bigint[], $9::smallint[])
            ON CONFLICT (room_nid, user_id, receipt_type, thread_id)
            DO UPDATE SET event_id = excluded.event_id, event_pos = excluded.event_pos, ts = excluded.ts,
                          stream_id = excluded.stream_id, writer_id = excluded.writer_id
         WHERE receipts.stream_id < excluded.stream_id";
    macro_rules! column {
        ($field:expr) => {
            &receipts.iter().map($field).collect::<Vec<_>>()
        };
    }
    db.write(
        SQL,
        &[
            column!(|r: &Receipt| r.room_nid),
            column!(|r: &Receipt| r.user_id.as_str()),
            column!(|r: &Receipt| r.receipt_type),
            column!(|r: &Receipt| r.thread_id.as_str()),
            column!(|r: &Receipt| r.event_id.as_str()),
            column!(|r: &Receipt| r.event_pos),
            column!(|r: &Receipt| r.ts),
            column!(|r: &Receipt| r.stream_id.0),
            column!(|r: &Receipt| r.writer.0),
        ],
    )
    .await
}

/// At most `limit` receipts with an id in (`after`, `upto`], by ascending id, each with the id of its room.
pub async fn receipts_since(
    db: &impl GenericClient,
    after: StreamId,
    upto: StreamId,
    limit: i64,
) -> Result<Vec<(Receipt, String)>> {
    const SQL: &str = "
        SELECT r.room_nid, user_id, receipt_type, thread_id, event_id, event_pos, ts, stream_id, writer_id, room_id
          FROM receipts r JOIN rooms USING (room_nid)
         WHERE stream_id > $1 AND stream_id <= $2
         ORDER BY stream_id LIMIT $3";
    let rows = query(db, SQL, &[&after.0, &upto.0, &limit]).await?;
    Ok(rows.iter().map(|row| (row.into(), row.get(9))).collect())
}

/// The receipts of some rooms that `after` does not cover, private ones only of `user_id`, ordered by room.
pub async fn receipts_of_rooms(
    db: &impl GenericClient,
    room_nids: &[i64],
    user_id: &str,
    after: &Position,
) -> Result<Vec<Receipt>> {
    const SQL: &str = "
        SELECT room_nid, user_id, receipt_type, thread_id, event_id, event_pos, ts, stream_id, writer_id
          FROM receipts
         WHERE room_nid = ANY ($1) AND stream_id > $3 AND (receipt_type = 0 OR user_id = $2)
         ORDER BY room_nid";
    let rows = query(db, SQL, &[&room_nids, &user_id, &after.minimum().0]).await?;
    let receipts = rows.iter().map(Receipt::from);
    Ok(receipts.filter(|receipt| !after.covers(receipt.writer, receipt.stream_id)).collect())
}

/// One user's receipts in some rooms.
pub async fn receipts_of_user(
    db: &impl GenericClient,
    room_nids: &[i64],
    user_id: &str,
) -> Result<Vec<Receipt>> {
    const SQL: &str = "
        SELECT room_nid, user_id, receipt_type, thread_id, event_id, event_pos, ts, stream_id, writer_id
          FROM receipts WHERE room_nid = ANY ($1) AND user_id = $2";
    let rows = query(db, SQL, &[&room_nids, &user_id]).await?;
    Ok(rows.iter().map(Receipt::from).collect())
}
