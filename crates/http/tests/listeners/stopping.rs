//! The end of a process, as its clients see it.

use std::{sync::atomic::Ordering, time::Duration};

use myelin_http::ServerOptions;
use tokio::net::TcpStream;

use crate::{App, client::Connection, client_listener, options, start, start_with};

#[tokio::test]
async fn stopping_answers_long_polls_and_finishes_what_is_under_way() {
    let app = App::default();
    let server = start(&app);
    let address = server.addresses()[0];
    let mut idle = Connection::open(address).await;
    assert_eq!(idle.ask("GET /echo", &[], "").await.status, 200);
    let mut polling = [Connection::open(address).await, Connection::open(address).await];
    for (polling, request) in polling.iter_mut().zip(["POST /poll", "POST /poll?since=s0"]) {
        polling.send(request, &[], "").await;
        app.begun.notified().await;
    }
    let mut working = Connection::open(address).await;
    working.send("POST /wait", &[], "").await;
    app.begun.notified().await;

    let stopped = tokio::spawn(server.stop());
    for polling in &mut polling {
        assert_eq!(polling.read(false).await.json()["next_batch"], "s1");
    }
    assert!(idle.closes().await, "who has nothing under way is sent away");
    app.go_on.notify_one();
    assert_eq!(working.read(false).await.status, 200);
    assert!(stopped.await.unwrap(), "nothing was left undone");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_write_whose_client_has_gone_is_waited_for() {
    let app = App::default();
    let server = start(&app);
    let mut connection = Connection::open(server.addresses()[0]).await;
    connection.send("POST /wait", &[], "").await;
    app.begun.notified().await;
    drop(connection);
    let stopped = tokio::spawn(server.stop());
    app.go_on.notify_one();
    assert!(stopped.await.unwrap());
    assert!(app.finished.load(Ordering::SeqCst));
}

#[tokio::test]
async fn what_does_not_end_is_not_waited_for_for_ever() {
    let app = App::default();
    let options = ServerOptions { drain_timeout: Duration::from_secs(1), ..options() };
    let server = start_with(&app, options, client_listener());
    let mut connection = Connection::open(server.addresses()[0]).await;
    connection.send("POST /wait", &[], "").await;
    app.begun.notified().await;
    let stopped = tokio::time::timeout(Duration::from_secs(10), server.stop()).await;
    assert!(!stopped.expect("it stops all the same"), "and says that something was left");
}
