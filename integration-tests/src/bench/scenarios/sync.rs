//! Syncs with nothing to tell.

use anyhow::ensure;

use crate::{
    crew::{rooms, syncers, users},
    run::{Run, at_once, repeat},
};

/// Users who ask for news when there is none.
pub async fn no_news(run: &mut Run) -> anyhow::Result<()> {
    const USERS: usize = 64;
    const ROOMS_OF_EACH: usize = 10;

    let users = users(&run.server, "syncer", USERS).await?;
    rooms(&run.server, &users, USERS, ROOMS_OF_EACH).await?;
    let mut syncers = syncers(&run.server.url(), &users).await?;
    run.measure_warm("sync_noop", async |length, _| {
        at_once(&mut syncers, async |_, syncer| {
            repeat(length, async |_| syncer.step(0).await.map(|()| true)).await
        })
        .await
    })
    .await?;
    let answer = syncers[0].connection.json()?;
    ensure!(answer["rooms"]["join"].as_object().is_none_or(serde_json::Map::is_empty), "there was news");

    Ok(())
}
