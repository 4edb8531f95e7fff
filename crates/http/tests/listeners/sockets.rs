//! Addresses: unix sockets, and those that can't be had.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path};

use myelin_http::{Bind, Draining, Listener, Resource, RunningServer, Server, StartError, TlsFiles};
use tokio::net::UnixStream;

use crate::{App, client::Connection, client_listener, options, router, start};

fn start_at(bind: Bind) -> Result<RunningServer, StartError> {
    let mut server = Server::new(options(), Draining::default());
    server.mount(Resource::Client, router(&App::default()));
    server.start(&[Listener { bind: vec![bind], x_forwarded: true, ..client_listener() }])
}

fn unix(path: &Path) -> Bind {
    Bind::Unix { path: path.to_owned(), mode: 0o640 }
}

async fn ask(path: &Path, headers: &[&str]) -> String {
    let stream = UnixStream::connect(path).await.unwrap();
    Connection::new(stream).ask("GET /echo", headers, "").await.json()["remote"].to_string()
}

#[tokio::test]
async fn a_unix_socket_has_its_mode_and_goes_with_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.sock");
    let server = start_at(unix(&path)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(ask(&path, &["x-forwarded-for: 192.0.2.7"]).await, "\"192.0.2.7\"");
    assert_eq!(ask(&path, &[]).await, "null");
    assert!(server.stop().await);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_socket_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.sock");
    // Closing a listener leaves its file, as a process does that is killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = start_at(unix(&path)).unwrap();
    assert_eq!(ask(&path, &[]).await, "null");
    let error = start_at(unix(&path)).map(drop).unwrap_err();
    assert!(matches!(error, StartError::InUse { .. }), "{error}");
    assert_eq!(ask(&path, &[]).await, "null", "the living one is still there");
    server.stop().await;
}

#[tokio::test]
async fn a_file_in_the_place_of_a_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    fs::write(&path, "precious").unwrap();
    let error = start_at(unix(&path)).map(drop).unwrap_err();
    assert!(error.to_string().contains("notes.txt exists and is not a socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn addresses_that_can_not_be_had_give_a_sentence() {
    let server = start(&App::default());
    let taken = server.addresses()[0];
    let error = start_at(Bind::Tcp(taken)).map(drop).unwrap_err();
    let sentence = format!("port {} of 127.0.0.1 is already in use", taken.port());
    assert!(error.to_string().starts_with(&sentence), "{error}");

    let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
    let error = start_at(Bind::Tcp(foreign)).map(drop).unwrap_err();
    assert!(error.to_string().contains("is not an address of this machine"), "{error}");

    let nowhere = Listener { bind: Vec::new(), ..client_listener() };
    let error = Server::new(options(), Draining::default()).start(&[nowhere]).map(drop).unwrap_err();
    assert!(matches!(error, StartError::NoListeners), "{error}");
}

#[tokio::test]
async fn a_missing_certificate_is_named() {
    let files = TlsFiles { certificate: "/nowhere/a.crt".into(), private_key: "/nowhere/a.key".into() };
    let listener = Listener { tls: Some(files), ..client_listener() };
    let error = Server::new(options(), Draining::default()).start(&[listener]).map(drop).unwrap_err();
    assert!(error.to_string().contains("/nowhere/a.crt"), "{error}");
}
