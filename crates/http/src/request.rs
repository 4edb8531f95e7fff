//! Requests, as handlers and authentication see them.

use std::{
    borrow::Cow,
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use percent_encoding::percent_decode_str;
use ruma::api::error::ErrorKind;
use serde::de::DeserializeOwned;

use crate::{drain::Draining, error::ApiError, router::Route};

/// A request's name, which whoever repeats it says again, so that what it makes is made once. Each user has names of their own: nobody
/// comes to what is another's by saying theirs.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-myelin-request-id");

/// Everything about a request but its meaning. Cheap to clone.
#[derive(Clone)]
pub struct RequestHead(Arc<Inner>);

#[derive(Clone)]
pub(crate) struct Inner {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub remote_addr: Option<IpAddr>,
    pub arrived: Instant,
    pub endpoint: Arc<str>,
    pub draining: Draining,
    pub any_body: bool,
}

impl RequestHead {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// For requests that did not come through a listener.
    pub(crate) fn of(
        request: http::Request<impl Into<Bytes>>,
        route: &Route,
        remote_addr: Option<IpAddr>,
        draining: Draining,
    ) -> Self {
        let (parts, body) = request.into_parts();
        Self::new(Inner {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body: body.into(),
            remote_addr,
            arrived: Instant::now(),
            endpoint: route.endpoint.name().clone(),
            draining,
            any_body: route.any_body,
        })
    }

    /// The method; `HEAD` requests reach the handlers of `GET`.
    pub fn method(&self) -> &Method {
        &self.0.method
    }

    /// The path as it was sent, percent-encoding and all.
    pub fn path(&self) -> &str {
        self.0.uri.path()
    }

    /// Path and query as they were sent: what a signature of the federation API covers.
    pub fn uri(&self) -> &Uri {
        &self.0.uri
    }

    /// What stands behind the `?`, as it was sent.
    pub fn query(&self) -> Option<&str> {
        self.0.uri.query()
    }

    /// The first value of a query parameter, decoded.
    fn query_param(&self, name: &str) -> Option<String> {
        query_param(self.query()?, name)
    }

    /// All headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// A header's text, if it is there and is text.
    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.0.headers.get(name)?.to_str().ok()
    }

    /// The same request with a header set.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        Arc::make_mut(&mut self.0).headers.insert(name, value);
        self
    }

    /// The `User-Agent`.
    pub fn user_agent(&self) -> Option<&str> {
        self.header(header::USER_AGENT)
    }

    /// The whole body: some callers are known by a signature over it.
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// Who is at the other end: the peer of the connection or, on a listener with `x_forwarded`, the first address
    /// of `X-Forwarded-For`. Unix sockets without that header have none.
    pub fn remote_addr(&self) -> Option<IpAddr> {
        self.0.remote_addr
    }

    /// When the request's head was there.
    pub fn arrived(&self) -> Instant {
        self.0.arrived
    }

    /// How long ago that was.
    pub fn age(&self) -> Duration {
        self.0.arrived.elapsed()
    }

    /// The name of the endpoint in metrics and logs.
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// Tells when this process is about to stop, so that a long poll can answer early with what it has.
    pub fn draining(&self) -> &Draining {
        &self.0.draining
    }

    /// The access token, from the `Authorization: Bearer` header or, as older clients send it, the query.
    ///
    /// See <https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens>.
    pub fn access_token(&self) -> Option<Cow<'_, str>> {
        if let Some(value) = self.0.headers.get(header::AUTHORIZATION) {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            let token = token.trim();
            return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
                .then_some(Cow::Borrowed(token));
        }
        self.query_param("access_token").filter(|token| !token.is_empty()).map(Cow::Owned)
    }

    /// Whether the body has to be a JSON object.
    pub(crate) fn must_be_json(&self) -> bool {
        !self.0.any_body && !matches!(self.0.method, Method::GET | Method::HEAD)
    }

    /// The parts that ruma's conversion takes by value.
    pub(crate) fn to_http_request(&self) -> http::Request<&[u8]> {
        // Most of ruma's types read an empty body as an empty object, but not all: matrix-nio joins without any.
        let body = if self.0.body.is_empty() && self.must_be_json() { &b"{}"[..] } else { &self.0.body[..] };
        let mut request = http::Request::new(body);
        *request.method_mut() = self.0.method.clone();
        *request.uri_mut() = self.0.uri.clone();
        *request.headers_mut() = self.0.headers.clone();
        request
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers and query may hold the access token.
        f.debug_struct("RequestHead")
            .field("method", &self.0.method)
            .field("endpoint", &self.0.endpoint)
            .field("remote_addr", &self.0.remote_addr)
            .finish_non_exhaustive()
    }
}

