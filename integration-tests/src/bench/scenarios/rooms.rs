//! Making rooms and filling them.

use anyhow::ensure;
use myelin_integration_tests::path_segment;
use serde_json::json;

use crate::{
    connection::{Account, Connection},
    crew::{connections, create_room, for_each, join, leave, users},
    run::{Run, at_once, repeat, repeat_at_most},
};

const AT_ONCE: usize = 8;

/// Makes one room after the other.
pub async fn create(run: &mut Run) -> anyhow::Result<()> {
    let users = users(&run.server, "creator", AT_ONCE).await?;
    let mut clients = connections(&run.server.url(), &users).await?;
    run.measure_warm("create_room", async |length, _| {
        at_once(&mut clients, async |_, connection| {
            repeat(length, async |n| {
                let body = json!({ "preset": "private_chat", "name": format!("Room {n}") });
                create_room(connection, &body.to_string()).await?;
                Ok(true)
            })
            .await
        })
        .await
    })
    .await?;

    Ok(())
}

/// Makes a room and fills it with ten people, over and over.
pub async fn invites_and_joins(run: &mut Run) -> anyhow::Result<()> {
    const MEMBERS: usize = 11;

    let users = users(&run.server, "user", AT_ONCE * MEMBERS).await?;
    let crews: Vec<&[Account]> = users.chunks(MEMBERS).collect();
    let mut clients = connections(&run.server.url(), crews.iter().map(|crew| &crew[0])).await?;
    run.measure_warm("invites_and_joins", async |length, _| {
        at_once(&mut clients, async |number, connection| {
            repeat(length, async |_| fill_room(connection, crews[number]).await.map(|()| true)).await
        })
        .await
    })
    .await?;

    Ok(())
}

async fn fill_room(connection: &mut Connection, crew: &[Account]) -> anyhow::Result<()> {
    let (creator, others) = crew.split_first().expect("a crew has someone");
    connection.act_as(creator);
    let room = create_room(connection, r#"{"preset":"private_chat"}"#).await?;
    for other in others {
        let path = format!("/_matrix/client/v3/rooms/{}/invite", path_segment(&room));
        connection.ok("POST", &path, &json!({ "user_id": other.user_id }).to_string()).await?;
    }
    for other in others {
        connection.act_as(other);
        join(connection, &room).await?;
    }

    Ok(())
}

/// People leave a big room and come back.
pub async fn membership_changes(run: &mut Run) -> anyhow::Result<()> {
    const MEMBERS: usize = 500;
    const CHANGES: usize = 500;

    let members = users(&run.server, "member", MEMBERS).await?;
    let mut clients = connections(&run.server.url(), &members[..AT_ONCE]).await?;
    clients[0].act_as(&members[0]);
    let room = create_room(&mut clients[0], r#"{"preset":"public_chat"}"#).await?;
    for_each(&run.server.url(), &members[1..], async |connection, _, member| {
        connection.act_as(member);
        join(connection, &room).await
    })
    .await?;
    let length = run.length.max(std::time::Duration::from_secs(60));
    let changes = at_once(&mut clients, async |client, connection| {
        repeat_at_most(length, CHANGES.div_ceil(AT_ONCE), async |n| {
            // Each client has members of its own, who leave and come back one after the other. The first, who made the
            // room, stays.
            let member = &members[1 + (client + n / 2 * AT_ONCE) % (MEMBERS - 1)];
            connection.act_as(member);
            if n % 2 == 0 {
                leave(connection, &room).await?
            } else {
                join(connection, &room).await?
            }
            Ok(true)
        })
        .await
    });
    run.measure("membership_500", changes).await?;

    clients[0].act_as(&members[0]);
    let path = format!("/_matrix/client/v3/rooms/{}/joined_members", path_segment(&room));
    clients[0].ok("GET", &path, "").await?;
    let joined = clients[0].json()?["joined"].as_object().map_or(0, serde_json::Map::len);
    // An odd number of changes leaves the last member of each client outside.
    let outside = CHANGES.div_ceil(AT_ONCE) % 2 * AT_ONCE;
    ensure!(joined == MEMBERS - outside, "{joined} members are left in the room");

    Ok(())
}
