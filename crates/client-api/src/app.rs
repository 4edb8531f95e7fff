//! What handlers are given.

use std::{ops::Deref, sync::Arc};

use crate::Services;

/// The services of a process. Clones share them.
#[derive(Clone, Debug)]
pub struct App(Arc<Services>);

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
