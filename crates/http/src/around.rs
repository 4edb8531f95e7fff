//! What stands between the listeners and all handlers of a router.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{error::ApiError, handler::BoxHandler, request::RequestHead, response::RawResponse};

/// Sees every request of a router before its handler does, and the answer: to send the request to another process, say.
pub trait Around: Send + Sync + 'static {
    /// Answers a request, by its handler ([`Next::run`]) or otherwise.
    fn call(
        self: Arc<Self>,
        head: RequestHead,
        next: Next,
    ) -> BoxFuture<'static, Result<RawResponse, ApiError>>;
}

/// The handler of a request. It may be run more than once.
pub struct Next {
    handler: BoxHandler,
    path_args: Vec<String>,
}

impl Next {
    /// The parameters of the path, decoded, in their order.
    pub fn path_args(&self) -> &[String] {
        &self.path_args
    }

    /// Has the handler answer.
    pub fn run(&self, head: RequestHead) -> BoxFuture<'static, Result<RawResponse, ApiError>> {
        (self.handler)(head, self.path_args.clone())
    }
}

pub(crate) fn wrap(around: Arc<dyn Around>, handler: BoxHandler) -> BoxHandler {
    Arc::new(move |head, path_args| around.clone().call(head, Next { handler: handler.clone(), path_args }))
}
