//! The first sync of a user in many rooms: right after the homeserver's start, and again.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use myelin_integration_tests::path_segment;
use serde_json::Value;

use crate::{
    connection::{Account, Connection},
    crew::{messages, rooms, sync, users},
    run::{Run, repeat},
};

const ROOMS: usize = 300;
const MEMBERS: usize = 20;
const MESSAGES: usize = 50;

/// How many events of a room a client is told unless it asks for another number.
const DEFAULT_LIMIT: usize = 10;

const LAZY_LIMIT: usize = 20;
const LAZY: &str = r#"{"room":{"timeline":{"limit":20},"state":{"lazy_load_members":true}}}"#;

/// With all members and a usual timeline, and with lazy members and a longer one.
pub async fn initial_sync(run: &mut Run) -> anyhow::Result<()> {
    let users = users(&run.server, "member", MEMBERS).await?;
    let rooms = rooms(&run.server, &users, ROOMS, MEMBERS).await?;
    messages(&run.server, &users, &rooms, MEMBERS, MESSAGES).await?;

    cold_and_warm(run, &users[0], "initial_sync", "", DEFAULT_LIMIT).await?;
    let lazy = format!("&filter={}", path_segment(LAZY));
    cold_and_warm(run, &users[0], "initial_sync_lazy", &lazy, LAZY_LIMIT).await
}

async fn cold_and_warm(
    run: &mut Run,
    user: &Account,
    name: &str,
    query: &str,
    limit: usize,
) -> anyhow::Result<()> {
    run.server.stop().await;
    run.server.start_again().await;
    let mut connection = Connection::open(&run.server.url(), user).await?;
    for (temperature, length) in [("cold", Duration::ZERO), ("warm", run.length)] {
        let syncs = repeat(length, async |_| sync(&mut connection, query).await.map(|_| true));
        run.measure(&format!("{name}_{temperature}"), syncs).await?;
        check(&connection.json()?, limit)?;
    }

    Ok(())
}

fn check(answer: &Value, limit: usize) -> anyhow::Result<()> {
    let rooms = answer["rooms"]["join"].as_object().context("an initial sync has rooms")?;
    ensure!(rooms.len() == ROOMS, "{} rooms were told", rooms.len());
    for (room, section) in rooms {
        let events = section["timeline"]["events"].as_array().map_or(0, Vec::len);
        ensure!(events == limit, "{events} events of {room} were told");
    }

    Ok(())
}
