//! What lies below a scenario whatever the homeserver does: measured with nothing but the HTTP server, or by hand in PostgreSQL.

use std::{cell::Cell, time::Duration};

use anyhow::ensure;
use futures_util::future::{try_join, try_join3};
use myelin_testing::TestDatabase;
use tokio::time::{sleep, sleep_until};
use tokio_postgres::Client;

use crate::{
    connection::{Account, Connection},
    crew::connections,
    meter::Meter,
    nothing::Nothing,
    report::{Outcome, Report},
    run::{Pace, at_once, measure_other, repeat},
    writer::{ROWS, TABLES, Writer},
};

/// What asks for them on the command line.
pub const NAME: &str = "floors";

/// As little as there is to be seen needs time to be seen.
const IDLE_LENGTH: Duration = Duration::from_secs(10);

/// How often those who wait are told something.
const NEWS_PER_SECOND: usize = 20;

/// What a cold initial sync reads, as in [`initial_sync`](crate::scenarios): rooms, events of the state of each, messages in each, and
/// how many of these are told; the others are counted.
const ROOMS: i64 = 300;
const STATE: i64 = 25;
const MESSAGES: i64 = 50;
const TOLD: i64 = 11;
/// Rooms that are read together.
const ROOMS_AT_ONCE: i64 = 64;
/// The bytes of an event.
const EVENT_BYTES: i64 = 700;

/// Measures them all.
pub async fn measure(length: Duration) -> anyhow::Result<Vec<Report>> {
    let database = TestDatabase::empty().await;
    let meter = Meter::new(&database).await?;
    let client = database.connect().await?;
    let mut reports = vec![idle(&meter).await?];
    for waiting in [10, 200] {
        reports.push(long_polls(&meter, waiting, length).await?);
    }
    reports.push(group(&meter, &client, length).await?);
    reports.push(writes(&meter, &database, length).await?);
    reports.push(cold_reads(&meter, &database, length).await?);

    Ok(reports)
}

/// An HTTP server that nobody asks anything. An operation is a second.
async fn idle(meter: &Meter) -> anyhow::Result<Report> {
    let nothing = Nothing::start().await?;
    let load = async {
        sleep(IDLE_LENGTH).await;
        Ok(Outcome {
            latencies: vec![Duration::ZERO; usize::try_from(IDLE_LENGTH.as_secs())?],
            ..Outcome::default()
        })
    };

    measure_other(meter, "floor_idle", nothing.groups(), load).await
}

/// Clients who wait for an answer, and wait again once they have it. An operation is one of them having it.
async fn long_polls(meter: &Meter, waiting: usize, length: Duration) -> anyhow::Result<Report> {
    let nothing = Nothing::start().await?;
    let clients = connections(&nothing.url, &vec![Account::default(); waiting]).await?;
    let mut teller = Connection::open(&nothing.url, &Account::default()).await?;
    let pace = Pace { per_second: NEWS_PER_SECOND, length };
    let is_over = Cell::new(false);
    let load = async {
        let start = std::time::Instant::now() + Duration::from_millis(100);
        let tell = async {
            for number in 0..=pace.times() {
                sleep_until(pace.due(start, number).into()).await;
                is_over.set(number == pace.times());
                ensure!(teller.request("GET", "/news", "").await? == 200, "no news were taken");
            }
            Ok(())
        };
        let wait = clients.into_iter().map(async |mut client| {
            let mut times = 0;
            while !is_over.get() {
                ensure!(client.request("GET", "/wait", "").await? == 200, "nobody may wait");
                times += 1;
            }
            Ok(times)
        });
        let (times, ()) = try_join(futures_util::future::try_join_all(wait), tell).await?;
        Ok(Outcome { latencies: vec![Duration::ZERO; times.into_iter().sum()], ..Outcome::default() })
    };

    measure_other(meter, &format!("floor_long_polls_{waiting}"), nothing.groups(), load).await
}

