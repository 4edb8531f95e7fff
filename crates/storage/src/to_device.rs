//! `to_device_messages` and `to_device_transactions`: messages that wait for their device.

use myelin_types::{Position, StreamId, WriterId};

use crate::{GenericClient, Result, Row, Write, execute, query};

/// A message to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToDeviceMessageRow {
    /// The place in the stream.
    pub stream_id: StreamId,
    /// Who wrote it.
    pub writer: WriterId,
    /// Whom it is for.
    pub user_id: String,
    /// The device that it is for.
    pub device_id: String,
    /// Who sent it.
    pub sender: String,
    /// The event type.
    pub event_type: String,
    /// The content: a JSON object.
    pub content: String,
}

/// A sender's transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToDeviceTransactionRow {
    /// Who sent.
    pub user_id: String,
    /// With which device.
    pub device_id: String,
    /// The id that the device gave.
    pub txn_id: String,
    /// When, in milliseconds since the epoch.
    pub sent_ts: i64,
}

/// Stores messages, but those for devices that don't exist.
pub async fn insert_messages(db: &impl Write, rows: &[ToDeviceMessageRow]) -> Result<()> {
    const SQL: &str = "
        INSERT INTO to_device_messages (stream_id, writer_id, user_id, device_id, sender, type, content)
        SELECT w.*
          FROM unnest($1::bigint[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
               AS w (stream_id, writer_id, user_id, device_id, sender, type, content)
         CROSS JOIN LATERAL (SELECT FROM devices d
                              WHERE d.user_id = w.user_id AND d.device_id = w.device_id OFFSET 0) AS d";
    let ids: Vec<i64> = rows.iter().map(|row| row.stream_id.0).collect();
    let writers: Vec<i16> = rows.iter().map(|row| row.writer.0).collect();
    let text = |get: fn(&ToDeviceMessageRow) -> &str| rows.iter().map(get).collect::<Vec<&str>>();
    let (users, devices) = (text(|row| &row.user_id), text(|row| &row.device_id));
    let (senders, types, contents) =
        (text(|row| &row.sender), text(|row| &row.event_type), text(|row| &row.content));
    db.write(SQL, &[&ids, &writers, &users, &devices, &senders, &types, &contents]).await
}

/// Notes transactions.
///
/// # Errors
/// A [unique violation](crate::StorageError::is_unique_violation) if one of them was sent before.
pub async fn insert_transactions(db: &impl Write, rows: &[ToDeviceTransactionRow]) -> Result<()> {
    const SQL: &str = "
        INSERT INTO to_device_transactions (user_id, device_id, txn_id, sent_ts)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])";
    let users: Vec<&str> = rows.iter().map(|row| row.user_id.as_str()).collect();
    let devices: Vec<&str> = rows.iter().map(|row| row.device_id.as_str()).collect();
    let txn_ids: Vec<&str> = rows.iter().map(|row| row.txn_id.as_str()).collect();
    let times: Vec<i64> = rows.iter().map(|row| row.sent_ts).collect();
    db.write(SQL, &[&users, &devices, &txn_ids, &times]).await
}

/// Forgets the transactions that were sent before some time, at most `limit`; gives how many there were.
pub async fn delete_transactions_before(db: &impl GenericClient, sent_ts: i64, limit: i64) -> Result<u64> {
    const SQL: &str = "
        DELETE FROM to_device_transactions
         WHERE ctid IN (SELECT ctid FROM to_device_transactions WHERE sent_ts < $1 LIMIT $2)";
    execute(db, SQL, &[&sent_ts, &limit]).await
}

