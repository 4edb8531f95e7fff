//! Answers, as they go over the wire.

use std::{fmt, pin::Pin};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use ruma::api::{IncomingRequest, OutgoingResponse, OutgoingResponseExt as _};

use crate::error::ApiError;

/// The chunks of an answer that is sent while it is being made.
pub(crate) type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, ApiError>> + Send>>;

/// An answer made by hand: status, headers and a body that is whole or streamed.
///
/// Most handlers return ruma's response type instead; this is for what has none, and for answers that are
/// assembled from JSON fragments.
pub struct RawResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: ResponseBody,
}

pub(crate) enum ResponseBody {
    Whole(Bytes),
    Stream(BodyStream),
}

impl RawResponse {
    /// 200 with a body of the given `Content-Type`.
    pub fn new(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self::with_body(content_type, ResponseBody::Whole(body.into()))
    }

    /// 200 with a body that already is JSON.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self::new("application/json", body)
    }

    /// 200 with plain text.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self::new("text/plain; charset=utf-8", body)
    }

    /// A status without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: ResponseBody::Whole(Bytes::new()) }
    }

    /// 200 with a JSON body that is sent while it is being made.
    ///
    /// The stream runs on the shared runtime and at most two chunks ahead of the client. If it fails, the
    /// connection is cut so that the client can't take the half for the whole.
    pub fn stream(body: impl Stream<Item = Result<Bytes, ApiError>> + Send + 'static) -> Self {
        Self::with_body("application/json", ResponseBody::Stream(Box::pin(body)))
    }

    fn with_body(content_type: &'static str, body: ResponseBody) -> Self {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { status: StatusCode::OK, headers, body }
    }

    /// The same answer under another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Sets a header, `Content-Type` included.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers that the handler has set; those that every answer has come later.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body, unless it is streamed.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.body {
            ResponseBody::Whole(bytes) => Some(bytes),
            ResponseBody::Stream(_) => None,
        }
    }

    pub(crate) fn into_parts(self) -> (StatusCode, HeaderMap, ResponseBody) {
        (self.status, self.headers, self.body)
    }

    pub(crate) fn from_parts(status: StatusCode, headers: HeaderMap, body: ResponseBody) -> Self {
        Self { status, headers, body }
    }
}

impl fmt::Debug for RawResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies have messages and tokens in them.
        f.debug_struct("RawResponse").field("status", &self.status).finish_non_exhaustive()
    }
}

/// A 200 whose body already is JSON: what `/sync` assembles from the events' own bytes.
#[derive(Clone)]
pub struct JsonBody(pub Bytes);

/// What a handler for the request `R` may answer with: ruma's response type to it, or bytes.
pub trait Answer<R> {
    /// The answer as it goes over the wire.
    ///
    /// # Errors
    ///
    /// If it can't be written.
    fn into_raw(self) -> Result<RawResponse, ApiError>;
}

impl<R, T> Answer<R> for T
where
    R: IncomingRequest<OutgoingResponse = T>,
    T: OutgoingResponse,
{
    fn into_raw(self) -> Result<RawResponse, ApiError> {
        let (parts, body) = self.try_into_http_response::<BytesMut>()?.into_parts();
        Ok(RawResponse::from_parts(parts.status, parts.headers, ResponseBody::Whole(body.freeze())))
    }
}

impl<R> Answer<R> for RawResponse {
    fn into_raw(self) -> Result<RawResponse, ApiError> {
        Ok(self)
    }
}

impl<R> Answer<R> for JsonBody {
    fn into_raw(self) -> Result<RawResponse, ApiError> {
        Ok(RawResponse::json(self.0))
    }
}
