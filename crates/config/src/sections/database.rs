//! PostgreSQL.

use std::{path::PathBuf, time::Duration};

use tokio_postgres::config::{SslMode as DriverSslMode, TargetSessionAttrs};

use crate::{
    section::{all_defaulted, section},
    value::{Secret, choice},
};

section! {
    /// The PostgreSQL database that all processes share.
    Database {
        /// The kind of database, by the name of Synapse's driver. Only PostgreSQL is served.
        name: DatabaseKind,
        /// How to connect.
        args: DatabaseArgs = {},
        /// Accepted for Synapse's sake: databases with another locale than C work here.
        allow_unsafe_locale: bool = false,
        /// Transactions after which a connection is replaced; 0 for never.
        txn_limit: u32 = 0,
    }
}

section! {
    /// The arguments of a connection, by the names of libpq.
    DatabaseArgs {
        /// The database's user.
        user: Option<String> = null,
        /// The user's password.
        password: Option<Secret> = null,
        /// The name of the database.
        dbname: Option<String> = null,
        /// The host, or the folder of its unix socket; several, comma separated, are tried until one takes writes.
        host: String = "localhost",
        /// The port; several, comma separated, go with several hosts.
        port: String = "5432",
        /// Whether to use TLS and what to check. With `verify-ca` and `verify-full` the server's certificate is checked,
        /// `require` only encrypts.
        sslmode: SslMode = "prefer",
        /// The certificates (PEM) of the authorities to trust, instead of the system's; `system` for those. With it, `require`
        /// means `verify-ca`.
        sslrootcert: Option<PathBuf> = null,
        /// The client's certificate (PEM).
        sslcert: Option<PathBuf> = null,
        /// The key (PEM) of the client's certificate.
        sslkey: Option<PathBuf> = null,
        /// How long to wait for a connection, in seconds.
        connect_timeout: u32 = 10,
        /// The name shown in `pg_stat_activity`, instead of `myelin` and the name of the process.
        application_name: Option<String> = null,
        /// Command-line options for the server, such as `-c statement_timeout=60s`.
        options: Option<String> = null,
        /// Seconds without traffic until a keepalive is sent.
        keepalives_idle: u32 = 60,
        /// Seconds between keepalives that are not answered.
        keepalives_interval: u32 = 10,
        /// Keepalives without an answer until the connection counts as lost.
        keepalives_count: u32 = 3,
        /// Connections that are kept open at least.
        cp_min: u32 = 1,
        /// Connections at most. Synapse's 10 are few for a process that uses all cores.
        cp_max: u32 = 20,
    }
}

all_defaulted!(DatabaseArgs);

choice! {
    /// The kind of database, named by Synapse's driver for it.
    DatabaseKind: "`psycopg2`, for PostgreSQL" {
        /// PostgreSQL.
        PostgreSql = "psycopg2" | "psycopg" | "postgres" | "postgresql",
    }
}

choice! {
    /// How far TLS is wanted on connections to PostgreSQL.
    SslMode: "a TLS mode of libpq" {
        /// Never.
        Disable = "disable",
        /// Only if the server insists.
        Allow = "allow",
        /// If the server offers it.
        Prefer = "prefer",
        /// Always, whoever the server is.
        Require = "require",
        /// Always, with a certificate of a trusted authority.
        VerifyCa = "verify-ca",
        /// Always, with a certificate of a trusted authority for this host.
        VerifyFull = "verify-full",
    }
}

impl SslMode {
    /// Whether the server's certificate is checked, and against its host name too.
    #[must_use]
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

impl DatabaseArgs {
    /// The hosts with their ports. `Err` with what is wrong when the two lists don't fit.
    pub(crate) fn hosts(&self) -> Result<Vec<(String, u16)>, String> {
        let hosts: Vec<&str> = self.host.split(',').map(str::trim).collect();
        let ports = self
            .port
            .split(',')
            .map(|port| port.trim().parse::<u16>().map_err(|_| format!("`{}` is not a port", port.trim())))
            .collect::<Result<Vec<_>, _>>()?;
        if ports.len() != 1 && ports.len() != hosts.len() {
            return Err(format!("{} hosts can't go with {} ports", hosts.len(), ports.len()));
        }
        let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        Ok(hosts.iter().enumerate().map(|(index, host)| ((*host).to_owned(), port(index))).collect())
    }
}

impl Database {
    /// The driver's configuration of one connection. TLS beyond the mode (authorities, client certificate) is up to the
    /// connector.
    ///
    /// With several hosts, only one that takes writes is used, as it is after a fail-over.
    #[must_use]
    pub fn to_postgres(&self) -> tokio_postgres::Config {
        let args = &self.args;
        let mut config = tokio_postgres::Config::new();
        let hosts = args.hosts().expect("loading checked the hosts and ports");
        if hosts.len() > 1 {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        for (host, port) in hosts {
            config.host(host).port(port);
        }
        if let Some(user) = &args.user {
            config.user(user);
        }
        if let Some(password) = &args.password {
            config.password(password.expose());
        }
        if let Some(dbname) = &args.dbname {
            config.dbname(dbname);
        }
        if let Some(options) = &args.options {
            config.options(options);
        }
        config
            .application_name(args.application_name.as_deref().unwrap_or("myelin"))
            .connect_timeout(seconds(args.connect_timeout))
            .keepalives(true)
            .keepalives_idle(seconds(args.keepalives_idle))
            .keepalives_interval(seconds(args.keepalives_interval))
            .keepalives_retries(args.keepalives_count)
            .ssl_mode(match args.sslmode {
                SslMode::Disable => DriverSslMode::Disable,
                SslMode::Allow | SslMode::Prefer => DriverSslMode::Prefer,
                SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => DriverSslMode::Require,
            });
        config
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}
