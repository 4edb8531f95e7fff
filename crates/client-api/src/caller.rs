//! Who may call: the types that stand in a handler's signature.

use myelin_http::{ApiError, Caller, RequestHead};

use crate::App;

/// Whoever it is. A token that comes along is not looked at.
#[derive(Clone, Copy, Debug)]
pub struct Anyone;

impl Caller<App> for Anyone {
    async fn authenticate(_: &App, _: &RequestHead, _: Option<&str>) -> Result<Self, ApiError> {
        Ok(Self)
    }
}
