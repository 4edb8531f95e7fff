//! User-interactive authentication
//! (<https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>): stages that a client passes
//! before a request is granted. Sessions are in the database, so that each request may reach another process.

use std::{sync::atomic::Ordering, time::Duration};

use myelin_storage::{
    Client, StorageError,
    accounts::{
        sessions,
        ui_auth::{self, NewUiAuthSession, UiAuthSession},
    },
};
use myelin_types::random_alphanumeric;
use ruma::{
    OwnedUserId, UserId,
    api::{
        client::uiaa::{AuthData, AuthFlow, AuthType, UiaaInfo, UserIdentifier},
        error::{ErrorKind, StandardErrorBody},
    },
};

use sha2::{Digest as _, Sha256};

use crate::{Accounts, Login, LoginError};

/// How long a client may take, as with Synapse.
pub(crate) const SESSION_LIFETIME: Duration = Duration::from_secs(48 * 3600);

/// A request that needs the user's confirmation.
#[derive(Clone, Copy, Debug)]
pub struct UiAuthRequest<'a> {
    /// Who asks; `None` for registration.
    pub login: Option<&'a Login>,
    /// What for, with the path's arguments: a session for one operation is no good for another.
    pub operation: &'a str,
    /// The hash of the body without `auth` (by [`UiAuthRequest::hash`]), if that may not change on the way either.
    pub request_hash: Option<[u8; 32]>,
    /// The ways to authenticate, each with its stages in order.
    pub flows: &'a [&'a [AuthType]],
    /// Whether it is enough that the user has lately confirmed another request (`ui_auth.session_timeout`).
    pub may_skip: bool,
}

impl UiAuthRequest<'_> {
    /// The hash of a request. Equal requests must be equal texts.
    pub fn hash(body: &str) -> [u8; 32] {
        Sha256::digest(body).into()
    }
}

/// Where a client stands.
#[derive(Debug)]
pub enum UiAuth {
    /// All stages of a flow are passed: the request is granted.
    Passed(UiAuthPassed),
    /// What is to be done, and what went wrong with the stage just tried.
    Incomplete(Box<UiaaInfo>),
}

/// What registration needs to know of the session that was passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UiAuthPassed {
    /// The session; `None` if all was done in one request, or nothing had to be.
    pub session_id: Option<String>,
    /// The token that `m.login.registration_token` was passed with.
    pub registration_token: Option<String>,
    /// Who was registered by this request before, its answer having been lost.
    pub registered_user_id: Option<OwnedUserId>,
}

/// Why a request for authentication makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum UiAuthError {
    /// There is no such session, or it is too old.
    #[error("unknown session")]
    UnknownSession,
    /// The session is for another request.
    #[error("the requested operation has changed during the session")]
    OperationChanged,
    /// Somebody else than the user who is logged in tries to confirm.
    #[error("only the user who is logged in can confirm this")]
    OtherUser,
    /// Too many passwords are being hashed: try again later.
    #[error("too many passwords are being hashed")]
    Overloaded,
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A session as far as it is known before this request.
#[derive(Default)]
struct Progress {
    /// `None`: not in the database (yet).
    session_id: Option<String>,
    completed: Vec<AuthType>,
    registration_token: Option<String>,
    registered_user_id: Option<OwnedUserId>,
}

impl Progress {
    fn is_complete(&self, flows: &[&[AuthType]]) -> bool {
        flows.iter().any(|flow| self.completed.starts_with(flow))
    }

    /// Whether `stage` comes next in a flow of which nothing else was left out.
    fn is_next(&self, flows: &[&[AuthType]], stage: &AuthType) -> bool {
        flows
            .iter()
            .any(|flow| flow.starts_with(&self.completed) && flow.get(self.completed.len()) == Some(stage))
    }

    fn passed(self) -> UiAuth {
        UiAuth::Passed(UiAuthPassed {
            session_id: self.session_id,
            registration_token: self.registration_token,
            registered_user_id: self.registered_user_id,
        })
    }
}

