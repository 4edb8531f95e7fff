//! What lies below a scenario whatever the homeserver does: measured with nothing but the HTTP server, by hand in PostgreSQL, or with
//! somebody who hears Redis and does nothing.

use std::time::Duration;

use myelin_testing::TestDatabase;

use crate::{meter::Meter, report::Report};

mod http;
mod postgres;
mod redis;

pub use redis::hear;

/// What asks for them on the command line.
pub const NAME: &str = "floors";

/// Measures them all.
pub async fn measure(length: Duration) -> anyhow::Result<Vec<Report>> {
    let database = TestDatabase::empty().await;
    let meter = Meter::new(&database).await?;
    let mut reports = vec![http::idle(&meter).await?];
    for waiting in [10, 60, 200] {
        reports.push(http::long_polls(&meter, waiting, length).await?);
    }
    reports.push(postgres::group(&meter, &database, length).await?);
    reports.push(http::writes(&meter, &database, length).await?);
    reports.push(postgres::accounts(&meter, &database, length).await?);
    reports.push(postgres::memberships(&meter, &database, length).await?);
    reports.push(postgres::claims(&meter, &database, length).await?);
    reports.push(postgres::uploads(&meter, &database, length).await?);
    reports.push(postgres::pages(&meter, &database, length).await?);
    for told in [("floor_postgres_cold_reads", 11), ("floor_postgres_lazy_cold_reads", 20)] {
        reports.push(postgres::cold_reads(&meter, &database, length, told).await?);
    }
    for per_second in [40, 400] {
        reports.push(redis::notices(&meter, per_second, length).await?);
    }

    Ok(reports)
}
