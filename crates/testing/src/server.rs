//! The PostgreSQL server under the tests of this process.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, Config, NoTls, config::Host};

/// The script that makes, starts and stops private PostgreSQL servers.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dev/postgres");

/// A PostgreSQL server on which databases may be made and dropped at will.
#[derive(Clone, Debug)]
pub struct TestServer {
    config: Config,
    /// As long as this is locked, the script's watcher doesn't end the server.
    _in_use: Option<Arc<File>>,
}

impl TestServer {
    /// The server that all tests of this process share; started if it isn't running yet.
    ///
    /// # Panics
    ///
    /// With a sentence that says what is missing, if there is no PostgreSQL to be had.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<TestServer> = OnceCell::const_new();

        SHARED
            .get_or_init(async || {
                let server = match env::var("MYELIN_TEST_POSTGRES") {
                    Ok(address) if !address.is_empty() => Self::at(&address),
                    _ => Self::private().await,
                };
                match server {
                    Ok(server) => server,
                    Err(error) => panic!("no PostgreSQL for this test: {error:#}"),
                }
            })
            .await
    }

    /// The server at `address`: its socket folder, or a `postgresql://` URL of a superuser.
    ///
    /// # Errors
    ///
    /// If the address is none.
    pub fn at(address: &str) -> anyhow::Result<Self> {
        let config = if address.starts_with('/') {
            let mut config = Config::new();
            config.host_path(address).user("postgres").dbname("postgres");
            config
        } else {
            address.parse().with_context(|| format!("{address} is neither a folder nor a PostgreSQL URL"))?
        };
        ensure!(config.get_hosts().len() == 1, "the PostgreSQL of the tests needs exactly one host");
        ensure!(config.get_user().is_some(), "the PostgreSQL of the tests needs a user name");

        Ok(Self { config, _in_use: None })
    }

    /// The server of the build folder, shared with other test processes.
    async fn private() -> anyhow::Result<Self> {
        let folder = build_folder()?.join("test-postgres");

        Self::start_in(folder, &["--stop-when-unused"]).await
    }

    /// The server that is kept in `folder`.
    pub(crate) async fn start_in(folder: PathBuf, flags: &'static [&'static str]) -> anyhow::Result<Self> {
        let started = tokio::task::spawn_blocking(move || {
            fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            // Locked before the server is started, so that the watcher can't end it in between.
            let in_use =
                File::create(folder.join("in-use")).context("making the lock file of the test server")?;
            in_use.lock_shared().context("locking the test server against being stopped")?;
            let socket = run_script("start", &folder, flags)?;
            anyhow::Ok((socket, in_use))
        });
        let (socket, in_use) = started.await.context("dev/postgres")??;

        Ok(Self { _in_use: Some(Arc::new(in_use)), ..Self::at(&socket)? })
    }

    /// The folder of the server's unix socket, or its host name.
    pub fn host(&self) -> String {
        match self.config.get_hosts().first() {
            Some(Host::Unix(folder)) => folder.display().to_string(),
            Some(Host::Tcp(name)) => name.clone(),
            None => unreachable!("`TestServer::at` lets no configuration without a host pass"),
        }
    }

    /// The server's port; it is part of the socket's name, too.
    pub fn port(&self) -> u16 {
        self.config.get_ports().first().copied().unwrap_or(5432)
    }

    /// The superuser's name.
    pub fn user(&self) -> &str {
        self.config.get_user().expect("`TestServer::at` lets no configuration without a user pass")
    }

    /// The superuser's password, where the server asks for one.
    pub fn password(&self) -> Option<String> {
        self.config.get_password().map(|password| String::from_utf8_lossy(password).into_owned())
    }

    /// The URL of one of the server's databases.
    pub fn url(&self, database: &str) -> String {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let user = encode(self.user());
        let secret = self.password().map(|password| format!(":{}", encode(&password))).unwrap_or_default();
        let host = encode(&self.host());
        let port = self.port();

        format!("postgresql://{user}{secret}@{host}:{port}/{database}")
    }

    /// A connection to one of the server's databases. The connection ends when the client is dropped.
    ///
    /// # Errors
    ///
    /// If the server does not take the connection.
    pub async fn connect(&self, database: &str) -> anyhow::Result<Client> {
        let mut config = self.config.clone();
        config.dbname(database).connect_timeout(Duration::from_secs(10)).application_name("myelin-testing");
        let (client, connection) =
            config.connect(NoTls).await.with_context(|| format!("connecting to {database}"))?;
        tokio::spawn(connection);

        Ok(client)
    }
}

/// Runs `dev/postgres` and returns the line it printed.
pub(crate) fn run_script(command: &str, folder: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(SCRIPT)
        .arg(command)
        .arg(folder)
        .args(arguments)
        .output()
        .with_context(|| format!("running {SCRIPT}"))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }

    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The build folder (`target`) that holds the running test: where cargo notes what it learned of the compiler. (It also
/// marks a folder as a cache, but only one that it made itself, and `dev/prepare` may have been there first.)
pub(crate) fn build_folder() -> anyhow::Result<PathBuf> {
    let executable = env::current_exe().context("finding the test's own executable")?;

    executable
        .ancestors()
        .find(|folder| folder.join(".rustc_info.json").exists())
        .map(Path::to_path_buf)
        .with_context(|| format!("{} lies in no build folder of cargo", executable.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_the_database_and_survive_parsing() {
        #[track_caller]
        fn check(address: &str, host: &str, port: u16, user: &str) {
            let server = TestServer::at(address).unwrap();
            let parsed = TestServer::at(&server.url("some_database")).unwrap();
            assert_eq!(
                (parsed.host().as_str(), parsed.port(), parsed.user()),
                (host, port, user),
                "{address}"
            );
            assert_eq!(parsed.password(), server.password());
            assert_eq!(parsed.config.get_dbname(), Some("some_database"));
        }

        check("/run/some folder", "/run/some folder", 5432, "postgres");
        check("postgresql://me@localhost:5433/postgres", "localhost", 5433, "me");
        check("postgresql://me:s%3Acret@%2Frun%2Fsocket/postgres", "/run/socket", 5432, "me");
        check("host=/run/socket user=me port=6000", "/run/socket", 6000, "me");
    }

    #[test]
    fn addresses_without_a_user_or_with_several_hosts_are_refused() {
        #[track_caller]
        fn check(address: &str, complaint: &str) {
            let error = TestServer::at(address).unwrap_err();
            assert!(error.to_string().contains(complaint), "{error:#}");
        }

        check("postgresql://localhost/postgres", "user name");
        check("postgresql://me@one,two/postgres", "exactly one host");
        check("nonsense", "neither a folder nor a PostgreSQL URL");
    }

    #[tokio::test]
    async fn the_shared_server_answers() {
        let client = TestServer::shared().await.connect("postgres").await.unwrap();
        let answer: i32 = client.query_one("SELECT 6 * 7", &[]).await.unwrap().get(0);
        assert_eq!(answer, 42);
    }
}
