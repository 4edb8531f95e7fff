//! `access_tokens`: what a log-in makes, and a log-out takes away with the tokens that refresh it.

use myelin_types::MillisSinceEpoch;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use super::{TokenHash, device_id, refresh_tokens::NewRefreshToken, user_id, users::UserFlags};
use crate::{GenericClient, Result, Row, ToSql, Write, execute, query_one, query_opt};

/// A log-in to be noted.
#[derive(Clone, Copy, Debug)]
pub struct NewSession<'a> {
    /// Whose it is.
    pub user_id: &'a UserId,
    /// A new device, or one that logs in again: what tokens it had are revoked.
    pub device_id: &'a DeviceId,
    /// For a device that is new.
    pub display_name: Option<&'a str>,
    /// The time.
    pub now: MillisSinceEpoch,
    /// The hash of the access token.
    pub token: TokenHash,
    /// When the access token expires, if ever.
    pub expires_ts: Option<MillisSinceEpoch>,
    /// Set if the client can refresh.
    pub refresh: Option<NewRefreshToken>,
}

/// The parameters of what starts a session.
struct Parameters<'a> {
    user_id: &'a str,
    device_id: &'a str,
    display_name: Option<&'a str>,
    now: i64,
    token: &'a [u8],
    expires_ts: Option<i64>,
    refresh_token: Option<&'a [u8]>,
    refresh_expires_ts: Option<i64>,
    session_expires_ts: Option<i64>,
}

impl<'a> From<&'a NewSession<'_>> for Parameters<'a> {
    fn from(session: &'a NewSession<'_>) -> Self {
        let refresh = session.refresh.as_ref();
        Self {
            user_id: session.user_id.as_str(),
            device_id: session.device_id.as_str(),
            display_name: session.display_name,
            now: session.now.cast_signed(),
            token: session.token.as_bytes(),
            expires_ts: timestamp(session.expires_ts),
            refresh_token: refresh.map(|refresh| refresh.token.as_bytes()),
            refresh_expires_ts: refresh.and_then(|refresh| timestamp(refresh.expires_ts)),
            session_expires_ts: refresh.and_then(|refresh| timestamp(refresh.session_expires_ts)),
        }
    }
}

impl Parameters<'_> {
    fn list(&self) -> [&(dyn ToSql + Sync); 9] {
        [
            &self.user_id,
            &self.device_id,
            &self.display_name,
            &self.now,
            &self.token,
            &self.expires_ts,
            &self.refresh_token,
            &self.refresh_expires_ts,
            &self.session_expires_ts,
        ]
    }
}

/// What a log-in changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStarted {
    /// The device was not known before.
    pub is_new_device: bool,
    /// Access tokens of the device that are void now.
    pub revoked: Vec<TokenHash>,
}

pub(super) fn timestamp(ts: Option<MillisSinceEpoch>) -> Option<i64> {
    ts.map(u64::cast_signed)
}

const INSERT_SESSION: &str = "
    WITH known AS (SELECT FROM devices WHERE user_id = $1 AND device_id = $2),
        revoked AS (DELETE FROM access_tokens WHERE user_id = $1 AND device_id = $2 RETURNING token_hash),
        revoked_refresh AS (DELETE FROM refresh_tokens WHERE user_id = $1 AND device_id = $2),
        device AS (
            INSERT INTO devices (user_id, device_id, display_name, created_ts) VALUES ($1, $2, $3, $4)
                ON CONFLICT (user_id, device_id) DO NOTHING),
        refresh AS (
            INSERT INTO refresh_tokens (token_hash, user_id, device_id, expires_ts, session_expires_ts)
            SELECT $7, $1, $2, $8, $9 WHERE $7::bytea IS NOT NULL)
    INSERT INTO access_tokens (token_hash, user_id, device_id, expires_ts, validated_ts, refresh_hash)
        VALUES ($5, $1, $2, $6, $4, $7)
        RETURNING NOT EXISTS (SELECT FROM known), array(SELECT token_hash FROM revoked)";

/// Starts a session, in one statement.
pub async fn insert_session(db: &impl GenericClient, session: NewSession<'_>) -> Result<SessionStarted> {
    let row = query_one(db, INSERT_SESSION, &Parameters::from(&session).list()).await?;
    Ok(SessionStarted { is_new_device: row.try_get(0)?, revoked: TokenHash::list(&row, 1)? })
}

/// Starts a session on a device that is new, so that there is nothing to revoke.
///
/// # Errors
/// A unique violation if the device is known.
pub async fn insert_first_session(db: &impl Write, session: NewSession<'_>) -> Result<()> {
    const SQL: &str = "
        WITH device AS (
            INSERT INTO devices (user_id, device_id, display_name, created_ts) VALUES ($1, $2, $3, $4)),
        refresh AS (
            INSERT INTO refresh_tokens (token_hash, user_id, device_id, expires_ts, session_expires_ts)
            SELECT $7, $1, $2, $8, $9 WHERE $7::bytea IS NOT NULL)
        INSERT INTO access_tokens (token_hash, user_id, device_id, expires_ts, validated_ts, refresh_hash)
            VALUES ($5, $1, $2, $6, $4, $7)";
    db.write(SQL, &Parameters::from(&session).list()).await
}

