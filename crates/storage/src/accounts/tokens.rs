//! `login_tokens` and `openid_tokens`: tokens for a single purpose and a short time.

use myelin_types::MillisSinceEpoch;
use ruma::{OwnedUserId, UserId};

use super::{TokenHash, user_id};
use crate::{GenericClient, Result, execute, query_opt};

/// Notes a token to log in with once.
pub async fn insert_login_token(
    db: &impl GenericClient,
    token: TokenHash,
    user: &UserId,
    expires_ts: MillisSinceEpoch,
) -> Result<()> {
    const SQL: &str = "INSERT INTO login_tokens (token_hash, user_id, expires_ts) VALUES ($1, $2, $3)";
    execute(db, SQL, &[&token.as_bytes(), &user.as_str(), &expires_ts.cast_signed()]).await?;
    Ok(())
}

/// Uses up a login token; gives its user, unless it has expired.
pub async fn take_login_token(
    db: &impl GenericClient,
    token: TokenHash,
    now: MillisSinceEpoch,
) -> Result<Option<OwnedUserId>> {
    const SQL: &str = "
        DELETE FROM login_tokens WHERE token_hash = $1 RETURNING user_id, expires_ts > $2";
    let Some(row) = query_opt(db, SQL, &[&token.as_bytes(), &now.cast_signed()]).await? else {
        return Ok(None);
    };
    let is_valid: bool = row.try_get(1)?;
    is_valid.then(|| user_id(&row, 0)).transpose()
}

/// Notes a token that proves to others who somebody is.
pub async fn insert_openid_token(
    db: &impl GenericClient,
    token: TokenHash,
    user: &UserId,
    expires_ts: MillisSinceEpoch,
) -> Result<()> {
    const SQL: &str = "INSERT INTO openid_tokens (token_hash, user_id, expires_ts) VALUES ($1, $2, $3)";
    execute(db, SQL, &[&token.as_bytes(), &user.as_str(), &expires_ts.cast_signed()]).await?;
    Ok(())
}

/// Whose OpenID token it is, unless it has expired.
pub async fn get_openid_user(
    db: &impl GenericClient,
    token: TokenHash,
    now: MillisSinceEpoch,
) -> Result<Option<OwnedUserId>> {
    const SQL: &str = "SELECT user_id FROM openid_tokens WHERE token_hash = $1 AND expires_ts > $2";
    let row = query_opt(db, SQL, &[&token.as_bytes(), &now.cast_signed()]).await?;
    row.map(|row| user_id(&row, 0)).transpose()
}

/// Deletes the tokens of both kinds that have expired.
pub async fn delete_expired(db: &impl GenericClient, now: MillisSinceEpoch) -> Result<()> {
    const SQL: &str = "
        WITH log_ins AS (DELETE FROM login_tokens WHERE expires_ts <= $1)
        DELETE FROM openid_tokens WHERE expires_ts <= $1";
    execute(db, SQL, &[&now.cast_signed()]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::tests::{alice, database, hash};

    #[tokio::test]
    async fn a_login_token_is_good_once_and_for_its_time() {
        let (_test, db) = database().await;
        insert_login_token(&db, hash(1), alice(), 100).await.unwrap();
        insert_login_token(&db, hash(2), alice(), 100).await.unwrap();
        assert_eq!(take_login_token(&db, hash(1), 99).await.unwrap().as_deref(), Some(alice()));
        assert_eq!(take_login_token(&db, hash(1), 99).await.unwrap(), None, "it was used");
        assert_eq!(take_login_token(&db, hash(2), 100).await.unwrap(), None, "it has expired");
    }

    #[tokio::test]
    async fn an_openid_token_is_good_for_its_time() {
        let (_test, db) = database().await;
        insert_openid_token(&db, hash(1), alice(), 100).await.unwrap();
        for _ in 0..2 {
            assert_eq!(get_openid_user(&db, hash(1), 99).await.unwrap().as_deref(), Some(alice()));
        }
        assert_eq!(get_openid_user(&db, hash(1), 100).await.unwrap(), None);
    }

    #[tokio::test]
    async fn expired_tokens_are_swept_and_others_stay() {
        let (_test, db) = database().await;
        insert_login_token(&db, hash(1), alice(), 100).await.unwrap();
        insert_login_token(&db, hash(2), alice(), 101).await.unwrap();
        insert_openid_token(&db, hash(3), alice(), 100).await.unwrap();
        delete_expired(&db, 100).await.unwrap();
        assert_eq!(take_login_token(&db, hash(1), 0).await.unwrap(), None);
        assert_eq!(take_login_token(&db, hash(2), 0).await.unwrap().as_deref(), Some(alice()));
        assert_eq!(get_openid_user(&db, hash(3), 0).await.unwrap(), None);
    }
}