/// A device's messages that `after` does not cover and `upto` does, by id, at most `limit`.
pub async fn list_messages(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
    after: &Position,
    upto: &Position,
    limit: i64,
) -> Result<Vec<ToDeviceMessageRow>> {
    const SQL: &str = "
        SELECT stream_id, writer_id, user_id, device_id, sender, type, content FROM to_device_messages m
         WHERE user_id = $1 AND device_id = $2 AND stream_id > $3
           AND NOT EXISTS (SELECT 1 FROM unnest($4::smallint[], $5::bigint[]) AS a (writer, id)
                            WHERE a.writer = m.writer_id AND m.stream_id <= a.id)
           AND (stream_id <= $6
                OR EXISTS (SELECT 1 FROM unnest($7::smallint[], $8::bigint[]) AS u (writer, id)
                            WHERE u.writer = m.writer_id AND m.stream_id <= u.id))
         ORDER BY stream_id LIMIT $9";
    let (after_writers, after_ids) = ahead(after);
    let (upto_writers, upto_ids) = ahead(upto);
    let rows = query(
        db,
        SQL,
        &[
            &user_id,
            &device_id,
            &after.minimum().0,
            &after_writers,
            &after_ids,
            &upto.minimum().0,
            &upto_writers,
            &upto_ids,
            &limit,
        ],
    )
    .await?;
    Ok(rows.iter().map(message).collect())
}

/// All messages with ids in `(after, upto]`, by id, at most `limit`.
pub async fn messages_since(
    db: &impl GenericClient,
    after: StreamId,
    upto: StreamId,
    limit: i64,
) -> Result<Vec<ToDeviceMessageRow>> {
    const SQL: &str = "
        SELECT stream_id, writer_id, user_id, device_id, sender, type, content FROM to_device_messages
         WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id LIMIT $3";
    Ok(query(db, SQL, &[&after.0, &upto.0, &limit]).await?.iter().map(message).collect())
}

/// Deletes messages: of each device, given by its user and id, those that the position covers.
pub async fn delete_messages(db: &impl GenericClient, confirmed: &[(&str, &str, &Position)]) -> Result<u64> {
    const SQL: &str = "
        DELETE FROM to_device_messages m
         WHERE m.ctid = ANY (ARRAY(
               SELECT o.ctid
                 FROM unnest($1::text[], $2::text[], $3::bigint[]) AS c (user_id, device_id, upto)
                CROSS JOIN LATERAL
                      (SELECT ctid FROM to_device_messages o
                        WHERE o.user_id = c.user_id AND o.device_id = c.device_id AND o.stream_id <= c.upto
                       OFFSET 0) AS o
                UNION
               SELECT o.ctid
                 FROM unnest($4::text[], $5::text[], $6::smallint[], $7::bigint[]) AS a (user_id, device_id, writer, upto)
                CROSS JOIN LATERAL
                      (SELECT ctid FROM to_device_messages o
                        WHERE o.user_id = a.user_id AND o.device_id = a.device_id AND o.stream_id <= a.upto
                          AND o.writer_id = a.writer
                       OFFSET 0) AS o))";
    let users: Vec<&str> = confirmed.iter().map(|(user_id, ..)| *user_id).collect();
    let devices: Vec<&str> = confirmed.iter().map(|(_, device_id, _)| *device_id).collect();
    let minimums: Vec<i64> = confirmed.iter().map(|(.., position)| position.minimum().0).collect();
    let ahead: Vec<(&str, &str, i16, i64)> = confirmed
        .iter()
        .flat_map(|(user_id, device_id, position)| {
            position.ahead().map(|(writer, id)| (*user_id, *device_id, writer.0, id.0))
        })
        .collect();
    let ahead_users: Vec<&str> = ahead.iter().map(|(user_id, ..)| *user_id).collect();
    let ahead_devices: Vec<&str> = ahead.iter().map(|(_, device_id, ..)| *device_id).collect();
    let (writers, ids): (Vec<i16>, Vec<i64>) = ahead.iter().map(|(.., writer, id)| (*writer, *id)).unzip();
    execute(db, SQL, &[&users, &devices, &minimums, &ahead_users, &ahead_devices, &writers, &ids]).await
}

/// The newest message of each writer in a device's inbox.
pub async fn newest_messages(
    db: &impl GenericClient,
    user_id: &str,
    device_id: &str,
) -> Result<Vec<(WriterId, StreamId)>> {
    const SQL: &str = "
        SELECT writer_id, max(stream_id) FROM to_device_messages
         WHERE user_id = $1 AND device_id = $2 GROUP BY writer_id";
    let rows = query(db, SQL, &[&user_id, &device_id]).await?;
    Ok(rows.iter().map(|row| (WriterId(row.get(0)), StreamId(row.get(1)))).collect())
}

