//! What a request can fail with, and how clients see it.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode, header};
use ruma::api::{
    client::uiaa::{UiaaInfo, UiaaResponse},
    error::{
        DeserializationError, Error as MatrixError, ErrorBody, ErrorKind, FromHttpRequestError,
        HeaderDeserializationError, IntoHttpError, LimitExceededErrorData, RetryAfter as MatrixRetryAfter,
        StandardErrorBody, UnknownTokenErrorData,
    },
};
use serde::Serialize;
use serde_json::{Map as JsonMap, Value as JsonValue};

use crate::response::RawResponse;

/// The standard error response: a status, an `errcode`, a sentence, and the fields that some errcodes have.
///
/// Whatever stands in it is sent to the client. For what only our own log may know there is
/// [`ApiError::internal`]. See <https://spec.matrix.org/v1.19/client-server-api/#standard-error-response>.
#[derive(Debug)]
pub struct ApiError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    body: Body,
    fields: JsonMap<String, JsonValue>,
    headers: Vec<(HeaderName, HeaderValue)>,
    elsewhere: Option<Option<u8>>,
}

#[derive(Debug)]
enum Body {
    Standard { kind: ErrorKind, message: Cow<'static, str> },
    Uiaa(UiaaInfo),
}

impl ApiError {
    /// An error with the status that the specification usually pairs with this errcode, 400 where it names none.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let status = usual_status(&kind);
        Self::with_body(status, Body::Standard { kind, message: message.into() })
    }

    fn with_body(status: StatusCode, body: Body) -> Self {
        Self(Box::new(Inner { status, body, fields: JsonMap::new(), headers: Vec::new(), elsewhere: None }))
    }