/// What came of a stage.
enum Stage {
    /// With the registration token it was passed with.
    Passed(Option<String>),
    Failed(&'static str),
}

impl Accounts {
    /// Lets a client take the next step.
    ///
    /// # Errors
    /// See [`UiAuthError`]. That a stage failed is no error but part of [`UiAuth::Incomplete`].
    pub async fn ui_auth(
        &self,
        request: UiAuthRequest<'_>,
        auth: Option<&AuthData>,
    ) -> Result<UiAuth, UiAuthError> {
        if request.may_skip && self.has_confirmed_lately(request.login) {
            return Ok(UiAuth::Passed(UiAuthPassed::default()));
        }
        let mut progress = match auth.and_then(AuthData::session) {
            Some(session_id) => self.load_progress(&request, session_id).await?,
            None => Progress::default(),
        };
        let stage = auth.and_then(|auth| Some((auth, auth.auth_type()?)));
        let mut failure = None;
        if let Some((auth, auth_type)) = stage
            && !progress.completed.contains(&auth_type)
        {
            let outcome = match progress.is_next(request.flows, &auth_type) {
                true => self.try_stage(request.login, auth).await?,
                false => Stage::Failed("This stage is not the next one of any flow"),
            };
            match outcome {
                Stage::Passed(token) => {
                    progress.completed.push(auth_type);
                    progress.registration_token = token.or(progress.registration_token);
                }
                Stage::Failed(message) => failure = Some(message),
            }
        }

        let is_complete = progress.is_complete(request.flows);
        // What is done within one request leaves no session behind.
        if !is_complete || progress.session_id.is_some() {
            self.save_progress(&request, &mut progress).await?;
        }
        if is_complete {
            self.note_confirmation(request.login).await?;
            return Ok(progress.passed());
        }
        let mut info = UiaaInfo::new(request.flows.iter().map(|flow| AuthFlow::new(flow.to_vec())).collect());
        info.completed = progress.completed;
        info.session = progress.session_id;
        info.params = serde_json::value::to_raw_value(&serde_json::json!({})).ok();
        info.auth_error =
            failure.map(|message| Box::new(StandardErrorBody::new(ErrorKind::Forbidden, message.to_owned())));
        Ok(UiAuth::Incomplete(Box::new(info)))
    }

    fn has_confirmed_lately(&self, login: Option<&Login>) -> bool {
        login.is_some_and(|login| login.validated_before(self.now()) < self.0.config.ui_auth_session_timeout)
    }

    async fn note_confirmation(&self, login: Option<&Login>) -> Result<(), StorageError> {
        let Some(login) = login.filter(|_| !self.0.config.ui_auth_session_timeout.is_zero()) else {
            return Ok(());
        };
        let now = self.now();
        sessions::set_validated(&self.db().await?, login.token, now).await?;
        login.validated_ts.store(now, Ordering::Relaxed);
        Ok(())
    }

    async fn load_progress(
        &self,
        request: &UiAuthRequest<'_>,
        session_id: &str,
    ) -> Result<Progress, UiAuthError> {
        let session = ui_auth::get_session(&self.db().await?, session_id).await?;
        let session = session.ok_or(UiAuthError::UnknownSession)?;
        let UiAuthSession {
            created_ts,
            user_id,
            operation,
            request_hash,
            completed,
            registration_token,
            registered_user_id,
        } = session;
        if self.now().saturating_sub(created_ts) >= SESSION_LIFETIME.as_millis() as u64 {
            return Err(UiAuthError::UnknownSession);
        }
        let asks: Option<&UserId> = request.login.map(|login| login.user_id.as_ref());
        let is_same = user_id.as_deref() == asks
            && operation == request.operation
            && request_hash.as_deref() == request.request_hash.as_ref().map(|hash| hash.as_slice());
        if !is_same {
            return Err(UiAuthError::OperationChanged);
        }
        Ok(Progress {
            session_id: Some(session_id.to_owned()),
            completed: completed.into_iter().map(AuthType::from).collect(),
            registration_token,
            registered_user_id,
        })
    }

    async fn save_progress(
        &self,
        request: &UiAuthRequest<'_>,
        progress: &mut Progress,
    ) -> Result<(), StorageError> {
        let db: Client = self.db().await?;
        let session_id = match &progress.session_id {
            Some(session_id) => session_id,
            None => {
                let session_id = random_alphanumeric(24);
                let session = NewUiAuthSession {
                    session_id: &session_id,
                    created_ts: self.now(),
                    user_id: request.login.map(|login| login.user_id.as_ref()),
                    operation: request.operation,
                    request_hash: request.request_hash.as_ref().map(|hash| hash.as_slice()),
                };
                ui_auth::insert_session(&db, session).await?;
                progress.session_id.insert(session_id)
            }
        };
        if let Some(stage) = progress.completed.last() {
            let token = progress.registration_token.as_deref();
            ui_auth::complete_stage(&db, session_id, stage.as_str(), token).await?;
        }
        Ok(())
    }

