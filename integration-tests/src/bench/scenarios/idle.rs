//! What it costs to be there. An operation is a second.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::sleep;

use crate::{
    crew::{connections, rooms, send_path, users},
    report::Outcome,
    run::{Pace, Run, paced},
};

/// As little as there is to be seen needs time to be seen.
const LENGTH: Duration = Duration::from_secs(10);

const WARM_UP: Duration = Duration::from_secs(2);

/// A homeserver with nobody on it.
pub async fn idle(run: &mut Run) -> anyhow::Result<()> {
    run.server.is_told_by_name = true;
    let length = run.length.max(LENGTH);
    sleep(WARM_UP).await;
    run.measure("idle", async {
        sleep(length).await;
        seconds(length)
    })
    .await?;

    Ok(())
}

/// A worker that serves nobody while people talk at the other one: see `worker2` in the report.
pub async fn worker(run: &mut Run, per_second: usize) -> anyhow::Result<()> {
    const ROOMS: usize = 40;
    const MEMBERS: usize = 10;

    let busy = run.server.url_of("worker1").context("only a cluster has workers")?;
    run.server.is_told_by_name = true;
    let users = users(&run.server, "user", ROOMS).await?;
    let rooms = rooms(&run.server, &users, ROOMS, MEMBERS).await?;
    let mut clients = connections(&busy, &users).await?;
    run.measure_warm(&format!("idle_worker_{per_second}"), async |length, round| {
        let pace = Pace { per_second, length };
        let talk = paced(pace, clients.iter_mut().collect(), async |connection, n| {
            connection.act_as(&users[n % ROOMS]);
            let path = send_path(&rooms[n % ROOMS], &format!("{round}{n}"));
            Ok(connection.request("PUT", &path, r#"{"msgtype":"m.text","body":"Hello there."}"#).await?
                == 200)
        });
        let talked = talk.await?;
        ensure!(talked.errors == 0, "{} messages were refused", talked.errors);
        seconds(length)
    })
    .await?;

    Ok(())
}

fn seconds(length: Duration) -> anyhow::Result<Outcome> {
    Ok(Outcome::of(usize::try_from(length.as_secs())?))
}