    /// The same error under another HTTP status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// Adds a field to the body. A value that is not JSON (a map with numbers as keys, say) is left out.
    #[must_use]
    pub fn with_field(mut self, name: &str, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.0.fields.insert(name.to_owned(), value);
        }
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Something of ours failed: the cause goes into the log, here and only here, and the client is told
    /// 500 `M_UNKNOWN` "Internal server error".
    pub fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let cause = cause.into();
        tracing::error!(error = %Chain(cause.as_ref()), "request failed");
        Self::internal_server_error()
    }

    /// The answer of [`ApiError::internal`], for a cause that has been logged already.
    pub(crate) fn internal_server_error() -> Self {
        Self::new(ErrorKind::Unknown, "Internal server error").with_status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// We can't do this at the moment and the client should come back: 503 with a `Retry-After` header.
    pub fn unavailable(message: impl Into<Cow<'static, str>>, retry_after: Duration) -> Self {
        Self::new(ErrorKind::Unknown, message)
            .with_status(StatusCode::SERVICE_UNAVAILABLE)
            .with_header(header::RETRY_AFTER, HeaderValue::from(whole_seconds(retry_after)))
    }

    /// Another process has to serve this: the one that has that part of the duty, or any that has one. What stands
    /// [around](crate::Around) the handlers sends the request there; a client that sees this comes back a little later.
    pub fn elsewhere(part: Option<u8>) -> Self {
        let mut error =
            Self::unavailable("Another process of this server has to do that", Duration::from_secs(1));
        error.0.elsewhere = Some(part);
        error
    }

    /// Whether another process has to serve the request, and which part of the duty it must have.
    pub fn is_elsewhere(&self) -> Option<Option<u8>> {
        self.0.elsewhere
    }

    /// 429 `M_LIMIT_EXCEEDED` with the `Retry-After` header and the older `retry_after_ms`
    /// (<https://spec.matrix.org/v1.19/client-server-api/#rate-limiting>).
    pub fn limit_exceeded(retry_after: Duration) -> Self {
        let mut data = LimitExceededErrorData::default();
        data.retry_after = Some(MatrixRetryAfter::Delay(retry_after));
        Self::new(ErrorKind::LimitExceeded(data), "Too many requests")
            .with_header(header::RETRY_AFTER, HeaderValue::from(whole_seconds(retry_after)))
    }

    /// The next step of user-interactive authentication: 401 with the flows, the session and, where there is one,
    /// the error of the stage that failed
    /// (<https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>).
    pub fn uiaa(info: UiaaInfo) -> Self {
        Self::with_body(StatusCode::UNAUTHORIZED, Body::Uiaa(info))
    }

    /// 403 `M_FORBIDDEN`.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }

    /// 404 `M_NOT_FOUND`.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// 400 `M_INVALID_PARAM`.
    pub fn invalid_param(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidParam, message)
    }

    /// 400 `M_BAD_JSON`.
    pub fn bad_json(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::BadJson, message)
    }

    /// 401 `M_MISSING_TOKEN`.
    pub fn missing_token() -> Self {
        Self::new(ErrorKind::MissingToken, "Missing access token")
    }

    /// 401 `M_UNKNOWN_TOKEN`. After a soft log-out the client keeps its keys and logs in again
    /// (<https://spec.matrix.org/v1.19/client-server-api/#soft-logout>).
    pub fn unknown_token(message: impl Into<Cow<'static, str>>, soft_logout: bool) -> Self {
        let mut data = UnknownTokenErrorData::new();
        data.soft_logout = soft_logout;
        Self::new(ErrorKind::UnknownToken(data), message)
    }

    /// 404 `M_UNRECOGNIZED`: nothing of ours has this path.
    pub fn unrecognized() -> Self {
        Self::new(ErrorKind::Unrecognized, "Unrecognized request")
    }

    /// 405 `M_UNRECOGNIZED`: the path is known, the method is not.
    pub(crate) fn wrong_method() -> Self {
        Self::new(ErrorKind::Unrecognized, "Unrecognized request: wrong method")
            .with_status(StatusCode::METHOD_NOT_ALLOWED)
    }

    /// 413 `M_TOO_LARGE`.
    pub fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::TooLarge, message)
    }

    /// Wraps what `serde_json` found wrong with a request's body: `M_NOT_JSON` for what is no JSON at all,
    /// `M_MISSING_PARAM` and `M_BAD_JSON` for JSON of the wrong shape.
    pub fn from_json(error: &serde_json::Error) -> Self {
        use serde_json::error::Category;

        match error.classify() {
            Category::Syntax | Category::Eof | Category::Io => {
                Self::new(ErrorKind::NotJson, format!("The request's body is not valid JSON: {error}"))
            }
            Category::Data => Self::from_shape(&error.to_string(), ErrorKind::BadJson),
        }
    }

    fn from_shape(error: &str, otherwise: ErrorKind) -> Self {
        if error.starts_with("missing field") {
            Self::new(ErrorKind::MissingParam, error.to_owned())
        } else {
            Self::new(otherwise, error.to_owned())
        }
    }

    /// The HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The kind of error, unless this is a step of user-interactive authentication.
    pub fn kind(&self) -> Option<&ErrorKind> {
        match &self.0.body {
            Body::Standard { kind, .. } => Some(kind),
            Body::Uiaa(_) => None,
        }
    }

    /// The `errcode` as it is written, unless this is a step of user-interactive authentication.
    pub fn errcode(&self) -> Option<String> {
        self.kind().map(|kind| kind.errcode().to_string())
    }

    /// The sentence for humans.
    pub fn message(&self) -> &str {
        match &self.0.body {
            Body::Standard { message, .. } => message,
            Body::Uiaa(_) => "User-interactive authentication is required",
        }
    }

    /// The answer as it goes over the wire.
    pub fn into_response(self) -> RawResponse {
        let Inner { status, body, fields, headers, elsewhere: _ } = *self.0;
        let json = match body {
            Body::Standard { kind, message } => {
                serde_json::to_value(StandardErrorBody::new(kind, message.into_owned()))
            }
            Body::Uiaa(info) => serde_json::to_value(info),
        };
        let mut json = match json {
            Ok(JsonValue::Object(object)) => object,
            // ruma's own types are objects; were they not, the client would still get an errcode.
            _ => JsonMap::from_iter([
                ("errcode".to_owned(), "M_UNKNOWN".into()),
                ("error".to_owned(), "".into()),
            ]),
        };
        json.extend(fields);

        let mut response = RawResponse::json(JsonValue::Object(json).to_string()).with_status(status);
        for (name, value) in headers {
            response = response.with_header(name, value);
        }
        response
    }
}

/// Most errcodes come with one status. See <https://spec.matrix.org/v1.19/client-server-api/#common-error-codes>
/// and the answers listed at the endpoints.
fn usual_status(kind: &ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::MissingToken
        | ErrorKind::UnknownToken(_)
        | ErrorKind::Unauthorized
        | ErrorKind::UserLocked => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden
        | ErrorKind::GuestAccessForbidden
        | ErrorKind::UserSuspended
        | ErrorKind::UserDeactivated
        | ErrorKind::InviteBlocked
        | ErrorKind::CannotLeaveServerNoticeRoom
        | ErrorKind::ResourceLimitExceeded(_)
        | ErrorKind::ThreepidDenied
        | ErrorKind::WrongRoomKeysVersion(_) => StatusCode::FORBIDDEN,
        ErrorKind::NotFound | ErrorKind::Unrecognized => StatusCode::NOT_FOUND,
        ErrorKind::CannotOverwriteMedia => StatusCode::CONFLICT,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::LimitExceeded(_) => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::ConnectionFailed | ErrorKind::BadStatus(_) => StatusCode::BAD_GATEWAY,
        ErrorKind::ConnectionTimeout | ErrorKind::NotYetUploaded => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// The header has whole seconds; rounding down would invite the client too early.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.0.status.as_u16();
        match self.kind() {
            Some(kind) => write!(f, "{status} {}: {}", kind.errcode(), self.message()),
            None => write!(f, "{status}: {}", self.message()),
        }
    }
}

