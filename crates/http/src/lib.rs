//! HTTP for the daemons: requests to ruma's types and back, routing, errors, limits, listeners.
//!
//! An endpoint family is written against [`Routes`]: handlers are async functions whose arguments say what they
//! need ([`Caller`], ruma's request type) and whose error is the answer ([`ApiError`]). Start reading there.
//!
//! What an endpoint *means* is not found here, nor who may call it: authentication is a [`Caller`] of the API crates.

mod drain;
mod error;
mod handler;
mod rate_limit;
mod request;
mod response;
mod routes;

pub use self::{
    drain::Draining,
    error::ApiError,
    handler::{Caller, Handler, RawHandler},
    rate_limit::{RateLimit, RateLimiter, RetryAfter},
    request::{RawRequest, RequestHead},
    response::{Answer, JsonBody, RawResponse},
    routes::{Mounted, Router, Routes},
};
