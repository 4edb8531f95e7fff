//! What this machine takes for what no homeserver can do without: a request to a handler that does nothing, and a commit.

use std::time::{Duration, Instant};

use myelin_testing::TestDatabase;
use tokio_postgres::Client;

use crate::{
    connection::{Account, Connection},
    crew::connections,
    meter::Meter,
    nothing::Nothing,
    report::{Outcome, Report},
    run::{at_once, measure_other, repeat},
};

/// How many connections the handler has that all figures are compared with.
const CONNECTIONS: usize = 8;

/// How long a reference is measured at most: it holds still.
const LENGTH: Duration = Duration::from_secs(3);

/// The bytes of a row.
const ROW_BYTES: usize = 700;

/// How many rows share a commit.
const ROWS: usize = 100;

/// What figures are compared with.
#[derive(Clone, Copy, Debug, Default)]
pub struct References {
    empty_handler_ms: f64,
    /// What hashing one password takes, with the rounds that the homeserver under test is told.
    pub hashing_ms: f64,
}

impl References {
    /// A figure as a multiple of the empty handler's.
    pub fn as_multiple(self, milliseconds: f64) -> Option<f64> {
        let multiple = milliseconds / self.empty_handler_ms;

        multiple.is_finite().then(|| (multiple * 100.0).round() / 100.0)
    }

    /// Measures them.
    pub async fn measure(length: Duration) -> anyhow::Result<(Self, Vec<Report>)> {
        let length = length.min(LENGTH);
        let database = TestDatabase::empty().await;
        let meter = Meter::new(&database).await?;
        let mut reports = Vec::new();
        for connections in [1, CONNECTIONS] {
            reports.push(empty_handler(&meter, connections, length).await?);
        }
        let client = database.connect().await?;
        for rows in [1, ROWS] {
            reports.push(commit(&meter, &client, rows, length).await?);
        }
        let empty_handler_ms = reports[1].server_cpu_ms_per_op;

        Ok((Self { empty_handler_ms, hashing_ms: hashing().as_secs_f64() * 1e3 }, reports))
    }
}

/// A request that is read, goes to a handler that does nothing, and is answered, over some connections.
async fn empty_handler(meter: &Meter, count: usize, length: Duration) -> anyhow::Result<Report> {
    let nothing = Nothing::start().await?;
    let clients = connections(&nothing.url, &vec![Account::default(); count]).await?;
    let load = at_once(clients, async |_, mut connection: Connection| {
        repeat(length, async |_| Ok(connection.request("GET", "/nothing", "").await? == 200)).await
    });

    measure_other(meter, &format!("empty_handler_{count}"), nothing.groups(), load).await
}

/// Rows of a usual event's size, with two indexes, written over one connection: alone, or many in a commit. An operation is
/// a row.
async fn commit(meter: &Meter, client: &Client, rows: usize, length: Duration) -> anyhow::Result<Report> {
    const TABLE: &str = "
        DROP TABLE IF EXISTS rows;
        CREATE TABLE rows (number int8 PRIMARY KEY, room int8 NOT NULL, data text NOT NULL);
        CREATE UNIQUE INDEX ON rows (room, number)";
    const INSERT: &str = "
        INSERT INTO rows SELECT * FROM unnest($1::int8[], $2::int8[], $3::text[])";

    client.batch_execute(TABLE).await?;
    let statement = client.prepare(INSERT).await?;
    let data = vec!["x".repeat(ROW_BYTES); rows];
    let load = async {
        let commits = repeat(length, async |n| {
            let numbers: Vec<i64> = (n * rows..(n + 1) * rows).map(|number| number as i64).collect();
            let rooms: Vec<i64> = numbers.iter().map(|number| number * 7919 % 200).collect();
            let inserted = client.execute(&statement, &[&numbers, &rooms, &data]).await?;
            Ok(inserted == rows as u64)
        });
        let outcome = commits.await?;
        let latencies = outcome.latencies.iter().flat_map(|latency| vec![*latency; rows]).collect();
        Ok(Outcome { latencies, errors: outcome.errors })
    };

    measure_other(meter, &format!("postgres_commit_of_{rows}"), Vec::new(), load).await
}

/// The best of some times that hashing a password took.
fn hashing() -> Duration {
    const TIMES: usize = 20;

    let hash = || {
        let start = Instant::now();
        drop(bcrypt::hash("sender0", myelin_integration_tests::BCRYPT_ROUNDS));
        start.elapsed()
    };
    (0..TIMES).map(|_| hash()).min().unwrap_or_default()
}
