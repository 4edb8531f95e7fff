//! Messages that nobody waits for.

use anyhow::ensure;
use myelin_integration_tests::path_segment;

use crate::{
    connection::Connection,
    crew::{connections, event_id, member, rooms, send_path, users},
    run::{Run, at_once, repeat},
};

const TEXT: &str = r#"{"msgtype":"m.text","body":"The quick brown fox jumps over the lazy dog."}"#;

/// Senders, each in a room, each sending one message after the other.
pub async fn many_rooms(run: &mut Run, senders: usize) -> anyhow::Result<()> {
    const ROOMS: usize = 200;
    const MEMBERS: usize = 20;

    let users = users(&run.server, "sender", ROOMS).await?;
    let rooms = rooms(&run.server, &users, ROOMS, MEMBERS).await?;
    // Where there are more senders than rooms, a second member speaks.
    let sender = |n: usize| (n % ROOMS, member(&users, n % ROOMS, n / ROOMS));
    let mut clients = connections(&run.server.url(), (0..senders).map(|n| sender(n).1)).await?;
    run.measure_warm(&format!("send_{senders}"), async |length, round| {
        at_once(&mut clients, async |n, connection| {
            let room = &rooms[sender(n).0];
            repeat(length, async |message| say(connection, room, &format!("{round}{n}.{message}")).await)
                .await
        })
        .await
    })
    .await?;
    // The last sender who is alone in their room.
    let last = senders.min(ROOMS) - 1;

    check_newest(&mut clients[last], &rooms[last]).await
}

/// Senders in one big room.
pub async fn big_room(run: &mut Run) -> anyhow::Result<()> {
    const MEMBERS: usize = 2_000;
    const SENDERS: usize = 8;

    let users = users(&run.server, "member", MEMBERS).await?;
    let room = rooms(&run.server, &users, 1, MEMBERS).await?.remove(0);
    let mut clients = connections(&run.server.url(), &users[..SENDERS]).await?;
    run.measure_warm("send_big_room", async |length, round| {
        at_once(&mut clients, async |n, connection| {
            repeat(length, async |message| say(connection, &room, &format!("{round}{n}.{message}")).await)
                .await
        })
        .await
    })
    .await?;
    say(&mut clients[0], &room, "last").await?;

    check_newest(&mut clients[0], &room).await
}

/// Sends a message; whether it was taken.
async fn say(connection: &mut Connection, room: &str, transaction: &str) -> anyhow::Result<bool> {
    Ok(connection.request("PUT", &send_path(room, transaction), TEXT).await? == 200)
}

/// What the last answer said was sent is the newest event of the room.
async fn check_newest(connection: &mut Connection, room: &str) -> anyhow::Result<()> {
    let sent = event_id(connection)?;
    let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=1", path_segment(room));
    connection.ok("GET", &path, "").await?;
    let newest = &connection.json()?["chunk"][0]["event_id"];
    ensure!(*newest == sent, "{sent} was sent last, and {newest} is the room's newest event");

    Ok(())
}
