//! `refresh_tokens`: what a client shows for new tokens
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens)).

use myelin_types::MillisSinceEpoch;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use super::{TokenHash, sessions::timestamp, user_id, users::UserFlags};
use crate::{GenericClient, Result, Row, query, query_one, query_opt};

/// A refresh token to be noted.
#[derive(Clone, Copy, Debug)]
pub struct NewRefreshToken {
    /// Its hash.
    pub token: TokenHash,
    /// When it expires, if ever.
    pub expires_ts: Option<MillisSinceEpoch>,
    /// When the session ends however often it is refreshed, if ever.
    pub session_expires_ts: Option<MillisSinceEpoch>,
}

/// A refresh token with its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshRow {
    /// Whose it is.
    pub user_id: OwnedUserId,
    /// Of which device.
    pub device_id: OwnedDeviceId,
    /// When it expires, if ever.
    pub expires_ts: Option<MillisSinceEpoch>,
    /// When the session ends, if ever.
    pub session_expires_ts: Option<MillisSinceEpoch>,
    /// The kind and the condition of the account.
    pub flags: UserFlags,
}

/// A refresh token that is still good, locked until the caller's transaction ends.
pub async fn lock_refresh_token(db: &impl GenericClient, token: TokenHash) -> Result<Option<RefreshRow>> {
    const SQL: &str = "
        SELECT r.user_id, r.device_id, r.expires_ts, r.session_expires_ts,
               u.is_guest, u.is_admin, u.deactivated, u.locked, u.suspended
          FROM refresh_tokens r JOIN users u ON u.user_id = r.user_id
         WHERE r.token_hash = $1 FOR UPDATE OF r";
    let Some(row) = query_opt(db, SQL, &[&token.as_bytes()]).await? else { return Ok(None) };
    Ok(Some(RefreshRow {
        user_id: user_id(&row, 0)?,
        device_id: row.try_get::<_, &str>(1)?.into(),
        expires_ts: row.try_get::<_, Option<i64>>(2)?.map(i64::cast_unsigned),
        session_expires_ts: row.try_get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
        flags: UserFlags::from_row(&row, 4)?,
    }))
}

/// Tokens that take the place of `current`.
#[derive(Clone, Copy, Debug)]
pub struct Replacement<'a> {
    /// The refresh token that the client showed; it stays good until one of the new tokens is used.
    pub current: TokenHash,
    /// Its user.
    pub user_id: &'a UserId,
    /// Its device.
    pub device_id: &'a DeviceId,
    /// The new refresh token.
    pub refresh: NewRefreshToken,
    /// The new access token.
    pub access: TokenHash,
    /// When the access token expires, if ever.
    pub access_expires_ts: Option<MillisSinceEpoch>,
}

/// Replaces a refresh token that the caller has locked. Showing it revokes its own predecessor, and whatever was given
/// out for it before, which the client never used. Gives the access tokens that are void now.
pub async fn replace_refresh_token(
    db: &impl GenericClient,
    replacement: Replacement<'_>,
) -> Result<Vec<TokenHash>> {
    const SQL: &str = "
        WITH gone AS (
            DELETE FROM refresh_tokens
             WHERE next_hash = $1 OR token_hash = (SELECT next_hash FROM refresh_tokens WHERE token_hash = $1)
            RETURNING token_hash),
        revoked AS (
            DELETE FROM access_tokens WHERE refresh_hash IN (SELECT token_hash FROM gone)
            RETURNING token_hash, validated_ts),
        shown AS (UPDATE refresh_tokens SET next_hash = $4 WHERE token_hash = $1),
        refresh AS (
            INSERT INTO refresh_tokens (token_hash, user_id, device_id, expires_ts, session_expires_ts)
            VALUES ($4, $2, $3, $5, $6))
        INSERT INTO access_tokens (token_hash, user_id, device_id, expires_ts, validated_ts, refresh_hash)
        SELECT $7, $2, $3, $8, coalesce(max(validated_ts), 0), $4
          FROM access_tokens WHERE user_id = $2 AND device_id = $3
        RETURNING array(SELECT token_hash FROM revoked)";
    let Replacement { current, user_id, device_id, refresh, access, access_expires_ts } = replacement;
    let row = query_one(
        db,
        SQL,
        &[
            &current.as_bytes(),
            &user_id.as_str(),
            &device_id.as_str(),
            &refresh.token.as_bytes(),
            &timestamp(refresh.expires_ts),
            &timestamp(refresh.session_expires_ts),
            &access.as_bytes(),
            &timestamp(access_expires_ts),
        ],
    )
    .await?;
    TokenHash::list(&row, 0)
}

