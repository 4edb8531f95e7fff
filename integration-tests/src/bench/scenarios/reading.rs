//! Reading a room's past and its members.

use anyhow::{Context as _, ensure};
use myelin_integration_tests::path_segment;

use crate::{
    crew::{connections, messages as say, rooms, users},
    run::{Run, at_once, repeat},
};

const READERS: usize = 8;

/// Pages backwards through a room, and again from its end.
pub async fn messages(run: &mut Run) -> anyhow::Result<()> {
    const MEMBERS: usize = 20;
    const EVENTS: usize = 1_000;
    const PAGE: usize = 50;

    let users = users(&run.server, "reader", MEMBERS).await?;
    let rooms = rooms(&run.server, &users, 1, MEMBERS).await?;
    say(&run.server, &users, &rooms, MEMBERS, EVENTS).await?;
    let base = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit={PAGE}", path_segment(&rooms[0]));
    let mut clients = connections(&run.server.url(), &users[..READERS]).await?;
    run.measure_warm("messages", async |length, _| {
        at_once(&mut clients, async |_, connection| {
            let mut from = String::new();
            repeat(length, async |n| {
                connection.ok("GET", &format!("{base}{from}"), "").await?;
                let page = connection.json()?;
                let events = page["chunk"].as_array().context("a page has events")?;
                ensure!(events.len() == PAGE, "a page has {} events", events.len());
                let end = page["end"].as_str().context("there is more")?;
                from = match (n + 1) % (EVENTS / PAGE) {
                    0 => String::new(),
                    _ => format!("&from={}", path_segment(end)),
                };
                Ok(true)
            })
            .await
        })
        .await
    })
    .await?;

    Ok(())
}

/// Asks for all members of a big room.
pub async fn members(run: &mut Run) -> anyhow::Result<()> {
    const MEMBERS: usize = 2_000;

    let users = users(&run.server, "member", MEMBERS).await?;
    let room = rooms(&run.server, &users, 1, MEMBERS).await?.remove(0);
    let path = format!("/_matrix/client/v3/rooms/{}/members", path_segment(&room));
    let mut clients = connections(&run.server.url(), &users[..READERS]).await?;
    clients[0].ok("GET", &path, "").await?;
    let told = clients[0].json()?["chunk"].as_array().map_or(0, Vec::len);
    ensure!(told == MEMBERS, "{told} members were told");
    run.measure_warm("members_2000", async |length, _| {
        at_once(&mut clients, async |_, connection| {
            repeat(length, async |_| {
                connection.ok("GET", &path, "").await?;
                // Each member has more than this.
                ensure!(connection.body().len() > MEMBERS * 200, "not all members were told");
                Ok(true)
            })
            .await
        })
        .await
    })
    .await?;

    Ok(())
}