/// A request for which ruma has no type.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// Method, path, query, headers and body.
    pub head: RequestHead,
    /// The path's parameters, decoded, in the order of the path.
    pub params: Vec<(Arc<str>, String)>,
}

impl RawRequest {
    /// The parameter `{name}` of the path. Empty if the path has none of this name.
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| **key == *name).map_or("", |(_, value)| value)
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        self.head.body()
    }

    /// The body as a JSON object; the error has the errcode that the specification wants. An empty body is read as
    /// `{}`.
    ///
    /// # Errors
    /// 400 `M_NOT_JSON` or `M_BAD_JSON`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        check_is_object(self.body())?;
        let body: &[u8] = if self.body().is_empty() { b"{}" } else { self.body() };
        serde_json::from_slice(body).map_err(|error| ApiError::from_json(&error))
    }
}

/// Bodies are JSON objects (<https://spec.matrix.org/v1.19/client-server-api/#api-standards>), but serde takes an
/// array for a struct without a word, and what ruma passes on unread may be anything. No body at all is as good as
/// an empty object: older clients send none where the specification later came to want one.
///
/// What nothing here reads has to be UTF-8 as well, of which serde does not make sure where it skips.
pub(crate) fn check_is_object(body: &[u8]) -> Result<(), ApiError> {
    if std::str::from_utf8(body).is_err() {
        return Err(ApiError::new(
            ErrorKind::NotJson,
            "The request's body is not valid JSON: it is not UTF-8",
        ));
    }
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None | Some(b'{') => Ok(()),
        Some(_) => match parse_ignoring(body) {
            Ok(()) => Err(ApiError::bad_json("The request's body must be a JSON object")),
            Err(error) => Err(ApiError::from_json(&error)),
        },
    }
}

/// Whether a body is JSON at all.
pub(crate) fn is_json(body: &[u8]) -> bool {
    parse_ignoring(body).is_ok()
}

fn parse_ignoring(body: &[u8]) -> serde_json::Result<()> {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).map(|_| ())
}

fn query_param(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| form_decode(value))
    })
}

/// `+` is a space in queries, and only there.
fn form_decode(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A request without a body, for tests.
    pub(crate) fn head(method: Method, uri: &str, headers: &[(&'static str, &str)]) -> RequestHead {
        RequestHead::new(Inner {
            method,
            uri: uri.parse().unwrap(),
            headers: headers
                .iter()
                .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
                .collect(),
            body: Bytes::new(),
            remote_addr: None,
            arrived: Instant::now(),
            endpoint: "test".into(),
            draining: Draining::default(),
            any_body: false,
        })
    }

    #[test]
    fn the_access_token_is_in_the_header_or_the_query() {
        let check = |uri: &str, headers: &[(&'static str, &str)], token: Option<&str>| {
            let head = head(Method::GET, uri, headers);
            assert_eq!(head.access_token().as_deref(), token, "{uri} {headers:?}");
        };
        check("/", &[], None);
        check("/", &[("authorization", "Bearer abc")], Some("abc"));
        check("/", &[("authorization", "bearer  abc ")], Some("abc"));
        check("/", &[("authorization", "Bearer ")], None);
        check("/", &[("authorization", "Bearer")], None);
        check("/?access_token=x", &[("authorization", "X-Matrix origin=a.example")], None);
        check("/?access_token=a%2Bb", &[], Some("a+b"));
        check("/?since=s&access_token=abc&x", &[], Some("abc"));
        check("/?access_token=", &[], None);
        check("/?access_token=query", &[("authorization", "Bearer header")], Some("header"));
    }

    #[test]
    fn bodies_are_objects_in_utf_8() {
        let check = |body: &[u8], errcode: Option<&str>| {
            let found = check_is_object(body).err().and_then(|error| error.errcode());
            assert_eq!(found.as_deref(), errcode, "{}", String::from_utf8_lossy(body));
        };
        check(b"", None);
        check(b" {\"a\": 1}", None);
        check(b"{\"skipped\": \"\x81\"}", Some("M_NOT_JSON"));
        check(b"[]", Some("M_BAD_JSON"));
        check(b"[", Some("M_NOT_JSON"));
    }

    #[test]
    fn the_token_does_not_show_in_debug_output() {
        let head = head(Method::GET, "/?access_token=secret", &[("authorization", "Bearer secret")]);
        assert!(!format!("{head:?}").contains("secret"));
    }
}