    async fn try_stage(&self, login: Option<&Login>, auth: &AuthData) -> Result<Stage, UiAuthError> {
        match auth {
            AuthData::Dummy(_) => Ok(Stage::Passed(None)),
            AuthData::Password(data) => {
                let Some(login) = login else { return Ok(Stage::Failed("There is no password yet")) };
                let claimed = match &data.identifier {
                    UserIdentifier::Matrix(identifier) => self.parse_user(&identifier.user),
                    _ => None,
                };
                match claimed {
                    Some(user) if user.as_str().eq_ignore_ascii_case(login.user_id.as_str()) => {}
                    _ => return Err(UiAuthError::OtherUser),
                }
                match self.check_password(&login.user_id, &data.password).await {
                    Ok(_) => Ok(Stage::Passed(None)),
                    Err(LoginError::Invalid | LoginError::Deactivated | LoginError::Locked) => {
                        Ok(Stage::Failed("Invalid password"))
                    }
                    Err(LoginError::Overloaded) => Err(UiAuthError::Overloaded),
                    Err(LoginError::Storage(error)) => Err(error.into()),
                }
            }
            AuthData::RegistrationToken(data) => {
                match self.is_registration_token_usable(&data.token).await? {
                    true => Ok(Stage::Passed(Some(data.token.clone()))),
                    false => Ok(Stage::Failed("Invalid registration token")),
                }
            }
            // No flow of ours has other stages.
            _ => Ok(Stage::Failed("This stage is not supported")),
        }
    }

    /// A user as people type them: the whole ID, or the localpart of a user of this server.
    pub fn parse_user(&self, text: &str) -> Option<OwnedUserId> {
        match text.starts_with('@') {
            true => text.try_into().ok(),
            false => UserId::parse_with_server_name(text, self.server_name()).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ruma::api::client::uiaa;
    use serde_json::json;

    use super::*;
    use crate::{
        NewAccount,
        testing::{Fixture, PASSWORD, alice},
    };

    const PASSWORD_FLOW: &[&[AuthType]] = &[&[AuthType::Password]];
    const TOKEN_FLOW: &[&[AuthType]] = &[&[AuthType::RegistrationToken, AuthType::Dummy]];

    fn auth(json: serde_json::Value) -> AuthData {
        serde_json::from_value(json).unwrap()
    }

    fn password(password: &str, session: Option<&str>) -> AuthData {
        let mut data = uiaa::Password::new(alice().to_owned().into(), password.to_owned());
        data.session = session.map(str::to_owned);
        AuthData::Password(data)
    }

    fn request<'a>(login: Option<&'a Login>, flows: &'a [&'a [AuthType]]) -> UiAuthRequest<'a> {
        UiAuthRequest { login, operation: "do it", request_hash: Some([1; 32]), flows, may_skip: true }
    }

    #[track_caller]
    fn incomplete(outcome: UiAuth) -> UiaaInfo {
        match outcome {
            UiAuth::Incomplete(info) => *info,
            UiAuth::Passed(_) => panic!("it was passed"),
        }
    }

    async fn login(fixture: &Fixture) -> Arc<Login> {
        let token = fixture.log_in("PHONE").await.access_token;
        fixture.accounts.authenticate(&token, crate::Client::default()).await.unwrap()
    }

    #[tokio::test]
    async fn a_password_passes_with_and_without_a_session() {
        let fixture = Fixture::new().await;
        let login = login(&fixture).await;
        let accounts = &fixture.accounts;
        let request = request(Some(&login), PASSWORD_FLOW);

        let info = incomplete(accounts.ui_auth(request, None).await.unwrap());
        assert_eq!(info.flows[0].stages, [AuthType::Password]);
        assert!(info.auth_error.is_none() && info.completed.is_empty());
        let session = info.session.unwrap();

        let info =
            incomplete(accounts.ui_auth(request, Some(&password("wrong", Some(&session)))).await.unwrap());
        assert_eq!(info.session.as_deref(), Some(session.as_str()));
        assert!(info.auth_error.is_some());
        let outcome = accounts.ui_auth(request, Some(&password(PASSWORD, Some(&session)))).await.unwrap();
        assert!(matches!(outcome, UiAuth::Passed(_)));
        let repeated = accounts.ui_auth(request, Some(&auth(json!({ "session": session })))).await.unwrap();
        assert!(matches!(repeated, UiAuth::Passed(_)), "a completed stage is not tried again");

        let outcome = accounts.ui_auth(request, Some(&password(PASSWORD, None))).await.unwrap();
        assert!(matches!(outcome, UiAuth::Passed(passed) if passed == UiAuthPassed::default()));
    }

