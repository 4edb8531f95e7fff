//! `registration_tokens` and `registration_nonces`.

use myelin_types::MillisSinceEpoch;

use crate::{GenericClient, Result, execute, query_opt};

/// Whether a registration token can be used: it has not expired, and what is left of its uses is not all taken by
/// sessions which passed the stage but are not through with registration yet. Sessions from before `sessions_since`
/// don't count any more.
pub async fn is_token_usable(
    db: &impl GenericClient,
    token: &str,
    now: MillisSinceEpoch,
    sessions_since: MillisSinceEpoch,
) -> Result<bool> {
    const SQL: &str = "
        SELECT FROM registration_tokens t
         WHERE token = $1 AND (expires_ts IS NULL OR expires_ts > $2)
           AND (uses_allowed IS NULL OR uses_allowed > completed +
                (SELECT count(*) FROM ui_auth_sessions s
                  WHERE s.registration_token = t.token AND s.registered_user_id IS NULL AND s.created_ts > $3))";
    let row = query_opt(db, SQL, &[&token, &now.cast_signed(), &sessions_since.cast_signed()]).await?;
    Ok(row.is_some())
}

/// Uses a registration token once, in the transaction that makes the user; `false` if it has no uses left.
pub async fn use_token(db: &impl GenericClient, token: &str) -> Result<bool> {
    const SQL: &str = "
        UPDATE registration_tokens SET completed = completed + 1
         WHERE token = $1 AND (uses_allowed IS NULL OR completed < uses_allowed)";
    Ok(execute(db, SQL, &[&token]).await? == 1)
}

/// Adds a registration token; `false` if there is one of that name.
pub async fn insert_token(
    db: &impl GenericClient,
    token: &str,
    uses_allowed: Option<i32>,
    expires_ts: Option<MillisSinceEpoch>,
) -> Result<bool> {
    const SQL: &str = "
        INSERT INTO registration_tokens (token, uses_allowed, expires_ts) VALUES ($1, $2, $3)
            ON CONFLICT (token) DO NOTHING";
    Ok(execute(db, SQL, &[&token, &uses_allowed, &expires_ts.map(u64::cast_signed)]).await? == 1)
}

/// Notes a nonce, and forgets those that have expired.
pub async fn insert_nonce(
    db: &impl GenericClient,
    nonce: &str,
    now: MillisSinceEpoch,
    expires_ts: MillisSinceEpoch,
) -> Result<()> {
    const SQL: &str = "
        WITH expired AS (DELETE FROM registration_nonces WHERE expires_ts <= $2)
        INSERT INTO registration_nonces (nonce, expires_ts) VALUES ($1, $3)";
    execute(db, SQL, &[&nonce, &now.cast_signed(), &expires_ts.cast_signed()]).await?;
    Ok(())
}

/// Uses up a nonce; `false` if it is unknown, was used, or has expired.
pub async fn take_nonce(db: &impl GenericClient, nonce: &str, now: MillisSinceEpoch) -> Result<bool> {
    const SQL: &str = "DELETE FROM registration_nonces WHERE nonce = $1 RETURNING expires_ts > $2";
    match query_opt(db, SQL, &[&nonce, &now.cast_signed()]).await? {
        Some(row) => Ok(row.try_get(0)?),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{
        tests::{alice, database},
        ui_auth::{self, NewUiAuthSession},
    };

    #[tokio::test]
    async fn a_nonce_is_good_once_and_for_its_time() {
        let (_test, db) = database().await;
        insert_nonce(&db, "one", 0, 10).await.unwrap();
        insert_nonce(&db, "two", 0, 10).await.unwrap();
        assert!(take_nonce(&db, "one", 9).await.unwrap());
        assert!(!take_nonce(&db, "one", 9).await.unwrap());
        insert_nonce(&db, "three", 10, 20).await.unwrap();
        assert!(!take_nonce(&db, "two", 9).await.unwrap(), "it was swept");
        assert!(!take_nonce(&db, "three", 20).await.unwrap());
    }

    #[tokio::test]
    async fn a_registration_token_has_as_many_uses_as_it_says() {
        let (_test, db) = database().await;
        assert!(insert_token(&db, "two", Some(2), None).await.unwrap());
        assert!(!insert_token(&db, "two", None, None).await.unwrap());
        assert!(is_token_usable(&db, "two", 0, 0).await.unwrap());
        assert!(use_token(&db, "two").await.unwrap());

        // A session on its way takes the last one …
        let session = NewUiAuthSession {
            session_id: "s",
            created_ts: 5,
            user_id: None,
            operation: "register",
            request_hash: None,
        };
        ui_auth::insert_session(&db, session).await.unwrap();
        ui_auth::complete_stage(&db, "s", "m.login.registration_token", Some("two")).await.unwrap();
        assert!(!is_token_usable(&db, "two", 0, 0).await.unwrap());
        assert!(is_token_usable(&db, "two", 0, 5).await.unwrap(), "… unless it is too old …");
        assert!(use_token(&db, "two").await.unwrap());
        ui_auth::set_registered_user(&db, "s", alice()).await.unwrap();
        assert!(!use_token(&db, "two").await.unwrap(), "… and then none is left");
    }

    #[tokio::test]
    async fn a_registration_token_expires() {
        let (_test, db) = database().await;
        insert_token(&db, "t", None, Some(10)).await.unwrap();
        assert!(is_token_usable(&db, "t", 9, 0).await.unwrap());
        assert!(!is_token_usable(&db, "t", 10, 0).await.unwrap());
        assert!(!is_token_usable(&db, "unknown", 9, 0).await.unwrap());
    }
}
