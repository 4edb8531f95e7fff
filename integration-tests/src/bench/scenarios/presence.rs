//! Presence: who is there.

use std::{collections::HashSet, time::Instant};

use anyhow::ensure;
use myelin_integration_tests::path_segment;
use serde_json::json;
use tokio::time::sleep_until;

use crate::{
    crew::{rooms, syncers, syncers_asking, users},
    report::Outcome,
    run::{Pace, Run, at_once},
};

/// Many wait in one room, in which some others change what they say of themselves. Those who wait say that they are not
/// there, so that their syncs change nothing.
pub async fn changes(run: &mut Run) -> anyhow::Result<()> {
    const WAITING: usize = 500;
    const CHANGING: usize = 10;
    const PER_SECOND: usize = 5;

    let users = users(&run.server, "user", WAITING + CHANGING).await?;
    rooms(&run.server, &users, 1, WAITING + CHANGING).await?;
    let url = run.server.url();
    let (changing, waiting) = users.split_at(CHANGING);
    // Those who change something are devices that sync, too.
    let mut changing = syncers(&url, changing).await?;
    let mut waiting = syncers_asking(&url, waiting, "&set_presence=offline").await?;
    run.measure_warm("presence", async |length, round| {
        let pace = Pace { per_second: PER_SECOND, length };
        let start = Instant::now();
        let change = async {
            for n in 0..pace.times() {
                sleep_until(pace.due(start, n).into()).await;
                let connection = &mut changing[n % CHANGING].connection;
                let path = format!(
                    "/_matrix/client/v3/presence/{}/status",
                    path_segment(&connection.account().user_id)
                );
                let body = json!({ "presence": "online", "status_msg": format!("{round} change {n}.") });
                let status = connection.request("PUT", &path, &body.to_string()).await?;
                ensure!(status == 200, "a presence was answered with {status}");
            }
            anyhow::Ok(())
        };
        let told = at_once(&mut waiting, async |_, syncer| {
            let mut outcome = Outcome::default();
            let mut seen = HashSet::new();
            let all = syncer.until(|answer| {
                for n in answer.numbers_after(&format!("{round} change ")) {
                    if seen.insert(n) {
                        outcome.latencies.push(pace.due(start, n).elapsed());
                    }
                }
                seen.len() == pace.times()
            });
            all.await?;
            Ok(outcome)
        });
        Ok(tokio::try_join!(change, told)?.1)
    })
    .await?;

    Ok(())
}