/// The transaction of a stream's writer. An operation is a row.
async fn group(meter: &Meter, client: &Client, length: Duration) -> anyhow::Result<Report> {
    client.batch_execute(TABLES).await?;
    let writer = Writer::prepare(client).await?;
    let load = async {
        let outcome = repeat(length, async |n| writer.write(n, ROWS).await).await?;
        let latencies = outcome.latencies.iter().flat_map(|latency| vec![*latency; ROWS]).collect();
        Ok(Outcome { latencies, errors: outcome.errors })
    };

    measure_other(meter, &format!("floor_postgres_group_of_{ROWS}"), Vec::new(), load).await
}

/// The same for as many clients, each of whom waits for a row by HTTP.
async fn writes(meter: &Meter, database: &TestDatabase, length: Duration) -> anyhow::Result<Report> {
    let nothing = Nothing::start_on(database.url()).await?;
    let clients = connections(&nothing.url, &vec![Account::default(); ROWS]).await?;
    let load = at_once(clients, async |_, mut connection: Connection| {
        repeat(length, async |_| Ok(connection.request("POST", "/write", "").await? == 200)).await
    });

    measure_other(meter, &format!("floor_writes_{ROWS}"), nothing.groups(), load).await
}

/// What a cold initial sync has to read, by a new connection: events of states by way of a table that tells which they are, the
/// last messages of each room, and how many others there are. An operation is all of it.
async fn cold_reads(meter: &Meter, database: &TestDatabase, length: Duration) -> anyhow::Result<Report> {
    // As they come to be: rooms one after the other, messages in all of them at the same time.
    let tables = format!(
        "CREATE TABLE events (room int8, number int8, pos int8, counts int2 NOT NULL, data text NOT NULL,
                              PRIMARY KEY (room, number));
         CREATE INDEX ON events (room, pos);
         CREATE TABLE state (room int8, key int8, number int8 NOT NULL, PRIMARY KEY (room, key));
         INSERT INTO events SELECT r, n, r * {STATE} + n, 0, repeat('x', {EVENT_BYTES})
           FROM generate_series(1, {ROOMS}) r, generate_series(1, {STATE}) n;
         INSERT INTO state SELECT room, number, number FROM events;
         INSERT INTO events SELECT r, {STATE} + m, {ROOMS} * ({STATE} + m) + r, 1, repeat('x', {EVENT_BYTES})
           FROM generate_series(1, {MESSAGES}) m, generate_series(1, {ROOMS}) r;
         ANALYZE"
    );
    const STATES: &str = "
        SELECT e.room, e.data FROM unnest($1::int8[]) q (room)
         CROSS JOIN LATERAL (SELECT number FROM state s WHERE s.room = q.room OFFSET 0) s
         CROSS JOIN LATERAL (SELECT * FROM events e WHERE e.room = q.room AND e.number = s.number OFFSET 0) e";
    const TIMELINES: &str = "
        SELECT e.room, e.data FROM unnest($1::int8[]) q (room)
         CROSS JOIN LATERAL (SELECT * FROM events e WHERE e.room = q.room ORDER BY e.pos DESC LIMIT $2) e";
    const COUNTS: &str = "
        SELECT q.room, count(*) FROM unnest($1::int8[]) q (room)
         CROSS JOIN LATERAL (SELECT * FROM events e WHERE e.room = q.room ORDER BY e.pos DESC OFFSET $2 LIMIT $3) e
         WHERE e.counts <> 0 GROUP BY q.room";

    database.connect().await?.batch_execute(&tables).await?;
    let load = async {
        repeat(length, async |_| {
            let client = database.connect().await?;
            client.batch_execute("SET jit = off; SET enable_memoize = off").await?;
            let (states, timelines, counts) =
                try_join3(client.prepare(STATES), client.prepare(TIMELINES), client.prepare(COUNTS)).await?;
            let all: Vec<i64> = (1..=ROOMS).collect();
            let mut rows = 0;
            for rooms in all.chunks(ROOMS_AT_ONCE as usize) {
                rows += client.query(&states, &[&rooms]).await?.len();
                rows += client.query(&timelines, &[&rooms, &TOLD]).await?.len();
                rows += client.query(&counts, &[&rooms, &TOLD, &MESSAGES]).await?.len();
            }
            Ok(rows as i64 == ROOMS * (STATE + TOLD + 1))
        })
        .await
    };

    measure_other(meter, "floor_postgres_cold_reads", Vec::new(), load).await
}
