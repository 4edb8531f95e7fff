//! `users`.

use myelin_types::MillisSinceEpoch;
use ruma::{OwnedUserId, UserId};

use super::{TokenHash, user_id};
use crate::{GenericClient, Result, Row, execute, query_one, query_opt};

/// A row of `users`, without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Who it is.
    pub user_id: OwnedUserId,
    /// When the account was made.
    pub created_ts: MillisSinceEpoch,
    /// What kind of account it is, and in what condition.
    pub flags: UserFlags,
    /// `support` or `bot`, for users of a special kind.
    pub user_type: Option<String>,
}

/// The kind and the condition of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserFlags {
    /// Has an account without having registered, with fewer rights.
    pub is_guest: bool,
    /// May use the admin API.
    pub is_admin: bool,
    /// Gone for good.
    pub deactivated: bool,
    /// Can do nothing but log out.
    pub locked: bool,
    /// Can read, but not write.
    pub suspended: bool,
}

impl UserFlags {
    /// From five columns in the order of the fields, the first of them at `first`.
    pub(super) fn from_row(row: &Row, first: usize) -> Result<Self> {
        Ok(Self {
            is_guest: row.try_get(first)?,
            is_admin: row.try_get(first + 1)?,
            deactivated: row.try_get(first + 2)?,
            locked: row.try_get(first + 3)?,
            suspended: row.try_get(first + 4)?,
        })
    }
}

/// A user to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewUser<'a> {
    /// Who it is.
    pub user_id: &'a UserId,
    /// bcrypt; `None`: there is no log-in by password.
    pub password_hash: Option<&'a str>,
    /// The time.
    pub created_ts: MillisSinceEpoch,
    /// The kind and the condition of the account.
    pub flags: UserFlags,
    /// `support` or `bot`, for users of a special kind.
    pub user_type: Option<&'a str>,
    /// The first display name, as JSON.
    pub displayname: Option<&'a str>,
}

/// Adds a user, with a display name; `false` if the name was ever taken.
pub async fn insert_user(db: &impl GenericClient, user: NewUser<'_>) -> Result<bool> {
    const SQL: &str = "
        WITH added AS (
            INSERT INTO users (user_id, password_hash, created_ts, is_guest, is_admin, locked, suspended, user_type)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                ON CONFLICT (user_id) DO NOTHING
            RETURNING user_id),
        named AS (
            INSERT INTO profile_fields (user_id, name, value)
            SELECT user_id, 'displayname', $9 FROM added WHERE $9::text IS NOT NULL
                ON CONFLICT (user_id, name) DO NOTHING)
        SELECT EXISTS (SELECT FROM added)";
    let NewUser { user_id, password_hash, created_ts, flags, user_type, displayname } = user;
    let row = query_one(
        db,
        SQL,
        &[
            &user_id.as_str(),
            &password_hash,
            &created_ts.cast_signed(),
            &flags.is_guest,
            &flags.is_admin,
            &flags.locked,
            &flags.suspended,
            &user_type,
            &displayname,
        ],
    )
    .await?;
    Ok(row.try_get(0)?)
}

/// A user by ID.
pub async fn get_user(db: &impl GenericClient, user: &UserId) -> Result<Option<User>> {
    const SQL: &str = "
        SELECT user_id, created_ts, user_type, is_guest, is_admin, deactivated, locked, suspended
          FROM users WHERE user_id = $1";
    let Some(row) = query_opt(db, SQL, &[&user.as_str()]).await? else { return Ok(None) };
    Ok(Some(User {
        user_id: user_id(&row, 0)?,
        created_ts: row.try_get::<_, i64>(1)?.cast_unsigned(),
        user_type: row.try_get(2)?,
        flags: UserFlags::from_row(&row, 3)?,
    }))
}

/// What log-in by password needs to know.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user's ID in the spelling it was registered with.
    pub user_id: OwnedUserId,
    /// bcrypt; `None`: there is no log-in by password.
    pub password_hash: Option<String>,
    /// The kind and the condition of the account.
    pub flags: UserFlags,
}

/// The credentials of `user` or, where there is no such user, of the one whose ID is the same in lower case.
pub async fn get_credentials(db: &impl GenericClient, user: &UserId) -> Result<Option<Credentials>> {
    const SQL: &str = "
        SELECT user_id, password_hash, is_guest, is_admin, deactivated, locked, suspended
          FROM users WHERE user_id = $1 OR user_id = $2
         ORDER BY user_id = $1 DESC LIMIT 1";
    let lower_case = user.as_str().to_lowercase();
    let Some(row) = query_opt(db, SQL, &[&user.as_str(), &lower_case]).await? else { return Ok(None) };
    Ok(Some(Credentials {
        user_id: user_id(&row, 0)?,
        password_hash: row.try_get(1)?,
        flags: UserFlags::from_row(&row, 2)?,
    }))
}

/// Sets the password of a user who is not deactivated; `false` if there is none.
pub async fn set_password_hash(db: &impl GenericClient, user: &UserId, hash: Option<&str>) -> Result<bool> {
    const SQL: &str = "UPDATE users SET password_hash = $2 WHERE user_id = $1 AND NOT deactivated";
    Ok(execute(db, SQL, &[&user.as_str(), &hash]).await? == 1)
}

/// A condition of an account that an administrator sets and takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restriction {
    /// See [`UserFlags::locked`].
    Locked,
    /// See [`UserFlags::suspended`].
    Suspended,
}