impl StdError for ApiError {}

/// An error with everything that caused it, in one line.
struct Chain<'a>(&'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = self.0.to_string();
        f.write_str(&written)?;
        let mut next = self.0.source();
        // Bounded, for errors that name themselves as their source.
        for _ in 0..16 {
            let Some(error) = next else { break };
            let text = error.to_string();
            // Many libraries repeat the source in their own text.
            if !written.contains(&text) {
                write!(f, ": {text}")?;
                written = text;
            }
            next = error.source();
        }
        Ok(())
    }
}

impl From<MatrixError> for ApiError {
    fn from(error: MatrixError) -> Self {
        let status = error.status_code;
        match error.body {
            ErrorBody::Standard(body) => Self::new(body.kind, body.message).with_status(status),
            // No code of ours builds these; they are what another server may answer with.
            ErrorBody::Json(_) | ErrorBody::NotJson { .. } => Self::internal(error),
        }
    }
}

impl From<UiaaResponse> for ApiError {
    fn from(response: UiaaResponse) -> Self {
        match response {
            UiaaResponse::AuthResponse(info) => Self::uiaa(info),
            UiaaResponse::MatrixError(error) => error.into(),
        }
    }
}

impl From<IntoHttpError> for ApiError {
    fn from(error: IntoHttpError) -> Self {
        Self::internal(error)
    }
}

impl From<FromHttpRequestError> for ApiError {
    fn from(error: FromHttpRequestError) -> Self {
        match error {
            FromHttpRequestError::Deserialization(error) => error.into(),
            FromHttpRequestError::MethodMismatch { .. } => Self::wrong_method(),
            // Non-exhaustive: whatever is added is a fault of the request.
            error => Self::bad_json(error.to_string()),
        }
    }
}

impl From<DeserializationError> for ApiError {
    fn from(error: DeserializationError) -> Self {
        match &error {
            DeserializationError::Json(error) => Self::from_json(error),
            // ruma reports path arguments as query errors too.
            DeserializationError::Query(error) => {
                Self::from_shape(&error.to_string(), ErrorKind::InvalidParam)
            }
            DeserializationError::Header(HeaderDeserializationError::MissingHeader(name)) => {
                Self::new(ErrorKind::MissingParam, format!("Missing header `{name}`"))
            }
            DeserializationError::Ident(_)
            | DeserializationError::Utf8(_)
            | DeserializationError::Header(_) => Self::invalid_param(error.to_string()),
            _ => Self::bad_json(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::api::client::uiaa::{AuthFlow, AuthType};
    use serde_json::json;

    use super::*;

    fn check(error: ApiError, status: u16, body: JsonValue) {
        let response = error.into_response();
        assert_eq!(response.status().as_u16(), status);
        let bytes = response.bytes().expect("errors are not streamed");
        assert_eq!(serde_json::from_slice::<JsonValue>(bytes).unwrap(), body);
    }

    #[test]
    fn errors_have_the_status_and_the_fields_of_their_errcode() {
        check(
            ApiError::forbidden("You are banned from this room"),
            403,
            json!({ "errcode": "M_FORBIDDEN", "error": "You are banned from this room" }),
        );
        check(
            ApiError::unknown_token("Log in again", true),
            401,
            json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "Log in again", "soft_logout": true }),
        );
        check(
            ApiError::limit_exceeded(Duration::from_millis(1500)),
            429,
            json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "Too many requests", "retry_after_ms": 1500 }),
        );
        check(
            ApiError::new(ErrorKind::BadState, "No").with_status(StatusCode::CONFLICT).with_field("n", 3),
            409,
            json!({ "errcode": "M_BAD_STATE", "error": "No", "n": 3 }),
        );
    }

    #[test]
    fn a_step_of_user_interactive_authentication_is_a_401_without_an_errcode() {
        let mut info = UiaaInfo::new(vec![AuthFlow::new(vec![AuthType::Dummy])]);
        info.session = Some("xyz".to_owned());
        check(
            ApiError::uiaa(info),
            401,
            json!({ "flows": [{ "stages": ["m.login.dummy"] }], "session": "xyz" }),
        );
    }

    #[test]
    fn an_internal_cause_is_never_told_to_the_client() {
        check(
            ApiError::internal("password of the database is hunter2"),
            500,
            json!({ "errcode": "M_UNKNOWN", "error": "Internal server error" }),
        );
    }

    #[test]
    fn a_client_is_never_invited_back_too_early() {
        let response = ApiError::limit_exceeded(Duration::from_millis(1001)).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }

    #[test]
    fn a_chain_of_causes_is_one_line_without_repetitions() {
        #[derive(Debug, thiserror::Error)]
        #[error("reading the room")]
        struct Outer(#[source] std::io::Error);

        let error = Outer(std::io::Error::other("disk on fire"));
        assert_eq!(Chain(&error).to_string(), "reading the room: disk on fire");
    }
}
