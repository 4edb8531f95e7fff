//! `push_rules` and `pushers`.

use myelin_types::{StreamId, WriterId};

use crate::{GenericClient, Result, Row, Write, execute, query, query_opt};

/// A user's push rules, as far as they are not the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushRulesRow {
    /// The place of the latest change in the stream.
    pub stream_id: StreamId,
    /// Who wrote it.
    pub writer: WriterId,
    /// Whose rules.
    pub user_id: String,
    /// The rules: a JSON document of crate push.
    pub rules: String,
}

/// Where notifications are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PusherRow {
    /// Whose notifications.
    pub user_id: String,
    /// The application; together with the pushkey, the pusher's name.
    pub app_id: String,
    /// The address within the application.
    pub pushkey: String,
    /// The device that set it.
    pub device_id: Option<String>,
    /// The pusher in the form of the specification.
    pub pusher: String,
    /// When it was set, in milliseconds since the epoch.
    pub created_ts: i64,
}

/// A user's rules, waiting for whoever changes them now: the caller changes them in the same transaction.
pub async fn lock_push_rules(db: &impl GenericClient, user_id: &str) -> Result<Option<String>> {
    // A lock on the name, because there may be no row yet.
    const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('myelin/push_rules/' || $1, 0))";
    const SQL: &str = "SELECT rules FROM push_rules WHERE user_id = $1";
    query(db, LOCK, &[&user_id]).await?;
    Ok(query_opt(db, SQL, &[&user_id]).await?.map(|row| row.get(0)))
}

/// The rules of those of the users who have other rules than the default.
pub async fn list_push_rules(db: &impl GenericClient, user_ids: &[&str]) -> Result<Vec<PushRulesRow>> {
    const SQL: &str = "SELECT stream_id, writer_id, user_id, rules FROM push_rules WHERE user_id = ANY ($1)";
    Ok(query(db, SQL, &[&user_ids]).await?.iter().map(rules_row).collect())
}

/// Stores rules, in place of the users' earlier ones.
pub async fn set_push_rules(db: &impl Write, rows: &[PushRulesRow]) -> Result<()> {
    const SQL: &str = "
        INSERT INTO push_rules AS old (user_id, rules, stream_id, writer_id) VALUES ($1, $2, $3, $4)
            ON CONFLICT (user_id) DO UPDATE
            SET rules = excluded.rules, stream_id = excluded.stream_id, writer_id = excluded.writer_id
          WHERE old.stream_id < excluded.stream_id";
    for row in rows {
        db.write(SQL, &[&row.user_id, &row.rules, &row.stream_id.0, &row.writer.0]).await?;
    }
    Ok(())
}

/// The rules that changed with ids in `(after, upto]`, by id, at most `limit`.
pub async fn push_rules_since(
    db: &impl GenericClient,
    after: StreamId,
    upto: StreamId,
    limit: i64,
) -> Result<Vec<PushRulesRow>> {
    const SQL: &str = "
        SELECT stream_id, writer_id, user_id, rules FROM push_rules
         WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id LIMIT $3";
    Ok(query(db, SQL, &[&after.0, &upto.0, &limit]).await?.iter().map(rules_row).collect())
}

/// A user's pushers, oldest first.
pub async fn list_pushers(db: &impl GenericClient, user_id: &str) -> Result<Vec<PusherRow>> {
    const SQL: &str = "
        SELECT user_id, app_id, pushkey, device_id, pusher, created_ts FROM pushers
         WHERE user_id = $1 ORDER BY created_ts, app_id, pushkey";
    Ok(query(db, SQL, &[&user_id])
        .await?
        .iter()
        .map(|row| PusherRow {
            user_id: row.get(0),
            app_id: row.get(1),
            pushkey: row.get(2),
            device_id: row.get(3),
            pusher: row.get(4),
            created_ts: row.get(5),
        })
        .collect())
}

/// Stores a pusher, in place of the user's earlier one of that name.
pub async fn set_pusher(db: &impl GenericClient, row: &PusherRow) -> Result<()> {
    const SQL: &str = "
        INSERT INTO pushers (user_id, app_id, pushkey, device_id, pusher, created_ts) VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (user_id, app_id, pushkey)
            DO UPDATE SET device_id = excluded.device_id, pusher = excluded.pusher, created_ts = excluded.created_ts";
    let PusherRow { user_id, app_id, pushkey, device_id, pusher, created_ts } = row;
    execute(db, SQL, &[user_id, app_id, pushkey, device_id, pusher, created_ts]).await?;
    Ok(())
}