/// Sets or lifts a restriction and gives the access tokens whose cached form is outdated by it; `None` if there is no
/// such user, or they are deactivated.
pub async fn set_restriction(
    db: &impl GenericClient,
    user: &UserId,
    restriction: Restriction,
    value: bool,
) -> Result<Option<Vec<TokenHash>>> {
    const SQL: &str = "
        WITH changed AS (
            UPDATE users SET locked    = CASE WHEN $2 THEN $3 ELSE locked END,
                             suspended = CASE WHEN $2 THEN suspended ELSE $3 END
             WHERE user_id = $1 AND NOT deactivated
            RETURNING user_id)
        SELECT array(SELECT token_hash FROM access_tokens WHERE user_id = $1) FROM changed";
    let is_lock = restriction == Restriction::Locked;
    let row = query_opt(db, SQL, &[&user.as_str(), &is_lock, &value]).await?;
    row.map(|row| TokenHash::list(&row, 0)).transpose()
}

/// Deactivates a user: the password, the addresses and what log-ins are under way are gone. `false` if there is no such user.
/// Devices, tokens and the profile are left to the caller.
pub async fn deactivate_user(db: &impl GenericClient, user: &UserId, erase: bool) -> Result<bool> {
    const SQL: &str = "
        WITH gone AS (
            UPDATE users SET deactivated = true, password_hash = NULL, erased = erased OR $2
             WHERE user_id = $1
            RETURNING user_id),
        addresses AS (DELETE FROM threepids WHERE user_id = $1),
        log_ins AS (DELETE FROM login_tokens WHERE user_id = $1),
        openid AS (DELETE FROM openid_tokens WHERE user_id = $1)
        SELECT EXISTS (SELECT FROM gone)";
    Ok(query_one(db, SQL, &[&user.as_str(), &erase]).await?.try_get(0)?)
}

/// A localpart that was never given out before: a number.
pub async fn generate_localpart(db: &impl GenericClient) -> Result<String> {
    const SQL: &str = "SELECT nextval('generated_localparts')::text";
    Ok(query_one(db, SQL, &[]).await?.try_get(0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{
        profiles, sessions,
        tests::{alice, bob, database, hash},
    };

    fn new_alice() -> NewUser<'static> {
        NewUser {
            user_id: alice(),
            password_hash: Some("secret"),
            created_ts: 7,
            flags: UserFlags::default(),
            user_type: None,
            displayname: Some("\"alice\""),
        }
    }

    #[tokio::test]
    async fn a_name_is_given_out_once_even_after_deactivation() {
        let (_test, db) = database().await;
        assert!(insert_user(&db, new_alice()).await.unwrap());
        assert!(!insert_user(&db, new_alice()).await.unwrap());

        assert!(deactivate_user(&db, alice(), false).await.unwrap());
        assert!(!insert_user(&db, new_alice()).await.unwrap());
        let credentials = get_credentials(&db, alice()).await.unwrap().unwrap();
        assert!(credentials.flags.deactivated && credentials.password_hash.is_none());
        assert!(!set_password_hash(&db, alice(), Some("new")).await.unwrap());
        assert!(!deactivate_user(&db, bob(), false).await.unwrap());
    }

    #[tokio::test]
    async fn a_new_user_has_a_display_name() {
        let (_test, db) = database().await;
        insert_user(&db, new_alice()).await.unwrap();
        let profile = profiles::list_fields(&db, alice()).await.unwrap();
        assert_eq!(profile, [("displayname".to_owned(), "\"alice\"".to_owned())]);
    }

    #[tokio::test]
    async fn credentials_are_found_in_lower_case_unless_the_spelling_is_somebodys() {
        let (_test, db) = database().await;
        insert_user(&db, new_alice()).await.unwrap();
        let shouted = ruma::user_id!("@ALICE:example.org");
        assert_eq!(get_credentials(&db, shouted).await.unwrap().unwrap().user_id, alice());

        insert_user(&db, NewUser { user_id: shouted, ..new_alice() }).await.unwrap();
        assert_eq!(get_credentials(&db, shouted).await.unwrap().unwrap().user_id, shouted);
        assert_eq!(get_credentials(&db, alice()).await.unwrap().unwrap().user_id, alice());
        assert!(get_credentials(&db, bob()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn restrictions_are_independent_and_name_the_tokens_they_touch() {
        let (_test, db) = database().await;
        insert_user(&db, new_alice()).await.unwrap();
        sessions::insert_session(&db, sessions::tests::session(alice(), "PHONE", hash(1))).await.unwrap();
        let touched = set_restriction(&db, alice(), Restriction::Locked, true).await.unwrap();
        assert_eq!(touched, Some(vec![hash(1)]));
        set_restriction(&db, alice(), Restriction::Suspended, true).await.unwrap();
        set_restriction(&db, alice(), Restriction::Locked, false).await.unwrap();
        let user = get_user(&db, alice()).await.unwrap().unwrap();
        assert_eq!((user.flags.locked, user.flags.suspended, user.created_ts), (false, true, 7));
        assert_eq!(set_restriction(&db, bob(), Restriction::Locked, true).await.unwrap(), None);
    }

    #[tokio::test]
    async fn generated_localparts_differ() {
        let (_test, db) = database().await;
        assert_ne!(generate_localpart(&db).await.unwrap(), generate_localpart(&db).await.unwrap());
    }
}