/// An access token with its user, as authentication needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// Whose it is.
    pub user_id: OwnedUserId,
    /// Of which device, if of any.
    pub device_id: Option<OwnedDeviceId>,
    /// When it expires, if ever.
    pub expires_ts: Option<MillisSinceEpoch>,
    /// When the user has last proven to be who they are.
    pub validated_ts: MillisSinceEpoch,
    /// The refresh token that came with it.
    pub refresh_hash: Option<TokenHash>,
    /// It was used before: there is no predecessor to revoke.
    pub used: bool,
    /// The kind and the condition of the account.
    pub flags: UserFlags,
}

/// An access token by its hash, expired or not.
pub async fn get_access_token(db: &impl GenericClient, token: TokenHash) -> Result<Option<TokenRow>> {
    const SQL: &str = "
        SELECT t.user_id, t.device_id, t.expires_ts, t.validated_ts, t.refresh_hash, t.used,
               u.is_guest, u.is_admin, u.deactivated, u.locked, u.suspended
          FROM access_tokens t JOIN users u ON u.user_id = t.user_id
         WHERE t.token_hash = $1";
    let Some(row) = query_opt(db, SQL, &[&token.as_bytes()]).await? else { return Ok(None) };
    let refresh_hash: Option<&[u8]> = row.try_get(4)?;
    Ok(Some(TokenRow {
        user_id: user_id(&row, 0)?,
        device_id: device_id(&row, 1)?,
        expires_ts: row.try_get::<_, Option<i64>>(2)?.map(i64::cast_unsigned),
        validated_ts: row.try_get::<_, i64>(3)?.cast_unsigned(),
        refresh_hash: refresh_hash.map(TokenHash::from_bytes).transpose()?,
        used: row.try_get(5)?,
        flags: UserFlags::from_row(&row, 6)?,
    }))
}

/// Notes that the user of an access token has just proven to be who they are.
pub async fn set_validated(db: &impl GenericClient, token: TokenHash, now: MillisSinceEpoch) -> Result<()> {
    const SQL: &str = "UPDATE access_tokens SET validated_ts = $2 WHERE token_hash = $1";
    execute(db, SQL, &[&token.as_bytes(), &now.cast_signed()]).await?;
    Ok(())
}

/// Deletes an access token that belongs to no device; `false` if there is none.
pub async fn delete_access_token(db: &impl GenericClient, token: TokenHash) -> Result<bool> {
    const SQL: &str = "DELETE FROM access_tokens WHERE token_hash = $1";
    Ok(execute(db, SQL, &[&token.as_bytes()]).await? == 1)
}

/// Sessions that are over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionsEnded {
    /// The devices that are gone.
    pub devices: Vec<OwnedDeviceId>,
    /// Access tokens that are void now.
    pub revoked: Vec<TokenHash>,
}

/// Deletes those of `devices` that exist, with their tokens.
pub async fn delete_devices(
    db: &impl GenericClient,
    user: &UserId,
    devices: &[&DeviceId],
) -> Result<SessionsEnded> {
    const SQL: &str = "
        WITH gone AS (DELETE FROM devices WHERE user_id = $1 AND device_id = ANY ($2) RETURNING device_id),
        refresh AS (DELETE FROM refresh_tokens WHERE user_id = $1 AND device_id = ANY ($2)),
        revoked AS (
            DELETE FROM access_tokens WHERE user_id = $1 AND device_id = ANY ($2) RETURNING token_hash)
        SELECT array(SELECT device_id FROM gone), array(SELECT token_hash FROM revoked)";
    let devices: Vec<&str> = devices.iter().map(|device| device.as_str()).collect();
    SessionsEnded::from_row(&query_one(db, SQL, &[&user.as_str(), &devices]).await?)
}

/// Deletes all devices of a user but `keep`, with their tokens and those of no device.
pub async fn delete_all_devices(
    db: &impl GenericClient,
    user: &UserId,
    keep: Option<&DeviceId>,
) -> Result<SessionsEnded> {
    const SQL: &str = "
        WITH gone AS (
            DELETE FROM devices WHERE user_id = $1 AND device_id IS DISTINCT FROM $2 RETURNING device_id),
        refresh AS (DELETE FROM refresh_tokens WHERE user_id = $1 AND device_id IS DISTINCT FROM $2),
        revoked AS (
            DELETE FROM access_tokens WHERE user_id = $1 AND device_id IS DISTINCT FROM $2 RETURNING token_hash)
        SELECT array(SELECT device_id FROM gone), array(SELECT token_hash FROM revoked)";
    let keep = keep.map(DeviceId::as_str);
    SessionsEnded::from_row(&query_one(db, SQL, &[&user.as_str(), &keep]).await?)
}

