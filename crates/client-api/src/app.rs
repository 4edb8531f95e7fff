//! What handlers work with.

use std::{ops::Deref, sync::Arc};

use serde_json::{Map, Value};
use url::Url;

/// The services of a process. Clones share them.
#[derive(Clone, Debug)]
pub struct App(Arc<Services>);

/// What an [`App`] is made of; the daemon fills it.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// The URL under which clients reach this server, if it is known.
    pub public_baseurl: Option<Url>,
    /// More members of `/.well-known/matrix/client`.
    pub extra_well_known_client_content: Map<String, Value>,
}

impl App {
    /// An app of these services.
    pub fn new(services: Services) -> Self {
        Self(Arc::new(services))
    }
}

impl Deref for App {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}
