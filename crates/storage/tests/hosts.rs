//! Several hosts, of which some don't answer.

use std::{path::PathBuf, time::Duration};

use myelin_storage::{Database, DatabaseOptions, Transaction, execute, query_one};
use myelin_testing::TestDatabase;
use tokio::{
    net::{TcpListener, UnixStream},
    sync::watch,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A host that leads to the server of the tests until it goes silent: connections stand, and nothing comes through.
struct Host {
    port: u16,
    silent: watch::Sender<bool>,
}

async fn host(database: &TestDatabase) -> Host {
    let socket =
        PathBuf::from(database.server().host()).join(format!(".s.PGSQL.{}", database.server().port()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (silent, silence) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let (socket, mut silence) = (socket.clone(), silence.clone());
            tokio::spawn(async move {
                let mut to = UnixStream::connect(socket).await.unwrap();
                let silence = async { drop(silence.wait_for(|silent| *silent).await) };
                tokio::select! {
                    biased;
                    () = silence => std::future::pending().await,
                    _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                }
            });
        }
    });
    Host { port, silent }
}

fn on(hosts: [&Host; 2], database: &TestDatabase) -> Database {
    let [first, second] = hosts.map(|host| host.port);
    let (user, name) = (database.server().user(), database.name());
    let address = format!(
        "host=127.0.0.1,127.0.0.1 port={first},{second} user={user} dbname={name} connect_timeout=10"
    );
    Database::new(DatabaseOptions::from_address(&address).unwrap()).unwrap()
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_passed_over() {
    let at = TestDatabase::empty().await;
    let hosts = [host(&at).await, host(&at).await];
    hosts[0].silent.send_replace(true);
    let database = on([&hosts[0], &hosts[1]], &at);
    let client = timeout(PATIENCE, database.get()).await.unwrap().unwrap();
    assert_eq!(query_one(&client, "SELECT 7", &[]).await.unwrap().get::<_, i32>(0), 7);
}

#[tokio::test]
async fn what_is_under_way_at_a_host_that_was_replaced_is_given_up() {
    let at = TestDatabase::empty().await;
    let hosts = [host(&at).await, host(&at).await];
    let database = on([&hosts[0], &hosts[1]], &at);
    let former = database.get().await.unwrap();
    query_one(&former, "SELECT 7", &[]).await.unwrap();
    hosts[0].silent.send_replace(true);
    let waiting = query_one(&former, "SELECT 8", &[]);
    let other = async {
        let client = database.get().await.unwrap();
        query_one(&client, "SELECT 9", &[]).await.unwrap()
    };
    let (lost, found) = timeout(PATIENCE, async { tokio::join!(waiting, other) }).await.unwrap();
    assert!(lost.is_err());
    assert_eq!(found.get::<_, i32>(0), 9);
    drop(former);
    let clients = timeout(PATIENCE, async { [database.get().await, database.get().await] }).await.unwrap();
    for client in clients {
        query_one(&client.unwrap(), "SELECT 7", &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_transaction_in_which_nothing_happens_does_not_keep_its_locks() {
    let at = TestDatabase::empty().await;
    let hosts = [host(&at).await, host(&at).await];
    let database = on([&hosts[0], &hosts[1]], &at);
    let mut client = database.get().await.unwrap();
    client.batch_execute("CREATE TABLE things AS SELECT 1 AS number").await.unwrap();
    let transaction = Transaction::begin(&mut client);
    execute(&transaction, "UPDATE things SET number = 2", &[]).await.unwrap();
    // As if the process that began it stood still from here on.
    let other = database.get().await.unwrap();
    let taken = timeout(PATIENCE, other.execute("UPDATE things SET number = 3", &[])).await.unwrap();
    assert_eq!(taken.unwrap(), 1);
    assert!(transaction.commit().await.is_err());
}

#[tokio::test]
async fn an_outage_is_told_from_a_wrong_statement() {
    let at = TestDatabase::empty().await;
    let hosts = [host(&at).await, host(&at).await];
    let database = on([&hosts[0], &hosts[1]], &at);
    let (client, other) = (database.get().await.unwrap(), database.get().await.unwrap());
    let wrong = query_one(&client, "SELECT 1 / 0", &[]).await.unwrap_err();
    assert!(!wrong.is_outage(), "{wrong}");
    let id: i32 = query_one(&client, "SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    other.execute("SELECT pg_terminate_backend($1)", &[&id]).await.unwrap();
    let ended = query_one(&client, "SELECT 7", &[]).await.unwrap_err();
    assert!(ended.is_outage(), "{ended}");
    let closed = query_one(&client, "SELECT 7", &[]).await.unwrap_err();
    assert!(closed.is_outage(), "{closed}");
}
