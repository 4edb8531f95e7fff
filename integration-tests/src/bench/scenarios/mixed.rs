//! Sessions as people have them: clients that wait for news, and people who now and then do something.

use std::{cell::RefCell, collections::HashSet};

use futures_util::future::try_join_all;
use myelin_integration_tests::path_segment;
use serde_json::json;

use super::ephemeral::{read, type_in};
use crate::{
    connection::Connection,
    crew::{connections, event_id, messages, rooms, send_path, syncers, users},
    run::{Pace, Run, paced},
};

const CLIENTS: usize = 60;
const ROOMS: usize = 10;
const PER_SECOND: usize = 40;
const EARLIER_MESSAGES: usize = 20;

/// How many kinds of actions there are, which take turns: send, receipt, typing, messages.
const KINDS: usize = 4;

/// All clients are in all rooms.
pub async fn mixed(run: &mut Run) -> anyhow::Result<()> {
    let users = users(&run.server, "user", CLIENTS).await?;
    let rooms = rooms(&run.server, &users, ROOMS, CLIENTS).await?;
    let earlier = messages(&run.server, &users, &rooms, CLIENTS, EARLIER_MESSAGES).await?;
    let newest: Vec<RefCell<String>> =
        earlier.into_iter().filter_map(|mut events| events.pop()).map(RefCell::new).collect();
    let url = run.server.url();
    let mut waiting = syncers(&url, &users).await?;
    let mut actors = connections(&url, &users).await?;
    run.measure_warm("mixed", async |length, round| {
        let pace = Pace { per_second: PER_SECOND, length };
        let acting = paced(pace, actors.iter_mut().collect(), async |connection, n| {
            let room = n / KINDS % ROOMS;
            connection.act_as(&users[n * 7 % CLIENTS]);
            let (id, newest) = (&rooms[room], &newest[room]);
            let newest_id = newest.borrow().clone();
            match n % KINDS {
                0 => say(connection, id, round, n, newest).await,
                1 => read(connection, id, &newest_id).await,
                2 => type_in(connection, id, (n / KINDS / ROOMS).is_multiple_of(2)).await,
                _ => look_back(connection, id).await,
            }
        });
        let messages = pace.times().div_ceil(KINDS);
        let wait = waiting.iter_mut().map(async |syncer| {
            let mut seen = HashSet::new();
            let all = syncer.until(|answer| {
                seen.extend(answer.numbers_after(&format!("{round} message ")));
                seen.len() == messages
            });
            all.await
        });
        Ok(tokio::try_join!(acting, try_join_all(wait))?.0)
    })
    .await?;

    Ok(())
}

async fn say(
    connection: &mut Connection,
    room: &str,
    round: &str,
    n: usize,
    newest: &RefCell<String>,
) -> anyhow::Result<bool> {
    let body = json!({ "msgtype": "m.text", "body": format!("{round} message {n}.") });
    let status =
        connection.request("PUT", &send_path(room, &format!("{round}{n}")), &body.to_string()).await?;
    if status == 200 {
        newest.replace(event_id(connection)?);
    }

    Ok(status == 200)
}

async fn look_back(connection: &mut Connection, room: &str) -> anyhow::Result<bool> {
    let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=20", path_segment(room));

    Ok(connection.request("GET", &path, "").await? == 200)
}
