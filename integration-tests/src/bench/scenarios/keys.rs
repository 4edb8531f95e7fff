//! End-to-end encryption's keys. They have the form of keys, not their meaning: the server doesn't look into them.

use anyhow::ensure;
use serde_json::{Map, Value, json};

use crate::{
    connection::{Account, Connection},
    crew::{connections, for_each, users},
    run::{Run, at_once, repeat, repeat_at_most},
};

const CLIENTS: usize = 8;

const UPLOAD: &str = "/_matrix/client/v3/keys/upload";

/// Uploads one-time keys, for another device each time: a device has some dozens of keys, not thousands.
pub async fn upload(run: &mut Run) -> anyhow::Result<()> {
    const DEVICES: usize = 2_000;
    const KEYS: usize = 10;

    let users = users_with_keys(run, DEVICES).await?;
    let mut clients = connections(&run.server.url(), &users[..CLIENTS]).await?;
    run.measure_warm("keys_upload", async |length, round| {
        at_once(&mut clients, async |client, connection| {
            repeat(length, async |n| {
                connection.act_as(&users[(client + n * CLIENTS) % DEVICES]);
                let keys = one_time_keys(connection.account(), &format!("{round}{n}."), KEYS);
                connection.ok("POST", UPLOAD, &keys).await?;
                ensure!(connection.has("signed_curve25519"), "the keys were not counted");
                Ok(true)
            })
            .await
        })
        .await
    })
    .await?;

    Ok(())
}

/// Asks for the keys of some users with a device each.
pub async fn query(run: &mut Run) -> anyhow::Result<()> {
    const USERS: usize = 20;

    let users = users_with_keys(run, USERS).await?;
    let asked: Map<String, Value> =
        users.iter().map(|user| (user.user_id.clone(), json!([user.device_id]))).collect();
    let body = json!({ "device_keys": asked }).to_string();
    let mut clients = connections(&run.server.url(), &users[..CLIENTS]).await?;
    run.measure_warm("keys_query", async |length, _| {
        at_once(&mut clients, async |_, connection| {
            repeat(length, async |_| {
                connection.ok("POST", "/_matrix/client/v3/keys/query", &body).await?;
                let all_there =
                    users.iter().all(|user| connection.has(&format!("ed25519:{}", user.device_id)));
                ensure!(all_there, "a device's keys are missing");
                Ok(true)
            })
            .await
        })
        .await
    })
    .await?;

    Ok(())
}

/// Claims one key after the other of many devices, as long as there are any.
pub async fn claim(run: &mut Run) -> anyhow::Result<()> {
    const DEVICES: usize = 800;
    const KEYS: usize = 50;

    let users = users_with_keys(run, DEVICES).await?;
    for_each(&run.server.url(), &users, async |connection, _, user| {
        connection.act_as(user);
        connection.ok("POST", UPLOAD, &one_time_keys(user, "", KEYS)).await
    })
    .await?;
    let mut clients = connections(&run.server.url(), &users[..CLIENTS]).await?;
    // Half of the keys, so that some are left in the end.
    let claims = KEYS * DEVICES / 2 / CLIENTS;
    let length = run.length;
    let load = at_once(&mut clients, async |client, connection| {
        repeat_at_most(length, claims, async |n| {
            let target = &users[(client + n * CLIENTS) % DEVICES];
            let wanted = json!({ &target.user_id: { &target.device_id: "signed_curve25519" } });
            let body = json!({ "one_time_keys": wanted }).to_string();
            connection.ok("POST", "/_matrix/client/v3/keys/claim", &body).await?;
            ensure!(connection.has("signed_curve25519:"), "no key of a device that has some");
            Ok(true)
        })
        .await
    });
    run.measure("keys_claim", load).await?;

    Ok(())
}

/// Users with a device each, whose keys are known.
async fn users_with_keys(run: &Run, count: usize) -> anyhow::Result<Vec<Account>> {
    let users = users(&run.server, "user", count).await?;
    for_each(&run.server.url(), &users, async |connection, _, user| {
        connection.act_as(user);
        upload_device_keys(connection).await
    })
    .await?;
    Ok(users)
}

/// The keys that name the device.
async fn upload_device_keys(connection: &mut Connection) -> anyhow::Result<()> {
    let Account { user_id, device_id, .. } = connection.account();
    let keys = json!({ "device_keys": {
        "user_id": user_id,
        "device_id": device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { format!("curve25519:{device_id}"): key(1), format!("ed25519:{device_id}"): key(2) },
        "signatures": signatures(user_id, device_id),
    }});

    connection.ok("POST", UPLOAD, &keys.to_string()).await
}

fn one_time_keys(account: &Account, prefix: &str, count: usize) -> String {
    let Account { user_id, device_id, .. } = account;
    let keys: Map<String, Value> = (0..count)
        .map(|n| {
            let key = json!({ "key": key(n), "signatures": signatures(user_id, device_id) });
            (format!("signed_curve25519:{prefix}{n}"), key)
        })
        .collect();

    json!({ "one_time_keys": keys }).to_string()
}

/// 32 bytes in unpadded Base64.
fn key(number: usize) -> String {
    format!("{number:042}A")
}

fn signatures(user_id: &str, device_id: &str) -> Value {
    let signature = "A".repeat(86);

    json!({ user_id: { format!("ed25519:{device_id}"): signature } })
}
