//! Commits whose answers never come.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use myelin_replication::{Appending, Lane, Notices, WriteError};
use myelin_storage::{Client, Database, DatabaseOptions, Transaction, execute, query_one};
use myelin_testing::{MigratedDatabase, TestRedis};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    notices::{NEVER, options},
    words::{Process, database, process, process_on, words},
};

/// Longer than a writer asks what became of a commit before it gives up.
const LONG: Duration = Duration::from_secs(7);

/// Connections of a writer: the fewest with which it can start.
const CONNECTIONS: usize = 2;
const A_MOMENT: Duration = Duration::from_millis(300);

/// How the line is between a process and its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The server hears, and is not heard.
    Deaf,
    /// Nobody gets through. Connections are closed, of which the server does not hear.
    Cut,
}

/// A line to the database's socket.
struct Line {
    state: watch::Sender<State>,
    pool: Database,
    _folder: tempfile::TempDir,
    listening: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Line {
    /// A line to the server of a database; `None` if that has no socket.
    fn to(database: &MigratedDatabase) -> Option<Self> {
        let (server, port) = (database.server().host(), database.server().port());
        let name = format!(".s.PGSQL.{port}");
        let socket = Path::new(&server).is_absolute().then(|| PathBuf::from(&server).join(&name))?;
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(&name)).unwrap();
        let state = watch::Sender::new(State::Open);
        let states = state.subscribe();
        let listening = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *states.borrow() == State::Open {
                    tokio::spawn(carry(near, socket.clone(), states.clone()));
                }
            }
        });
        let encode = |path: &str| utf8_percent_encode(path, NON_ALPHANUMERIC).to_string();
        let url = database.url();
        let near = folder.path().display().to_string();
        let through = url.replace(&encode(&server), &encode(&near));
        assert_ne!(through, url, "the server's folder is in the address");
        let mut options = DatabaseOptions::from_address(&through).unwrap();
        options.max_connections = CONNECTIONS;
        let pool = Database::new(options).unwrap();
        Some(Self { state, pool, _folder: folder, listening })
    }

    fn is(&self, state: State) {
        self.state.send_replace(state);
    }
}

async fn carry(near: UnixStream, far: PathBuf, states: watch::Receiver<State>) -> std::io::Result<()> {
    let far = UnixStream::connect(far).await?;
    let (near_reader, near_writer) = near.into_split();
    let (mut far_reader, mut far_writer) = far.into_split();
    let mut cut = states.clone();
    tokio::select! {
        ended = pipe(near_reader, &mut far_writer, None) => return ended,
        ended = pipe(&mut far_reader, near_writer, Some(states)) => return ended,
        _ = cut.wait_for(|state| *state == State::Cut) => {}
    }
    tokio::io::copy(&mut far_reader, &mut tokio::io::sink()).await.map(drop)
}

async fn pipe(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    states: Option<watch::Receiver<State>>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        if states.as_ref().is_none_or(|states| *states.borrow() == State::Open) {
            to.write_all(&buffer[..length]).await?;
        }
    }
}

/// Has `writer` write a word, and waits until its statements come to a lock that the transaction which is given holds.
async fn write_held<'a>(
    database: &MigratedDatabase,
    holder: &'a mut Client,
    writer: &Process,
) -> (Transaction<'a>, Appending) {
    holder.batch_execute("SET idle_in_transaction_session_timeout = 0").await.unwrap();
    let held = Transaction::begin(holder);
    execute(&held, "LOCK TABLE words IN EXCLUSIVE MODE", &[]).await.unwrap();
    let appending = writer.writer.append_in(&Lane::new(), words(&["unheard"])).unwrap();
    wait_until(database, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'words'::regclass")
        .await;
    (held, appending)
}

/// Has a writer's connections prepare their statements, which would wait for the lock in place of the transaction.
async fn warm_up(writer: &Process) {
    for _ in 0..2 * CONNECTIONS {
        writer.say("warm").await;
    }
    writer.seen.lock().unwrap().clear();
}

async fn fails(appending: Appending) {
    let outcome = tokio::time::timeout(LONG, appending).await.expect("it gives up");
    assert!(matches!(outcome, Err(WriteError::Storage(_))), "{outcome:?}");
}

async fn wait_until(database: &MigratedDatabase, sql: &'static str) {
    for _ in 0..500 {
        let client = database.get().await.unwrap();
        if query_one(&client, sql, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            return;
        }
        drop(client);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{sql}: never");
}

#[tokio::test]
async fn a_commit_that_its_writer_did_not_hear_of_is_seen_by_all() {
    let (redis, database) = (TestRedis::start(), database().await);
    let Some(line) = Line::to(&database) else { return };
    let writer = process_on(line.pool.clone(), "writer").await;
    let reader = process(&database, "reader").await;
    let notices = [&writer, &reader].map(|process| {
        let notices = Notices::start(options(&redis, "a.test", NEVER)).unwrap();
        notices.join(&process.feed);
        notices
    });
    crate::notices::until_heard(&writer, &reader).await;
    warm_up(&writer).await;
    let mut holder = database.get().await.unwrap();
    let (held, appending) = write_held(&database, &mut holder, &writer).await;
    line.is(State::Deaf);
    held.commit().await.unwrap();
    wait_until(&database, "SELECT count(*) FROM words WHERE word = 'unheard'").await;
    line.is(State::Cut);
    fails(appending).await;
    assert!(matches!(writer.writer.check_settled(), Err(WriteError::Unsettled)));

    line.is(State::Open);
    let id = writer.say("next").await;
    assert_eq!(writer.seen(), ["unheard", "next"]);
    assert!(reader.feed.wait_for(&writer.feed.position(), LONG).await);
    assert!(reader.feed.position().covers(writer.session.writer(), id));
    assert!(reader.seen().ends_with(&words(&["warm", "unheard", "next"])), "{:?}", reader.seen());
    drop(notices);
}

#[tokio::test]
async fn a_commit_that_is_late_is_waited_for() {
    let database = database().await;
    let Some(line) = Line::to(&database) else { return };
    let writer = process_on(line.pool.clone(), "writer").await;
    warm_up(&writer).await;
    let mut holder = database.get().await.unwrap();
    let (held, appending) = write_held(&database, &mut holder, &writer).await;
    // The server does not notice, and goes on as soon as it can.
    line.is(State::Cut);
    fails(appending).await;

    line.is(State::Open);
    let next = writer.say("next");
    let release = async {
        tokio::time::sleep(A_MOMENT).await;
        assert_eq!(writer.seen(), [""; 0], "it is not known yet what comes before");
        held.commit().await.unwrap();
    };
    futures_util::future::join(next, release).await;
    assert_eq!(writer.seen(), ["unheard", "next"]);
    assert!(writer.writer.check_settled().is_ok());
}

#[tokio::test]
async fn a_commit_that_did_not_happen_is_told_as_failed_and_the_writer_goes_on() {
    let database = database().await;
    let Some(line) = Line::to(&database) else { return };
    let writer = process_on(line.pool.clone(), "writer").await;
    warm_up(&writer).await;
    let mut holder = database.get().await.unwrap();
    let (held, appending) = write_held(&database, &mut holder, &writer).await;
    const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE NOT granted AND relation = 'words'::regclass";
    wait_until(&database, END).await;
    drop(held);
    fails(appending).await;
    writer.say("next").await;
    assert_eq!(writer.seen(), ["next"]);
}
