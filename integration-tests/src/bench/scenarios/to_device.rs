//! Messages to devices.

use serde_json::json;

use crate::{
    connection::Connection,
    crew::{Syncer, connections, syncers, users},
    run::{Run, at_once, repeat},
};

/// Pairs of whom one waits for what the other sends, and with the next sync says that it has come.
pub async fn to_device(run: &mut Run) -> anyhow::Result<()> {
    const PAIRS: usize = 8;

    let users = users(&run.server, "user", 2 * PAIRS).await?;
    let url = run.server.url();
    let senders = connections(&url, &users[..PAIRS]).await?;
    let receivers = syncers(&url, &users[PAIRS..]).await?;
    let mut pairs: Vec<(Connection, Syncer)> = senders.into_iter().zip(receivers).collect();
    run.measure_warm("to_device", async |length, round| {
        at_once(&mut pairs, async |_, (sender, receiver)| {
            repeat(length, async |n| {
                let text = format!("{round}{n}.");
                let target = receiver.connection.account().clone();
                let content = json!({ "algorithm": "m.olm.v1.curve25519-aes-sha2", "ciphertext": text });
                let body = json!({ "messages": { target.user_id: { target.device_id: content } } }).to_string();
                let path = format!("/_matrix/client/v3/sendToDevice/m.room.encrypted/{round}{n}");
                tokio::try_join!(
                    sender.ok("PUT", &path, &body),
                    receiver.until(|answer| answer.has(&text)),
                )?;
                Ok(true)
            })
            .await
        })
        .await
    })
    .await?;

    Ok(())
}
