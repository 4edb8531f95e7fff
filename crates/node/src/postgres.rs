//! From the configuration's database to a pool of connections.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use myelin_config::{Config, DatabaseArgs, SslMode};
use myelin_storage::{
    Database, DatabaseOptions, migrate,
    tls::{Authorities, ServerCertificate, TlsOptions},
};

/// How long PostgreSQL may take to answer at the start.
const PATIENCE: Duration = Duration::from_secs(60);

/// How to reach PostgreSQL; reads the certificates.
///
/// # Errors
/// With the option and what is wrong with it.
pub(crate) fn options(config: &Config) -> Result<DatabaseOptions, String> {
    let args = &config.database.args;
    let tls = tls(args).map(|tls| tls.client_config()).transpose();
    let mut postgres = config.database.to_postgres();
    if args.application_name.is_none() {
        postgres.application_name(format!("myelin {}", config.process().name));
    }
    Ok(DatabaseOptions {
        postgres,
        tls: tls.map_err(|error| format!("database.args: {error}"))?,
        max_connections: usize::try_from(args.cp_max).unwrap_or(usize::MAX),
        wait_timeout: Duration::from_secs(args.connect_timeout.into()),
    })
}

/// Connects, and brings the database up to date.
pub(crate) async fn connect(options: DatabaseOptions) -> anyhow::Result<Database> {
    let database = Database::connect(options, PATIENCE).await.context("PostgreSQL can't be reached")?;
    migrate(&database).await?;
    Ok(database)
}

/// `None`: in the clear. Unix sockets have no TLS, and need none.
fn tls(args: &DatabaseArgs) -> Option<TlsOptions> {
    let server_certificate = match args.sslmode {
        SslMode::Disable => return None,
        SslMode::Allow | SslMode::Prefer | SslMode::Require => ServerCertificate::Any,
        SslMode::VerifyCa => ServerCertificate::Trusted,
        SslMode::VerifyFull => ServerCertificate::TrustedForHost,
    };
    let authorities = match args.sslrootcert.as_deref() {
        Some(path) if path == Path::new("system") => Some(Authorities::System),
        Some(path) => Some(Authorities::File(path.to_owned())),
        None if server_certificate == ServerCertificate::Any => None,
        None => Some(Authorities::System),
    };
    Some(TlsOptions {
        server_certificate,
        authorities,
        client_certificate: args.sslcert.clone().zip(args.sslkey.clone()),
    })
}
