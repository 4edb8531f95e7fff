//! `ui_auth_sessions`: user-interactive authentication under way.

use myelin_types::MillisSinceEpoch;
use ruma::{OwnedUserId, UserId};

use crate::{GenericClient, Result, StorageError, execute, query_opt};

/// A session to be noted.
#[derive(Clone, Copy, Debug)]
pub struct NewUiAuthSession<'a> {
    /// A random name.
    pub session_id: &'a str,
    /// The time.
    pub created_ts: MillisSinceEpoch,
    /// Who authenticates; `None` for registration.
    pub user_id: Option<&'a UserId>,
    /// What for.
    pub operation: &'a str,
    /// The hash of the request, if it may not change on the way.
    pub request_hash: Option<&'a [u8]>,
}

/// A row of `ui_auth_sessions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UiAuthSession {
    /// When it began.
    pub created_ts: MillisSinceEpoch,
    /// Who authenticates; `None` for registration.
    pub user_id: Option<OwnedUserId>,
    /// What for.
    pub operation: String,
    /// The hash of the request, if it may not change on the way.
    pub request_hash: Option<Vec<u8>>,
    /// The stages that were passed, in order.
    pub completed: Vec<String>,
    /// The token that `m.login.registration_token` was passed with.
    pub registration_token: Option<String>,
    /// Who was registered in the end.
    pub registered_user_id: Option<OwnedUserId>,
}

/// Begins a session.
pub async fn insert_session(db: &impl GenericClient, session: NewUiAuthSession<'_>) -> Result<()> {
    const SQL: &str = "
        INSERT INTO ui_auth_sessions (session_id, created_ts, user_id, operation, request_hash)
        VALUES ($1, $2, $3, $4, $5)";
    let NewUiAuthSession { session_id, created_ts, user_id, operation, request_hash } = session;
    let user_id = user_id.map(UserId::as_str);
    execute(db, SQL, &[&session_id, &created_ts.cast_signed(), &user_id, &operation, &request_hash]).await?;
    Ok(())
}

/// A session by its name.
pub async fn get_session(db: &impl GenericClient, session_id: &str) -> Result<Option<UiAuthSession>> {
    const SQL: &str = "
        SELECT created_ts, user_id, operation, request_hash, completed, registration_token, registered_user_id
          FROM ui_auth_sessions WHERE session_id = $1";
    let Some(row) = query_opt(db, SQL, &[&session_id]).await? else { return Ok(None) };
    let user = |index: usize| -> Result<Option<OwnedUserId>> {
        let text: Option<&str> = row.try_get(index)?;
        let user = text.map(OwnedUserId::try_from).transpose();
        user.map_err(|error| StorageError::Inconsistent(format!("a session's user ID: {error}")))
    };
    Ok(Some(UiAuthSession {
        created_ts: row.try_get::<_, i64>(0)?.cast_unsigned(),
        user_id: user(1)?,
        operation: row.try_get(2)?,
        request_hash: row.try_get(3)?,
        completed: row.try_get(4)?,
        registration_token: row.try_get(5)?,
        registered_user_id: user(6)?,
    }))
}

/// Notes that a stage was passed, once.
pub async fn complete_stage(
    db: &impl GenericClient,
    session_id: &str,
    stage: &str,
    registration_token: Option<&str>,
) -> Result<()> {
    const SQL: &str = "
        UPDATE ui_auth_sessions
           SET completed = completed || $2::text, registration_token = coalesce($3, registration_token)
         WHERE session_id = $1 AND NOT $2 = ANY (completed)";
    execute(db, SQL, &[&session_id, &stage, &registration_token]).await?;
    Ok(())
}

/// Notes who was registered in the session, in the transaction that does it; `false` if somebody was before.
pub async fn set_registered_user(db: &impl GenericClient, session_id: &str, user: &UserId) -> Result<bool> {
    const SQL: &str = "
        UPDATE ui_auth_sessions SET registered_user_id = $2
         WHERE session_id = $1 AND registered_user_id IS NULL";
    Ok(execute(db, SQL, &[&session_id, &user.as_str()]).await? == 1)
}

/// Deletes the sessions that began before `before`, and gives their number.
pub async fn delete_sessions_before(db: &impl GenericClient, before: MillisSinceEpoch) -> Result<u64> {
    const SQL: &str = "DELETE FROM ui_auth_sessions WHERE created_ts < $1";
    execute(db, SQL, &[&before.cast_signed()]).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::tests::{alice, bob, database};

    #[tokio::test]
    async fn a_session_remembers_what_it_is_for_and_how_far_it_is() {
        let (_test, db) = database().await;
        let new = NewUiAuthSession {
            session_id: "s",
            created_ts: 5,
            user_id: Some(alice()),
            operation: "DELETE /devices/A",
            request_hash: Some(b"hash"),
        };
        insert_session(&db, new).await.unwrap();
        for stage in ["m.login.password", "m.login.dummy", "m.login.password"] {
            complete_stage(&db, "s", stage, None).await.unwrap();
        }
        let session = get_session(&db, "s").await.unwrap().unwrap();
        let expected = UiAuthSession {
            created_ts: 5,
            user_id: Some(alice().to_owned()),
            operation: "DELETE /devices/A".to_owned(),
            request_hash: Some(b"hash".to_vec()),
            completed: vec!["m.login.password".to_owned(), "m.login.dummy".to_owned()],
            registration_token: None,
            registered_user_id: None,
        };
        assert_eq!(session, expected);
        assert_eq!(get_session(&db, "other").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_session_registers_one_user_and_is_swept_by_age() {
        let (_test, db) = database().await;
        let new = NewUiAuthSession {
            session_id: "s",
            created_ts: 5,
            user_id: None,
            operation: "register",
            request_hash: None,
        };
        insert_session(&db, new).await.unwrap();
        assert!(set_registered_user(&db, "s", alice()).await.unwrap());
        assert!(!set_registered_user(&db, "s", bob()).await.unwrap());
        let session = get_session(&db, "s").await.unwrap().unwrap();
        assert_eq!(session.registered_user_id.as_deref(), Some(alice()));

        assert_eq!(delete_sessions_before(&db, 5).await.unwrap(), 0);
        assert_eq!(delete_sessions_before(&db, 6).await.unwrap(), 1);
    }
}
