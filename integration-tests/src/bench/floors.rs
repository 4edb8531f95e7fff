//! What lies below a scenario whatever the homeserver does: measured with nothing but the HTTP server, or by hand in PostgreSQL.

use std::{cell::Cell, time::Duration};

use anyhow::ensure;
use futures_util::future::{try_join, try_join3};
use myelin_testing::TestDatabase;
use tokio::time::{sleep, sleep_until};
use tokio_postgres::{Client, types::ToSql};

use crate::{
    connection::{Account, Connection},
    crew::connections,
    meter::Meter,
    nothing::Nothing,
    report::{Outcome, Report},
    run::{Pace, measure_other, repeat},
};

/// What asks for them on the command line.
pub const NAME: &str = "floors";

/// As little as there is to be seen needs time to be seen.
const IDLE_LENGTH: Duration = Duration::from_secs(10);

/// How often those who wait are told something.
const NEWS_PER_SECOND: usize = 20;

/// How many rows a stream's writer has in a transaction when eight clients write one after the other.
const ROWS: usize = 4;

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

/// The transaction of a stream's writer: numbers from a sequence; then, without waiting for answers, short rows over earlier ones
/// of the same keys, a position, and the commit. An operation is a row.
async fn group(meter: &Meter, client: &Client, length: Duration) -> anyhow::Result<Report> {
    const TABLES: &str = "
        CREATE TABLE rows (room int8, person text, number int8 NOT NULL, PRIMARY KEY (room, person));
        CREATE INDEX ON rows (number);
        CREATE TABLE positions (stream text PRIMARY KEY, number int8 NOT NULL);
        INSERT INTO positions VALUES ('rows', 0);
        CREATE SEQUENCE numbers";
    const NUMBERS: &str = "SELECT nextval('numbers') FROM generate_series(1, $1::int8)";
    const ROWS_OVER: &str = "
        INSERT INTO rows SELECT * FROM unnest($1::int8[], $2::text[], $3::int8[])
            ON CONFLICT (room, person) DO UPDATE SET number = excluded.number";
    const POSITION: &str = "UPDATE positions SET number = $2 WHERE stream = $1";

    client.batch_execute(TABLES).await?;
    let numbers = client.prepare(NUMBERS).await?;
    let rows = client.prepare(ROWS_OVER).await?;
    let position = client.prepare(POSITION).await?;
    let load = async {
        let transactions = repeat(length, async |n| {
            let begun = client.batch_execute("BEGIN");
            let count = ROWS as i64;
            let params: [&(dyn ToSql + Sync); 1] = [&count];
            let ((), taken) = try_join(begun, client.query(&numbers, &params)).await?;
            let ids: Vec<i64> = taken.iter().map(|row| row.get(0)).collect();
            let rooms: Vec<i64> = (0..ROWS).map(|row| row as i64).collect();
            let people: Vec<String> = rooms.iter().map(|room| format!("@{room}-{}:x", n % 10)).collect();
            let written = async { client.execute(&rows, &[&rooms, &people, &ids]).await };
            let moved = async { client.execute(&position, &[&"rows", &ids[ROWS - 1]]).await };
            let (written, _, ()) = try_join3(written, moved, client.batch_execute("COMMIT")).await?;
            Ok(written == ROWS as u64)
        });
        let outcome = transactions.await?;
        let latencies = outcome.latencies.iter().flat_map(|latency| vec![*latency; ROWS]).collect();
        Ok(Outcome { latencies, errors: outcome.errors })
    };

    measure_other(meter, &format!("floor_postgres_group_of_{ROWS}"), Vec::new(), load).await
}
