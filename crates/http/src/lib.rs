//! HTTP for the daemons: requests to ruma's types and back, routing, errors, limits, listeners.
//!
//! An endpoint family is written against [`Routes`]: handlers are async functions whose arguments say what they
//! need ([`Caller`], ruma's request type) and whose error is the answer ([`ApiError`]). Start reading there.
//!
//! What an endpoint *means* is not found here, nor who may call it: authentication is a [`Caller`] of the API crates.

mod around;
mod drain;
mod error;
mod handler;
mod health;
mod limits;
mod observe;
mod rate_limit;
mod request;
mod response;
mod router;
mod routes;
mod server;

pub use self::{
    around::{Around, Next},
    drain::Draining,
    error::ApiError,
    handler::{Caller, Handler, RawHandler},
    health::{Condition, Readiness, health_routes, metrics_routes},
    limits::owner_of,
    rate_limit::{RateLimit, RateLimiter, RetryAfter},
    request::{REQUEST_ID, RawRequest, RequestHead},
    response::{Answer, JsonBody, RawResponse},
    router::Router,
    routes::{Mounted, Routes},
    server::{
        Bind, Listener, Resource, RunningServer, ServedResource, Server, ServerOptions, StartError, TlsError,
        TlsFiles,
    },
};