/// Deletes a user's pusher.
pub async fn delete_pusher(
    db: &impl GenericClient,
    user_id: &str,
    app_id: &str,
    pushkey: &str,
) -> Result<()> {
    const SQL: &str = "DELETE FROM pushers WHERE user_id = $1 AND app_id = $2 AND pushkey = $3";
    execute(db, SQL, &[&user_id, &app_id, &pushkey]).await?;
    Ok(())
}

/// Deletes the pushers of this name that other users have.
pub async fn delete_pushers_of_others(
    db: &impl GenericClient,
    user_id: &str,
    app_id: &str,
    pushkey: &str,
) -> Result<()> {
    const SQL: &str = "DELETE FROM pushers WHERE user_id <> $1 AND app_id = $2 AND pushkey = $3";
    execute(db, SQL, &[&user_id, &app_id, &pushkey]).await?;
    Ok(())
}

/// Deletes the pushers that these devices of a user set.
pub async fn delete_pushers_of_devices(
    db: &impl GenericClient,
    user_id: &str,
    device_ids: &[&str],
) -> Result<()> {
    const SQL: &str = "DELETE FROM pushers WHERE user_id = $1 AND device_id = ANY ($2)";
    execute(db, SQL, &[&user_id, &device_ids]).await?;
    Ok(())
}

/// Deletes all pushers of a user.
pub async fn delete_pushers_of_user(db: &impl GenericClient, user_id: &str) -> Result<()> {
    const SQL: &str = "DELETE FROM pushers WHERE user_id = $1";
    execute(db, SQL, &[&user_id]).await?;
    Ok(())
}

fn rules_row(row: &Row) -> PushRulesRow {
    PushRulesRow {
        stream_id: StreamId(row.get(0)),
        writer: WriterId(row.get(1)),
        user_id: row.get(2),
        rules: row.get(3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestClient;

    #[tokio::test]
    async fn a_users_latest_rules_are_kept() {
        let mut db = TestClient::new().await;
        let rules = |stream_id, user_id: &str, rules: &str| PushRulesRow {
            stream_id: StreamId(stream_id),
            writer: WriterId(1),
            user_id: user_id.to_owned(),
            rules: rules.to_owned(),
        };
        let transaction = crate::Transaction::begin(&mut db);
        assert_eq!(lock_push_rules(&transaction, "@a:x").await.unwrap(), None);
        set_push_rules(&transaction, &[rules(1, "@a:x", "1"), rules(3, "@b:x", "3"), rules(4, "@a:x", "4")])
            .await
            .unwrap();
        assert_eq!(lock_push_rules(&transaction, "@a:x").await.unwrap().as_deref(), Some("4"));
        transaction.commit().await.unwrap();
        assert_eq!(list_push_rules(&*db, &["@b:x", "@c:x"]).await.unwrap(), [rules(3, "@b:x", "3")]);
        let since = push_rules_since(&*db, StreamId(1), StreamId(4), 10).await.unwrap();
        assert_eq!(since, [rules(3, "@b:x", "3"), rules(4, "@a:x", "4")]);
    }

    #[tokio::test]
    async fn pushers_are_named_by_application_and_pushkey() {
        let db = TestClient::new().await;
        let pusher = |user_id: &str, pushkey: &str, created_ts| PusherRow {
            user_id: user_id.to_owned(),
            app_id: "app".to_owned(),
            pushkey: pushkey.to_owned(),
            device_id: Some("D".to_owned()),
            pusher: "{}".to_owned(),
            created_ts,
        };
        for row in
            [pusher("@a:x", "1", 1), pusher("@a:x", "1", 2), pusher("@a:x", "2", 3), pusher("@b:x", "1", 4)]
        {
            set_pusher(&*db, &row).await.unwrap();
        }
        assert_eq!(
            list_pushers(&*db, "@a:x").await.unwrap(),
            [pusher("@a:x", "1", 2), pusher("@a:x", "2", 3)]
        );
        delete_pushers_of_others(&*db, "@a:x", "app", "1").await.unwrap();
        assert!(list_pushers(&*db, "@b:x").await.unwrap().is_empty());
        delete_pusher(&*db, "@a:x", "app", "1").await.unwrap();
        assert_eq!(list_pushers(&*db, "@a:x").await.unwrap(), [pusher("@a:x", "2", 3)]);
        delete_pushers_of_devices(&*db, "@a:x", &["D"]).await.unwrap();
        assert!(list_pushers(&*db, "@a:x").await.unwrap().is_empty());
        for row in [pusher("@a:x", "1", 1), pusher("@b:x", "2", 1)] {
            set_pusher(&*db, &row).await.unwrap();
        }
        delete_pushers_of_user(&*db, "@a:x").await.unwrap();
        assert!(list_pushers(&*db, "@a:x").await.unwrap().is_empty());
        assert_eq!(list_pushers(&*db, "@b:x").await.unwrap().len(), 1);
    }
}
