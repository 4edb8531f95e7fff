//! Synapse's admin API over HTTP, under `/_synapse/admin`. Tools for operators know it.
//!
//! Not here: what the specification itself gives to administrators, which is part of `client-api`. Start reading at
//! [`routes`].

mod register;

use std::sync::Arc;

use myelin_accounts::Accounts;
use myelin_config::Secret;
use myelin_http::Routes;

/// What the handlers work with. Clones share it.
#[derive(Clone, Debug)]
pub struct AdminApi(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    accounts: Accounts,
    server_name: String,
    registration_shared_secret: Option<Secret>,
}

impl AdminApi {
    /// The API of a server. Without a `registration_shared_secret` nobody registers by it.
    pub fn new(
        accounts: Accounts,
        server_name: impl Into<String>,
        registration_shared_secret: Option<Secret>,
    ) -> Self {
        Self(Arc::new(Parts { accounts, server_name: server_name.into(), registration_shared_secret }))
    }
}

/// The routes of the admin API. They belong on listeners that have the resource `client`, as Synapse has it.
pub fn routes(api: AdminApi) -> Routes<AdminApi> {
    let mut routes = Routes::new(api);
    register::routes(&mut routes);
    routes
}
