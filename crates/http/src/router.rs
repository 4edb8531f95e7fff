//! The look-up: method and raw path → handler.

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::Method;
use percent_encoding::percent_decode_str;

use crate::{
    around::{self, Around},
    drain::Draining,
    error::ApiError,
    handler::BoxHandler,
    observe::Endpoint,
    request::RequestHead,
    response::RawResponse,
};

/// What the router finds.
#[derive(Clone)]
pub(crate) struct Route {
    pub handler: BoxHandler,
    /// The operation's name, for metrics and logs.
    pub endpoint: Arc<Endpoint>,
    pub body_limit: Option<usize>,
    pub long_poll: Option<&'static str>,
    pub any_body: bool,
}

/// The look-up table of one API: method and raw path → handler.
#[derive(Clone, Default)]
pub struct Router {
    /// A table per method, because a path that is literal for one may be a parameter's for another:
    /// `GET /profile/{userId}/displayname` and `DELETE /profile/{userId}/{keyName}`.
    methods: Vec<(Method, matchit::Router<Arc<Route>>)>,
    patterns: BTreeSet<(String, String)>,
    /// All that was inserted, in that order.
    routes: Vec<(Method, String, Arc<Route>)>,
}

/// Where a request goes.
pub(crate) enum Destination<'r> {
    Route(&'r Arc<Route>, Vec<String>),
    /// The path is served, but not with this method.
    WrongMethod,
    Unknown,
}

impl Router {
    pub(crate) fn insert(&mut self, method: &Method, path: &str, route: &Arc<Route>) {
        let pattern = numbered(path);
        let index = self.methods.iter().position(|(known, _)| known == method).unwrap_or_else(|| {
            self.methods.push((method.clone(), matchit::Router::new()));
            self.methods.len() - 1
        });
        if let Err(error) = self.methods[index].1.insert(pattern.clone(), route.clone()) {
            panic!("{method} {path} ({}) can't be mounted: {error}", route.endpoint.name());
        }
        self.routes.push((method.clone(), pattern.clone(), route.clone()));
        self.patterns.insert((pattern, method.to_string()));
    }

    pub(crate) fn knows_pattern(&self, path: &str) -> bool {
        let pattern = numbered(path);
        self.patterns.iter().any(|(known, _)| *known == pattern)
    }

    /// Whether anything is mounted for this method under this path. `path` may be a pattern.
    pub fn serves(&self, method: &Method, path: &str) -> bool {
        matches!(self.find(method, path), Ok(Destination::Route(..)))
    }

    /// Every path that is mounted, its parameters numbered, with the method: for tests and generated proxy rules.
    pub fn patterns(&self) -> impl Iterator<Item = (&str, &str)> {
        self.patterns.iter().map(|(pattern, method)| (method.as_str(), pattern.as_str()))
    }

    /// Finds the route. The error is a path whose arguments are not UTF-8.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Result<Destination<'_>, ApiError> {
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let table = self.methods.iter().find(|(known, _)| known == wanted);
        if let Some(found) = table.and_then(|(_, table)| table.at(path).ok()) {
            let path_args = found.params.iter().map(|(_, raw)| decode(raw)).collect::<Result<_, _>>()?;
            return Ok(Destination::Route(found.value, path_args));
        }
        if self.methods.iter().any(|(_, table)| table.at(path).is_ok()) {
            return Ok(Destination::WrongMethod);
        }
        Ok(Destination::Unknown)
    }
}

fn decode(raw: &str) -> Result<String, ApiError> {
    match percent_decode_str(raw).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(ApiError::invalid_param("A part of the path is not UTF-8")),
    }
}

impl Router {
    /// Serves one request in this process, without a listener: for tests, and for requests that one part of a daemon
    /// makes to another.
    pub async fn call(&self, request: http::Request<impl Into<Bytes>>) -> RawResponse {
        self.try_call(request, None, Draining::default()).await.unwrap_or_else(ApiError::into_response)
    }

    /// Serves one request that another process took from a client at `remote_addr`.
    ///
    /// # Errors
    /// The error that the handler gave.
    pub async fn try_call(
        &self,
        request: http::Request<impl Into<Bytes>>,
        remote_addr: Option<IpAddr>,
        draining: Draining,
    ) -> Result<RawResponse, ApiError> {
        match self.find(request.method(), request.uri().path())? {
            Destination::Route(route, path_args) => {
                let head = RequestHead::of(request, route, remote_addr, draining);
                (route.handler)(head, path_args).await
            }
            Destination::WrongMethod => Err(ApiError::wrong_method()),
            Destination::Unknown => Err(ApiError::unrecognized()),
        }
    }

    /// The same routes with something around every handler.
    #[must_use]
    pub fn around(mut self, around: Arc<dyn Around>) -> Self {
        let methods = self.methods.into_iter().map(|(method, _)| (method, matchit::Router::new()));
        let mut wrapped = Self { methods: methods.collect(), patterns: BTreeSet::new(), routes: Vec::new() };
        for (method, pattern, route) in std::mem::take(&mut self.routes) {
            let handler = around::wrap(around.clone(), route.handler.clone());
            wrapped.insert(&method, &pattern, &Arc::new(Route { handler, ..(*route).clone() }));
        }
        wrapped
    }
}

pub(crate) fn parameter(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// The path with its parameters numbered: the router refuses two names for the same place.
pub(crate) fn numbered(path: &str) -> String {
    let mut number = 0;
    let segments = path.split('/').map(|segment| match parameter(segment) {
        Some(name) => {
            number += 1;
            let star = if name.starts_with('*') { "*" } else { "" };
            Cow::Owned(format!("{{{star}p{number}}}"))
        }
        None => Cow::Borrowed(segment),
    });
    segments.collect::<Vec<_>>().join("/")
}
