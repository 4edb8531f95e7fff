//! How many instructions the hot paths take, counted by callgrind in the real daemon: a figure that holds still on any noisy
//! machine, so that a small regression shows.
//!
//! `dev/bench-check` runs it with a `myelin-main` that is started below valgrind, and compares with the committed figures. One
//! client asks one thing after the other, so that nothing depends on what happens to come at the same time.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use myelin_integration_tests::path_segment;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use crate::{
    connection::Connection,
    crew::{Syncer, join, leave, messages, register, rooms, send_path, sync, syncers, users},
    homeserver::{Homeserver, Topology},
    scenarios::ephemeral::{read, type_in},
};

const MEMBERS: usize = 20;
const ROOMS: usize = 10;
const EARLIER_MESSAGES: usize = 60;

/// How many operations go before those that are counted.
const WARM_UP: usize = 20;

/// How often each path is counted.
const ROUNDS: usize = 3;

/// How long the background is given to finish what was asked for.
const SETTLING: Duration = Duration::from_millis(300);

/// How long it is watched what the daemon does by itself.
const IDLE: Duration = Duration::from_secs(5);

const TEXT: &str = r#"{"msgtype":"m.text","body":"The quick brown fox jumps over the lazy dog."}"#;

/// The callgrind that the daemon runs under.
struct Callgrind {
    process: u32,
    folder: PathBuf,
    parts: usize,
    /// Instructions in a second of which nobody asked anything.
    idle: f64,
}

/// Counts, and tells each path with its instructions per operation.
pub async fn count() -> anyhow::Result<Vec<(&'static str, u64)>> {
    let mut server = Homeserver::start(Topology::Single).await;
    let url = server.url();
    let users = users(&server, "user", MEMBERS).await?;
    let rooms = rooms(&server, &users, ROOMS, MEMBERS).await?;
    let events = messages(&server, &users, &rooms, MEMBERS, EARLIER_MESSAGES).await?;
    // A connection that says nothing for long is closed, so each path has one of its own.
    let connect = async |n: usize| Connection::open(&url, &users[n]).await;
    let mut syncer = syncers(&url, &users[2..3]).await?.remove(0);
    let process = server.groups()[0].processes[0];
    let mut callgrind = Callgrind::new(process).await?;
    let room = &rooms[0];
    let mut counts = Vec::new();

    let mut alice = connect(0).await?;
    let whoami = async |_| alice.ok("GET", "/_matrix/client/v3/account/whoami", "").await;
    counts.push(("whoami", callgrind.count(1_000, whoami).await?));
    let send = async |n| alice.ok("PUT", &send_path(room, &format!("a{n}")), TEXT).await;
    counts.push(("send", callgrind.count(200, send).await?));
    syncer.step(0).await?;
    counts.push(("sync_noop", callgrind.count(1_000, async |_| syncer.step(0).await).await?));
    let tell = async |n| tell(&mut alice, &mut syncer, room, n).await;
    counts.push(("send_and_sync", callgrind.count(200, tell).await?));
    let mut bob = connect(1).await?;
    let page = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=50", path_segment(room));
    counts.push(("messages_50", callgrind.count(50, async |_| bob.ok("GET", &page, "").await).await?));
    let initial = async |_| sync(&mut bob, "").await.map(drop);
    counts.push(("initial_sync_10_rooms", callgrind.count(60, initial).await?));
    let mut reader = connect(0).await?;
    let receipts = async |n: usize| {
        reader.act_as(&users[n % MEMBERS]);
        let event = &events[n % ROOMS][n / MEMBERS];
        ensure!(read(&mut reader, &rooms[n % ROOMS], event).await?, "a receipt was refused");
        Ok(())
    };
    counts.push(("receipt", callgrind.count(200, receipts).await?));
    let mut typist = connect(1).await?;
    let typing = async |n: usize| {
        ensure!(type_in(&mut typist, room, n.is_multiple_of(2)).await?, "typing was refused");
        Ok(())
    };
    counts.push(("typing", callgrind.count(200, typing).await?));
    let mut newcomer = connect(0).await?;
    let account = register(&mut newcomer, "newcomer").await?;
    newcomer.act_as(&account);
    let come_and_go = async |n: usize| match n % 2 {
        0 => join(&mut newcomer, room).await,
        _ => leave(&mut newcomer, room).await,
    };
    counts.push(("membership", callgrind.count(100, come_and_go).await?));

    Ok(counts)
}

/// Sends a message that somebody else then gets.
async fn tell(sender: &mut Connection, syncer: &mut Syncer, room: &str, number: usize) -> anyhow::Result<()> {
    sender.ok("PUT", &send_path(room, &format!("t{number}")), TEXT).await?;
    syncer.step(0).await?;
    ensure!(syncer.connection.has("quick brown fox"), "the message did not come");

    Ok(())
}

impl Callgrind {
    async fn new(process: u32) -> anyhow::Result<Self> {
        let folder = std::env::var_os("MYELIN_CALLGRIND_OUT").context("run this by dev/bench-check")?;
        let mut callgrind = Self { process, folder: folder.into(), parts: 0, idle: 0.0 };
        callgrind.since_last().await?;
        let start = Instant::now();
        sleep(IDLE).await;
        callgrind.idle = callgrind.since_last().await? as f64 / start.elapsed().as_secs_f64();

        Ok(callgrind)
    }

    /// Counts an operation's instructions, those that the daemon executes by itself taken off: the fewest of some rounds, as
    /// what comes between is never to a path's credit.
    async fn count(
        &mut self,
        times: usize,
        mut operation: impl AsyncFnMut(usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        for number in 0..WARM_UP {
            operation(number).await?;
        }
        let mut fewest = f64::INFINITY;
        for round in 0..ROUNDS {
            // What the last of those before left to be done in the background is not counted with the next.
            sleep(SETTLING).await;
            self.since_last().await?;
            let start = Instant::now();
            let first = WARM_UP + round * times;
            for number in first..first + times {
                operation(number).await?;
            }
            sleep(SETTLING).await;
            let elapsed = start.elapsed().as_secs_f64();
            fewest = fewest.min(self.since_last().await? as f64 - self.idle * elapsed);
        }

        Ok((fewest / times as f64) as u64)
    }

    /// All instructions since this was last asked.
    async fn since_last(&mut self) -> anyhow::Result<u64> {
        let said = Command::new("vgdb").arg(format!("--pid={}", self.process)).arg("dump").output().await;
        let said = said.context("asking callgrind: is valgrind installed?")?;
        ensure!(said.status.success(), "callgrind: {}", String::from_utf8_lossy(&said.stderr));
        self.parts += 1;
        let path = self.folder.join(format!("callgrind.out.{}.{}", self.process, self.parts));
        let profile = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
        let total = total.and_then(|total| total.trim().parse().ok());

        total.with_context(|| format!("{} has no totals", path.display()))
    }
}