impl SessionsEnded {
    fn from_row(row: &Row) -> Result<Self> {
        let devices = row.try_get::<_, Vec<&str>>(0)?.into_iter().map(OwnedDeviceId::from).collect();
        Ok(Self { devices, revoked: TokenHash::list(row, 1)? })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use ruma::device_id;

    use super::*;
    use crate::{
        Client,
        accounts::{
            devices,
            refresh_tokens::{lock_refresh_token, tests::refresh},
            tests::{alice, bob, database, hash},
            users::{NewUser, insert_user},
        },
    };

    pub fn session<'a>(user_id: &'a UserId, device: &'a str, token: TokenHash) -> NewSession<'a> {
        NewSession {
            user_id,
            device_id: device.into(),
            display_name: None,
            now: 100,
            token,
            expires_ts: None,
            refresh: None,
        }
    }

    pub async fn add_user(db: &Client, user_id: &UserId) {
        let user = NewUser {
            user_id,
            password_hash: None,
            created_ts: 0,
            flags: UserFlags::default(),
            user_type: None,
            displayname: None,
        };
        assert!(insert_user(db, user).await.unwrap());
    }

    pub async fn is_known(db: &Client, token: u8) -> bool {
        get_access_token(db, hash(token)).await.unwrap().is_some()
    }

    #[tokio::test]
    async fn a_device_that_logs_in_again_loses_its_tokens_and_keeps_its_name() {
        let (_test, db) = database().await;
        add_user(&db, alice()).await;
        let first = NewSession {
            display_name: Some("Phone"),
            refresh: Some(refresh(11)),
            ..session(alice(), "PHONE", hash(1))
        };
        let started = insert_session(&db, first).await.unwrap();
        assert_eq!(started, SessionStarted { is_new_device: true, revoked: Vec::new() });

        let again = NewSession { display_name: Some("Other"), ..session(alice(), "PHONE", hash(2)) };
        let started = insert_session(&db, again).await.unwrap();
        assert_eq!(started, SessionStarted { is_new_device: false, revoked: vec![hash(1)] });
        assert!(!is_known(&db, 1).await);
        assert!(lock_refresh_token(&db, hash(11)).await.unwrap().is_none());
        let device = devices::get_device(&db, alice(), device_id!("PHONE")).await.unwrap().unwrap();
        assert_eq!(device.display_name.as_deref(), Some("Phone"));
    }

    #[tokio::test]
    async fn an_access_token_tells_everything_that_authentication_asks() {
        let (_test, db) = database().await;
        add_user(&db, alice()).await;
        let new = NewSession {
            expires_ts: Some(500),
            refresh: Some(refresh(11)),
            ..session(alice(), "PHONE", hash(1))
        };
        insert_session(&db, new).await.unwrap();
        set_validated(&db, hash(1), 200).await.unwrap();
        let token = get_access_token(&db, hash(1)).await.unwrap().unwrap();
        let expected = TokenRow {
            user_id: alice().to_owned(),
            device_id: Some("PHONE".into()),
            expires_ts: Some(500),
            validated_ts: 200,
            refresh_hash: Some(hash(11)),
            used: false,
            flags: UserFlags::default(),
        };
        assert_eq!(token, expected);
        assert!(!is_known(&db, 2).await);
    }

    #[tokio::test]
    async fn deleting_devices_touches_nobody_elses() {
        let (_test, db) = database().await;
        for (user, first) in [(alice(), 1), (bob(), 11)] {
            add_user(&db, user).await;
            for (number, device) in (first..).zip(["A", "B", "C"]) {
                let new = NewSession {
                    refresh: Some(refresh(number + 100)),
                    ..session(user, device, hash(number))
                };
                insert_session(&db, new).await.unwrap();
            }
        }
        let gone = delete_devices(&db, alice(), &[device_id!("A"), device_id!("unknown")]).await.unwrap();
        assert_eq!(gone, SessionsEnded { devices: vec!["A".into()], revoked: vec![hash(1)] });
        assert!(lock_refresh_token(&db, hash(101)).await.unwrap().is_none());

        let gone = delete_all_devices(&db, alice(), Some(device_id!("B"))).await.unwrap();
        assert_eq!(gone, SessionsEnded { devices: vec!["C".into()], revoked: vec![hash(3)] });
        let gone = delete_all_devices(&db, alice(), None).await.unwrap();
        assert_eq!(gone, SessionsEnded { devices: vec!["B".into()], revoked: vec![hash(2)] });
        assert!(is_known(&db, 11).await && is_known(&db, 12).await && is_known(&db, 13).await);
        assert!(!delete_access_token(&db, hash(1)).await.unwrap());
    }
}