/// Notes that an access token which came with a refresh token was used for the first time: the refresh token before
/// that one is revoked, and the access tokens that came with it, whose hashes are given.
pub async fn mark_used(
    db: &impl GenericClient,
    token: TokenHash,
    refresh: TokenHash,
) -> Result<Vec<TokenHash>> {
    const SQL: &str = "
        WITH used AS (UPDATE access_tokens SET used = true WHERE token_hash = $1),
        previous AS (DELETE FROM refresh_tokens WHERE next_hash = $2 RETURNING token_hash)
        DELETE FROM access_tokens WHERE refresh_hash IN (SELECT token_hash FROM previous) RETURNING token_hash";
    hashes(&query(db, SQL, &[&token.as_bytes(), &refresh.as_bytes()]).await?)
}

fn hashes(rows: &[Row]) -> Result<Vec<TokenHash>> {
    rows.iter().map(|row| TokenHash::from_row(row, 0)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use ruma::device_id;

    use super::*;
    use crate::accounts::{
        sessions::{
            NewSession, get_access_token, insert_session,
            tests::{add_user, is_known, session},
        },
        tests::{alice, database, hash},
    };

    pub fn refresh(number: u8) -> NewRefreshToken {
        NewRefreshToken { token: hash(number), expires_ts: Some(900), session_expires_ts: None }
    }

    #[tokio::test]
    async fn a_refresh_token_is_good_until_what_replaced_it_is_used() {
        let (_test, db) = database().await;
        add_user(&db, alice()).await;
        let first = NewSession { refresh: Some(refresh(11)), ..session(alice(), "PHONE", hash(1)) };
        insert_session(&db, first).await.unwrap();
        let replace = async |current: u8, next: u8, access: u8| {
            let replacement = Replacement {
                current: hash(current),
                user_id: alice(),
                device_id: device_id!("PHONE"),
                refresh: refresh(next),
                access: hash(access),
                access_expires_ts: Some(300),
            };
            replace_refresh_token(&db, replacement).await.unwrap()
        };

        // The answer to the first refresh got lost, so the client repeats it.
        assert_eq!(replace(11, 12, 2).await, []);
        assert_eq!(replace(11, 13, 3).await, [hash(2)], "what the client never saw is void");
        assert!(lock_refresh_token(&db, hash(12)).await.unwrap().is_none());
        assert!(is_known(&db, 1).await, "the old access token is good as long as its refresh token");

        assert_eq!(mark_used(&db, hash(3), hash(13)).await.unwrap(), [hash(1)]);
        assert!(lock_refresh_token(&db, hash(11)).await.unwrap().is_none());
        let token = get_access_token(&db, hash(3)).await.unwrap().unwrap();
        assert!(token.used);
        assert_eq!(token.validated_ts, 100, "refreshing proves nothing");

        // Showing the new refresh token counts as using it, too.
        replace(13, 14, 4).await;
        assert_eq!(replace(14, 15, 5).await, [hash(3)]);
        assert!(lock_refresh_token(&db, hash(13)).await.unwrap().is_none());
        let row = lock_refresh_token(&db, hash(15)).await.unwrap().unwrap();
        assert_eq!((row.device_id.as_str(), row.expires_ts), ("PHONE", Some(900)));
    }
}
