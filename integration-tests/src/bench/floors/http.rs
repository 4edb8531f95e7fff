//! With nothing but the HTTP server.

use std::{cell::Cell, time::Duration};

use anyhow::ensure;
use futures_util::future::try_join;
use myelin_testing::TestDatabase;
use tokio::time::{sleep, sleep_until};

use crate::{
    connection::{Account, Connection},
    crew::connections,
    meter::Meter,
    nothing::Nothing,
    report::{Outcome, Report},
    run::{Pace, at_once, measure_other, repeat},
    writer::ROWS,
};

/// As little as there is to be seen needs time to be seen.
const IDLE_LENGTH: Duration = Duration::from_secs(10);

/// How often those who wait are told something.
const NEWS_PER_SECOND: usize = 20;

/// An HTTP server that nobody asks anything. An operation is a second.
pub async fn idle(meter: &Meter) -> anyhow::Result<Report> {
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
pub async fn long_polls(meter: &Meter, waiting: usize, length: Duration) -> anyhow::Result<Report> {
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

/// The transaction of a stream's writer for as many clients as it has rows, each of whom waits for one by HTTP.
pub async fn writes(meter: &Meter, database: &TestDatabase, length: Duration) -> anyhow::Result<Report> {
    let nothing = Nothing::start_on(database.url()).await?;
    let clients = connections(&nothing.url, &vec![Account::default(); ROWS]).await?;
    let load = at_once(clients, async |_, mut connection: Connection| {
        repeat(length, async |_| Ok(connection.request("POST", "/write", "").await? == 200)).await
    });

    measure_other(meter, &format!("floor_writes_{ROWS}"), nothing.groups(), load).await
}
