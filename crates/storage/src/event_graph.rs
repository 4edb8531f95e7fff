//! How the events of a room hang together: auth chains, and where the history that we have ends.

use crate::{
    GenericClient, Result, Write,
    events::{StoredEvent, stored_event},
    query,
};

/// The events with these ids and their auth chains, as far as they are stored, in no order.
pub async fn list_auth_chain(
    db: &impl GenericClient,
    room_nid: i64,
    event_ids: &[&str],
) -> Result<Vec<StoredEvent>> {
    // PostgreSQL does not read JSON with an escaped NUL, so that is another character here, which changes no id. In room
    // versions 1 and 2 a reference is a list of the id and a hash.
    const SQL: &str = concat!(
        "WITH RECURSIVE chain (event_id) AS (
            SELECT unnest($2::text[])
             UNION
            SELECT CASE json_typeof(reference) WHEN 'array' THEN reference ->> 0 ELSE reference #>> '{}' END
              FROM chain
              JOIN events c ON c.event_id = chain.event_id AND c.room_nid = $1
             CROSS JOIN LATERAL json_array_elements(
                       replace(c.json, '\\u0000', '\\u0001')::json -> 'auth_events') AS auth (reference))
        SELECT ",
        stored_event!(),
        " FROM chain JOIN events e ON e.event_id = chain.event_id AND e.room_nid = $1"
    );
    Ok(query(db, SQL, &[&room_nid, &event_ids]).await?.iter().map(StoredEvent::from).collect())
}

/// The ids of the backward extremities of a room.
pub async fn list_backward_extremities(db: &impl GenericClient, room_nid: i64) -> Result<Vec<String>> {
    const SQL: &str = "SELECT event_id FROM backward_extremities WHERE room_nid = $1";
    Ok(query(db, SQL, &[&room_nid]).await?.iter().map(|row| row.get(0)).collect())
}

/// Adds backward extremities; the lists belong together.
pub async fn insert_backward_extremities(
    db: &impl Write,
    room_nids: &[i64],
    event_ids: &[&str],
) -> Result<()> {
    const SQL: &str = "
        INSERT INTO backward_extremities (room_nid, event_id)
        SELECT * FROM unnest($1::bigint[], $2::text[]) ON CONFLICT DO NOTHING";
    db.write(SQL, &[&room_nids, &event_ids]).await
}

/// Takes backward extremities away whose place is known now; the lists belong together.
pub async fn delete_backward_extremities(
    db: &impl Write,
    room_nids: &[i64],
    event_ids: &[&str],
) -> Result<()> {
    const SQL: &str = "
        DELETE FROM backward_extremities b USING unnest($1::bigint[], $2::text[]) AS d (room, event)
         WHERE b.room_nid = d.room AND b.event_id = d.event";
    db.write(SQL, &[&room_nids, &event_ids]).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{execute, test_support::TestClient};

    #[tokio::test]
    async fn backward_extremities_come_and_go() {
        let db = TestClient::new().await;
        let check = async |expected: &[&str]| {
            let mut found = list_backward_extremities(&*db, 1).await.unwrap();
            found.sort();
            assert_eq!(found, expected);
        };
        insert_backward_extremities(&*db, &[1, 1, 2], &["$a", "$b", "$a"]).await.unwrap();
        insert_backward_extremities(&*db, &[1], &["$a"]).await.unwrap();
        check(&["$a", "$b"]).await;
        delete_backward_extremities(&*db, &[1, 1], &["$a", "$none"]).await.unwrap();
        check(&["$b"]).await;
    }

    #[tokio::test]
    async fn auth_chains_are_followed_in_both_formats_of_references() {
        let db = TestClient::new().await;
        let events = [
            (1, "$create", r#"{"auth_events":[]}"#),
            (2, "$join", r#"{"auth_events":[["$create",{"sha256":"x"}]],"nul":"\u0000"}"#),
            (3, "$levels", r#"{"auth_events":["$create","$join","$unknown"]}"#),
            (4, "$other", r#"{"auth_events":["$create"]}"#),
        ];
        for (event_nid, event_id, json) in &events {
            const SQL: &str = "
                INSERT INTO events (room_nid, event_nid, depth, sender_sid, type_sid, origin_server_ts, writer_id,
                                    flags, event_id, json)
                VALUES (1, $1, 1, 1, 1, 1, 1, 4, $2, $3)";
            execute(&*db, SQL, &[&i64::from(*event_nid), event_id, json]).await.unwrap();
        }
        let chain = list_auth_chain(&*db, 1, &["$levels"]).await.unwrap();
        let mut ids: Vec<&str> = chain.iter().map(|event| event.event_id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["$create", "$join", "$levels"]);
        assert!(list_auth_chain(&*db, 2, &["$levels"]).await.unwrap().is_empty());
    }
}
