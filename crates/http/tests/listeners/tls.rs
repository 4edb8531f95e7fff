//! TLS, and certificates that change while we run.

use std::{fs, io, net::SocketAddr, path::Path, sync::Arc};

use myelin_http::{Listener, TlsFiles};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use crate::{App, client_listener, options, start_with};

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Asks for `/echo` as one who only trusts the certificate `trusted`.
async fn ask(address: SocketAddr, trusted: &str) -> io::Result<String> {
    use std::io::{Read as _, Write as _};

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(data(trusted)).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = StreamOwned::new(connection, std::net::TcpStream::connect(address)?);
        stream.write_all(b"GET /echo HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(answer),
        }
    });
    asked.await.unwrap()
}

#[tokio::test]
async fn a_certificate_can_be_replaced_while_we_run() {
    let folder = tempfile::tempdir().unwrap();
    let files =
        TlsFiles { certificate: folder.path().join("a.crt"), private_key: folder.path().join("a.key") };
    let install = |name: &str| {
        fs::copy(data(&format!("{name}.crt")), &files.certificate).unwrap();
        fs::copy(data(&format!("{name}.key")), &files.private_key).unwrap();
    };
    install("one");
    let listener = Listener { tls: Some(files.clone()), ..client_listener() };
    let server = start_with(&App::default(), options(), listener);
    let address = server.addresses()[0];
    assert!(ask(address, "one.crt").await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(ask(address, "two.crt").await.is_err());

    install("two");
    server.reload().unwrap();
    assert!(ask(address, "two.crt").await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(ask(address, "one.crt").await.is_err());

    // A mistake of the operator's leaves us with what we had.
    fs::copy(data("one.key"), &files.private_key).unwrap();
    let error = server.reload().unwrap_err();
    assert!(error.to_string().contains("a.key"), "{error}");
    assert!(ask(address, "two.crt").await.is_ok());
}
