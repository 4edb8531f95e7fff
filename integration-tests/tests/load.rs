//! Nothing that was acknowledged is lost, repeated or reordered, under load and through a crash.

use myelin_integration_tests::{
    Server,
    load::{Load, Plan},
};

fn hundred_rooms() -> Plan {
    Plan { users: 20, rooms: 100, senders: 3, ..Plan::default() }
}

#[tokio::test]
async fn a_hundred_rooms_under_load_keep_every_acknowledged_event() {
    let server = Server::start_default().await;
    let load = Load::prepare(server.api(), hundred_rooms()).await;

    let history = load.run(async || {}).await;

    assert_eq!(history.acknowledged(), 3_000);
    history.assert_holds();
}

#[tokio::test]
async fn a_hundred_rooms_keep_every_acknowledged_event_when_the_server_is_killed_in_the_middle() {
    let mut server = Server::start_default().await;
    let load = Load::prepare(server.api(), hundred_rooms()).await;

    let killed = load.run(async || {
        server.kill().await;
        server.start_again().await;
    });
    let history = killed.await;

    assert_eq!(history.acknowledged(), 3_000);
    history.assert_holds();
}