fn ahead(position: &Position) -> (Vec<i16>, Vec<i64>) {
    position.ahead().map(|(writer, id)| (writer.0, id.0)).unzip()
}

fn message(row: &Row) -> ToDeviceMessageRow {
    ToDeviceMessageRow {
        stream_id: StreamId(row.get(0)),
        writer: WriterId(row.get(1)),
        user_id: row.get(2),
        device_id: row.get(3),
        sender: row.get(4),
        event_type: row.get(5),
        content: row.get(6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestClient;

    fn sent(stream_id: i64, writer: i16, device_id: &str) -> ToDeviceMessageRow {
        ToDeviceMessageRow {
            stream_id: StreamId(stream_id),
            writer: WriterId(writer),
            user_id: "@a:x".to_owned(),
            device_id: device_id.to_owned(),
            sender: "@b:x".to_owned(),
            event_type: "m.dummy".to_owned(),
            content: "{}".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_device_gets_what_lies_between_two_positions_and_loses_what_it_confirmed() {
        let db = TestClient::new().await;
        const DEVICES: &str =
            "INSERT INTO devices (user_id, device_id, created_ts) VALUES ('@a:x', 'D', 0), ('@a:x', 'E', 0)";
        db.execute(DEVICES, &[]).await.unwrap();
        insert_messages(&*db, &[sent(1, 1, "GONE")]).await.unwrap();
        let inbox = [sent(1, 1, "D"), sent(2, 2, "D"), sent(3, 1, "D"), sent(4, 2, "D"), sent(5, 1, "E")];
        insert_messages(&*db, &inbox).await.unwrap();
        let between = async |after: &str, upto: &str, limit| {
            let (after, upto) = (after.parse().unwrap(), upto.parse().unwrap());
            let rows = list_messages(&*db, "@a:x", "D", &after, &upto, limit).await.unwrap();
            rows.iter().map(|row| row.stream_id.0).collect::<Vec<_>>()
        };
        assert_eq!(between("0", "9", 100).await, [1, 2, 3, 4]);
        assert_eq!(between("0", "9", 2).await, [1, 2]);
        assert_eq!(between("1", "1~1.3", 100).await, [3], "of writer 2 nothing is known to be complete yet");
        assert_eq!(between("0~1.3", "9", 100).await, [2, 4]);

        assert_eq!(
            newest_messages(&*db, "@a:x", "D")
                .await
                .unwrap()
                .into_iter()
                .collect::<std::collections::BTreeMap<_, _>>(),
            [(WriterId(1), StreamId(3)), (WriterId(2), StreamId(4))].into()
        );
        let [nothing, some] = ["0", "1~1.3"].map(|position| position.parse::<Position>().unwrap());
        let confirmed = [("@a:x", "D", &some), ("@a:x", "E", &nothing)];
        assert_eq!(delete_messages(&*db, &confirmed).await.unwrap(), 2);
        assert_eq!(between("0", "9", 100).await, [2, 4]);
        let all = messages_since(&*db, StreamId(2), StreamId(9), 100).await.unwrap();
        assert_eq!(all, [sent(4, 2, "D"), sent(5, 1, "E")]);
    }

    #[tokio::test]
    async fn a_transaction_is_noted_once_until_it_is_forgotten() {
        let db = TestClient::new().await;
        let txn = |txn_id: &str| ToDeviceTransactionRow {
            user_id: "@a:x".to_owned(),
            device_id: "D".to_owned(),
            txn_id: txn_id.to_owned(),
            sent_ts: 10,
        };
        insert_transactions(&*db, &[txn("1"), txn("2")]).await.unwrap();
        let again = insert_transactions(&*db, &[txn("3"), txn("2")]).await.unwrap_err();
        assert!(again.is_unique_violation());
        assert_eq!(delete_transactions_before(&*db, 10, 100).await.unwrap(), 0);
        assert_eq!(delete_transactions_before(&*db, 11, 100).await.unwrap(), 2);
        insert_transactions(&*db, &[txn("2")]).await.unwrap();
    }
}
