//! TLS to a real PostgreSQL. The one under test listens on a unix socket only, so that what speaks TLS stands before it,
//! as PostgreSQL does: it answers the request for TLS, and passes on what comes through.

use std::sync::Arc;

use myelin_storage::{
    Database, DatabaseOptions, query_one,
    tls::{Authorities, ServerCertificate, TlsOptions},
};
use myelin_testing::{TestServer, certificate as data};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixStream},
};
use tokio_postgres::config::SslMode;
use tokio_rustls::TlsAcceptor;

/// What a client begins with that wants TLS
/// (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Gives the port on which TLS is spoken.
async fn before_postgres() -> u16 {
    let server = TestServer::shared().await;
    let socket = format!("{}/.s.PGSQL.{}", server.host(), server.port());
    let certificates =
        CertificateDer::pem_file_iter(data("server.crt")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(data("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // A client that does not like us goes away; that is what some tests are about.
            tokio::spawn(pass_on(client, acceptor.clone(), socket.clone()));
        }
    });
    port
}

async fn pass_on(mut client: TcpStream, acceptor: TlsAcceptor, socket: String) -> std::io::Result<()> {
    let mut request = [0; 8];
    client.read_exact(&mut request).await?;
    assert_eq!(request, TLS_REQUEST, "the client speaks in the clear");
    client.write_all(b"S").await?;
    let mut client = acceptor.accept(client).await?;
    let mut postgres = UnixStream::connect(socket).await?;
    copy_bidirectional(&mut client, &mut postgres).await?;
    Ok(())
}

/// Connects to `host`, which is this machine, and asks something; or why not.
async fn connect(host: &str, options: TlsOptions) -> Result<i32, String> {
    let mut postgres = tokio_postgres::Config::new();
    postgres.host(host).hostaddr([127, 0, 0, 1].into()).port(before_postgres().await);
    postgres.user(TestServer::shared().await.user()).dbname("postgres").ssl_mode(SslMode::Require);
    let tls = options.client_config().map_err(|error| error.to_string())?;
    let options =
        DatabaseOptions { postgres, tls: Some(tls), ..DatabaseOptions::from_address("host=x").unwrap() };
    let database = Database::new(options).unwrap();
    let client = database.get().await.map_err(|error| error.to_string())?;
    Ok(query_one(&client, "SELECT 7", &[]).await.map_err(|error| error.to_string())?.get(0))
}

fn options(server_certificate: ServerCertificate, authorities: Option<Authorities>) -> TlsOptions {
    TlsOptions { server_certificate, authorities, client_certificate: None }
}

#[tokio::test]
async fn certificates_are_verified_as_far_as_wanted() {
    let ours = || Some(Authorities::File(data("ca.crt")));
    let check = async |host: &str, certificate, authorities, is_good: bool| {
        let outcome = connect(host, options(certificate, authorities)).await;
        assert_eq!(outcome == Ok(7), is_good, "{certificate:?} at {host}: {outcome:?}");
    };
    check("localhost", ServerCertificate::Any, None, true).await;
    check("localhost", ServerCertificate::Trusted, ours(), true).await;
    check("localhost", ServerCertificate::TrustedForHost, ours(), true).await;
    check("localhost", ServerCertificate::TrustedForHost, Some(Authorities::Folder(data("."))), true).await;
    // Another name for the same machine, which the certificate does not have.
    check("db.test", ServerCertificate::Any, None, true).await;
    check("db.test", ServerCertificate::Trusted, ours(), true).await;
    check("db.test", ServerCertificate::TrustedForHost, ours(), false).await;
    // Authorities that did not sign it.
    check("localhost", ServerCertificate::TrustedForHost, Some(Authorities::System), false).await;
    check("localhost", ServerCertificate::Trusted, Some(Authorities::System), false).await;
    check("localhost", ServerCertificate::Any, Some(Authorities::System), false).await;
    check("localhost", ServerCertificate::Trusted, None, false).await;
}

#[test]
fn a_file_that_is_no_certificate_is_named() {
    for name in ["server.key", "nothing"] {
        let options = options(ServerCertificate::Trusted, Some(Authorities::File(data(name))));
        let error = options.client_config().unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    let certificate = Some((data("server.crt"), data("ca.crt")));
    let options = TlsOptions { client_certificate: certificate, ..options(ServerCertificate::Any, None) };
    assert!(options.client_config().unwrap_err().to_string().contains("ca.crt"));
}
