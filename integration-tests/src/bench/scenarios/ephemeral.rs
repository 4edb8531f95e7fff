//! Receipts and typing notifications.

use anyhow::Context as _;
use futures_util::future::try_join_all;
use myelin_integration_tests::path_segment;
use serde_json::json;

use crate::{
    connection::Connection,
    crew::{connections, member, messages, rooms, send_path, syncers, users},
    run::{Pace, Run, at_once, paced, repeat, repeat_at_most},
};

const ROOMS: usize = 8;
const MEMBERS: usize = 10;

/// Members read one message after the other.
pub async fn receipts(run: &mut Run) -> anyhow::Result<()> {
    const EVENTS: usize = 1_200;
    /// The measurement begins behind what was read while warming up.
    const FIRST: usize = 300;

    let users = users(&run.server, "reader", ROOMS * MEMBERS).await?;
    let rooms = rooms(&run.server, &users, ROOMS, MEMBERS).await?;
    let events = messages(&run.server, &users, &rooms, MEMBERS, EVENTS).await?;
    let mut clients = connections(&run.server.url(), &users[..ROOMS]).await?;
    run.measure_warm("receipts", async |length, round| {
        let range = if round == "warm" { 0..FIRST } else { FIRST..EVENTS };
        at_once(&mut clients, async |n, connection| {
            repeat_at_most(length, range.len() * MEMBERS, async |time| {
                connection.act_as(member(&users, n, time % MEMBERS));
                read(connection, &rooms[n], &events[n][range.start + time / MEMBERS]).await
            })
            .await
        })
        .await
    })
    .await?;

    Ok(())
}

/// Members begin and end to type.
pub async fn typing(run: &mut Run) -> anyhow::Result<()> {
    let users = users(&run.server, "typist", ROOMS * MEMBERS).await?;
    let rooms = rooms(&run.server, &users, ROOMS, MEMBERS).await?;
    let mut clients = connections(&run.server.url(), &users[..ROOMS]).await?;
    run.measure_warm("typing", async |length, _| {
        at_once(&mut clients, async |n, connection| {
            repeat(length, async |time| {
                connection.act_as(member(&users, n, time % MEMBERS));
                type_in(connection, &rooms[n], (time / MEMBERS).is_multiple_of(2)).await
            })
            .await
        })
        .await
    })
    .await?;

    Ok(())
}

/// Members of one room read and type in turns, and all of them wait for the news of that.
pub async fn storm(run: &mut Run) -> anyhow::Result<()> {
    const PER_SECOND: usize = 20;
    /// As many receipts of each member, and as many changes of typing, go to one message.
    const ACTIONS_PER_EVENT: usize = 2 * MEMBERS;
    const FIRST: usize = 10;

    let users = users(&run.server, "user", MEMBERS).await?;
    let rooms = rooms(&run.server, &users, 1, MEMBERS).await?;
    let times = Pace { per_second: PER_SECOND, length: run.length }.times();
    let count = FIRST + times / ACTIONS_PER_EVENT + 1;
    let events = messages(&run.server, &users, &rooms, MEMBERS, count).await?.remove(0);
    let room = &rooms[0];
    let url = run.server.url();
    let mut waiting = syncers(&url, &users).await?;
    let mut last = connections(&url, &users[..1]).await?.remove(0);
    let mut actors = connections(&url, &users).await?;
    run.measure_warm("ephemeral_storm", async |length, round| {
        let pace = Pace { per_second: PER_SECOND, length };
        let first = if round == "warm" { 0 } else { FIRST };
        let event_of = |n: usize| events.get(first + n / ACTIONS_PER_EVENT).context("messages are enough");
        let storm = async {
            let outcome = paced(pace, actors.iter_mut().collect(), async |connection, n| {
                connection.act_as(&users[n % MEMBERS]);
                match n / MEMBERS % 2 {
                    0 => read(connection, room, event_of(n)?).await,
                    _ => type_in(connection, room, (n / ACTIONS_PER_EVENT).is_multiple_of(2)).await,
                }
            });
            let outcome = outcome.await?;
            let body = json!({ "msgtype": "m.text", "body": format!("the end, {round}") });
            last.ok("PUT", &send_path(room, &format!("end-{round}")), &body.to_string()).await?;
            anyhow::Ok(outcome)
        };
        // The newest message that somebody has read.
        let newest = event_of(pace.times().saturating_sub(1))?;
        let wait = waiting.iter_mut().map(async |syncer| {
            let mut seen = [false; 3];
            let wanted = [newest, "m.typing", &format!("the end, {round}")];
            syncer
                .until(|answer| {
                    seen.iter_mut().zip(wanted).for_each(|(seen, wanted)| *seen |= answer.has(wanted));
                    seen == [true; 3]
                })
                .await
        });
        Ok(tokio::try_join!(storm, try_join_all(wait))?.0)
    })
    .await?;

    Ok(())
}

/// Says that a message was read.
pub async fn read(connection: &mut Connection, room: &str, event_id: &str) -> anyhow::Result<bool> {
    let (room, event_id) = (path_segment(room), path_segment(event_id));
    let path = format!("/_matrix/client/v3/rooms/{room}/receipt/m.read/{event_id}");

    Ok(connection.request("POST", &path, "{}").await? == 200)
}

/// Says that somebody begins or ends to type.
pub async fn type_in(connection: &mut Connection, room: &str, begins: bool) -> anyhow::Result<bool> {
    let user = path_segment(&connection.account().user_id);
    let path = format!("/_matrix/client/v3/rooms/{}/typing/{user}", path_segment(room));
    let body = if begins { r#"{"typing":true,"timeout":30000}"# } else { r#"{"typing":false}"# };

    Ok(connection.request("PUT", &path, body).await? == 200)
}
