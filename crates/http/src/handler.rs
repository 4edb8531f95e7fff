//! What a handler is, and how a request becomes its arguments.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use ruma::api::{
    IncomingRequest, IncomingRequestExt as _,
    error::{DeserializationError, FromHttpRequestError},
};

use crate::{
    error::ApiError,
    request::{RawRequest, RequestHead, check_is_object, is_json},
    response::{Answer, RawResponse},
};

/// Who may call, as a type: an endpoint's signature names it, and a request that can't be turned into it is refused.
pub trait Caller<S>: Sized {
    /// Finds out who is calling. `token` is the access token of the header or the query, if any.
    ///
    /// The error is the answer: [`ApiError::missing_token`], [`ApiError::unknown_token`] and so on.
    fn authenticate(
        state: &S,
        request: &RequestHead,
        token: Option<&str>,
    ) -> impl Future<Output = Result<Self, ApiError>> + Send;
}

/// An async function that serves one endpoint: `(app, caller, request)` or `(app, caller, request, head)`.
///
/// The endpoint's paths and its method come from the request's type. Authentication comes before the body is
/// looked at, so that a stranger learns nothing from our parser.
///
/// The future is polled once on the listener's thread and, if it has to wait, goes on as a task of the shared
/// runtime. A handler that computes for more than a millisecond gives that to a pool, or calls
/// `tokio::task::yield_now` first, so that it does not hold up the thread's other connections.
///
/// Where the client goes away, a `GET` is dropped at its next await point while anything else runs to its end: a
/// half-done write is nobody's wish.
pub trait Handler<S, Arguments>: Clone + Send + Sync + 'static {
    /// The request's type.
    type Request: IncomingRequest;

    /// Serves one request.
    fn handle(
        self,
        state: S,
        head: RequestHead,
        path_args: Vec<String>,
    ) -> impl Future<Output = Result<RawResponse, ApiError>> + Send;
}

impl<S, C, R, F, Fut, T> Handler<S, (C, R)> for F
where
    S: Clone + Send + Sync + 'static,
    C: Caller<S> + Send,
    R: IncomingRequest + Send,
    F: FnOnce(S, C, R) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<T, ApiError>> + Send,
    T: Answer<R>,
{
    type Request = R;

    async fn handle(
        self,
        state: S,
        head: RequestHead,
        path_args: Vec<String>,
    ) -> Result<RawResponse, ApiError> {
        let caller = authenticate::<C, S>(&state, &head).await?;
        let request = convert::<R>(&head, &path_args)?;
        // Nothing below needs them, and a long poll would keep them.
        drop((head, path_args));
        self(state, caller, request).await?.into_raw()
    }
}

impl<S, C, R, F, Fut, T> Handler<S, (C, R, RequestHead)> for F
where
    S: Clone + Send + Sync + 'static,
    C: Caller<S> + Send,
    R: IncomingRequest + Send,
    F: FnOnce(S, C, R, RequestHead) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<T, ApiError>> + Send,
    T: Answer<R>,
{
    type Request = R;

    async fn handle(
        self,
        state: S,
        head: RequestHead,
        path_args: Vec<String>,
    ) -> Result<RawResponse, ApiError> {
        let caller = authenticate::<C, S>(&state, &head).await?;
        let request = convert::<R>(&head, &path_args)?;
        drop(path_args);
        self(state, caller, request, head).await?.into_raw()
    }
}

/// An async function that serves a path for which ruma has no type: `(app, request)` or `(app, caller, request)`.
pub trait RawHandler<S, Arguments>: Clone + Send + Sync + 'static {
    /// Serves one request.
    fn handle_raw(
        self,
        state: S,
        request: RawRequest,
    ) -> impl Future<Output = Result<RawResponse, ApiError>> + Send;
}

impl<S, F, Fut> RawHandler<S, ()> for F
where
    S: Clone + Send + Sync + 'static,
    F: FnOnce(S, RawRequest) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<RawResponse, ApiError>> + Send,
{
    async fn handle_raw(self, state: S, request: RawRequest) -> Result<RawResponse, ApiError> {
        self(state, request).await
    }
}

impl<S, C, F, Fut> RawHandler<S, (C,)> for F
where
    S: Clone + Send + Sync + 'static,
    C: Caller<S> + Send,
    F: FnOnce(S, C, RawRequest) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<RawResponse, ApiError>> + Send,
{
    async fn handle_raw(self, state: S, request: RawRequest) -> Result<RawResponse, ApiError> {
        let caller = authenticate::<C, S>(&state, &request.head).await?;
        self(state, caller, request).await
    }
}

/// A handler whose types are forgotten, as the router keeps it.
pub(crate) type BoxHandler =
    Arc<dyn Fn(RequestHead, Vec<String>) -> BoxFuture<'static, Result<RawResponse, ApiError>> + Send + Sync>;

pub(crate) fn erase<S, A, H>(state: S, handler: H) -> BoxHandler
where
    S: Clone + Send + Sync + 'static,
    A: 'static,
    H: Handler<S, A>,
{
    Arc::new(move |head, path_args| Box::pin(handler.clone().handle(state.clone(), head, path_args)))
}

pub(crate) fn erase_raw<S, A, H>(state: S, names: Vec<Arc<str>>, handler: H) -> BoxHandler
where
    S: Clone + Send + Sync + 'static,
    A: 'static,
    H: RawHandler<S, A>,
{
    Arc::new(move |head, path_args| {
        let params = names.iter().cloned().zip(path_args).collect();
        Box::pin(handler.clone().handle_raw(state.clone(), RawRequest { head, params }))
    })
}

async fn authenticate<C: Caller<S>, S>(state: &S, head: &RequestHead) -> Result<C, ApiError> {
    C::authenticate(state, head, head.access_token().as_deref()).await
}

fn convert<R: IncomingRequest>(head: &RequestHead, path_args: &[String]) -> Result<R, ApiError> {
    if head.must_be_json() {
        check_is_object(head.body())?;
    }
    let request = head.to_http_request();
    let path_args: Vec<&str> = path_args.iter().map(String::as_str).collect();
    // ruma-client-api 0.25 panics on some bodies (`{}` to `POST /login`). Nothing but the request is lost.
    match catch_unwind(AssertUnwindSafe(|| R::try_from_http_request(request, &path_args))) {
        Ok(result) => result.map_err(|error| match &error {
            // Parsers of ruma's that stop early take the rest of a good body for bad JSON.
            FromHttpRequestError::Deserialization(DeserializationError::Json(json))
                if json.is_syntax() && is_json(head.body()) =>
            {
                ApiError::bad_json("The request's body does not have what it needs here")
            }
            _ => error.into(),
        }),
        Err(_) => {
            tracing::warn!(endpoint = head.endpoint(), "the conversion of a request panicked");
            Err(ApiError::bad_json("The request could not be understood"))
        }
    }
}