    #[tokio::test]
    async fn a_session_is_for_one_request_of_one_user() {
        let fixture = Fixture::new().await;
        let login = login(&fixture).await;
        let accounts = &fixture.accounts;
        let first = request(Some(&login), PASSWORD_FLOW);
        let session = incomplete(accounts.ui_auth(first, None).await.unwrap()).session.unwrap();
        let password = password(PASSWORD, Some(&session));
        for other in [
            UiAuthRequest { operation: "do that", ..first },
            UiAuthRequest { request_hash: Some([2; 32]), ..first },
            UiAuthRequest { login: None, ..first },
        ] {
            let error = accounts.ui_auth(other, Some(&password)).await.unwrap_err();
            assert!(matches!(error, UiAuthError::OperationChanged), "{error}");
        }
        fixture.hands.advance(SESSION_LIFETIME);
        let error = accounts.ui_auth(first, Some(&password)).await.unwrap_err();
        assert!(matches!(error, UiAuthError::UnknownSession), "{error}");
    }

    #[tokio::test]
    async fn nobody_confirms_for_another() {
        let fixture = Fixture::new().await;
        let account = NewAccount { localpart: Some("bob"), password: Some("bob's"), ..NewAccount::default() };
        let bob = fixture.accounts.register(account).await.unwrap().user_id;
        let login = login(&fixture).await;
        let data = AuthData::Password(uiaa::Password::new(bob.into(), "bob's".to_owned()));
        let outcome = fixture.accounts.ui_auth(request(Some(&login), PASSWORD_FLOW), Some(&data)).await;
        assert!(matches!(outcome, Err(UiAuthError::OtherUser)));
    }

    #[tokio::test]
    async fn stages_are_passed_in_order_and_a_token_is_remembered() {
        let fixture = Fixture::new().await;
        let accounts = &fixture.accounts;
        let db = fixture.database.get().await.unwrap();
        myelin_storage::accounts::registration::insert_token(&db, "token", Some(1), None).await.unwrap();
        let request = UiAuthRequest { request_hash: None, ..request(None, TOKEN_FLOW) };

        let info = incomplete(
            accounts.ui_auth(request, Some(&auth(json!({ "type": "m.login.dummy" })))).await.unwrap(),
        );
        assert!(info.auth_error.is_some() && info.completed.is_empty(), "dummy comes second");
        let session = info.session.unwrap();
        let token = |token: &str| {
            auth(json!({ "type": "m.login.registration_token", "token": token, "session": session }))
        };
        let info = incomplete(accounts.ui_auth(request, Some(&token("wrong"))).await.unwrap());
        assert!(info.auth_error.is_some());
        let info = incomplete(accounts.ui_auth(request, Some(&token("token"))).await.unwrap());
        assert_eq!(info.completed, [AuthType::RegistrationToken]);
        assert!(!accounts.is_registration_token_usable("token").await.unwrap(), "its one use is taken");

        let dummy = auth(json!({ "type": "m.login.dummy", "session": session }));
        let UiAuth::Passed(passed) = accounts.ui_auth(request, Some(&dummy)).await.unwrap() else { panic!() };
        assert_eq!(passed.registration_token.as_deref(), Some("token"));
        let account = NewAccount {
            localpart: Some("carol"),
            registration_token: passed.registration_token.as_deref(),
            ui_auth_session: passed.session_id.as_deref(),
            ..NewAccount::default()
        };
        let carol = accounts.register(account).await.unwrap().user_id;

        let UiAuth::Passed(again) = accounts.ui_auth(request, Some(&dummy)).await.unwrap() else { panic!() };
        assert_eq!(again.registered_user_id, Some(carol), "a repeated request is told who was registered");
    }

    #[tokio::test]
    async fn a_confirmation_holds_for_as_long_as_configured() {
        let fixture = Fixture::with(|config| config.ui_auth_session_timeout = Duration::from_secs(60)).await;
        let login = login(&fixture).await;
        let accounts = &fixture.accounts;
        let request = request(Some(&login), PASSWORD_FLOW);
        let passes =
            async |request| matches!(accounts.ui_auth(request, None).await.unwrap(), UiAuth::Passed(_));
        assert!(passes(request).await, "who has just logged in has proven enough");
        assert!(!passes(UiAuthRequest { may_skip: false, ..request }).await);
        fixture.hands.advance(Duration::from_secs(60));
        assert!(!passes(request).await);
        accounts.ui_auth(request, Some(&password(PASSWORD, None))).await.unwrap();
        assert!(passes(request).await);
    }
}
