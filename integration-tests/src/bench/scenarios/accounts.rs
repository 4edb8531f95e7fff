//! Registering, logging in, and being known. Passwords are hashed with as few rounds as bcrypt has; the report says what
//! that takes by itself.

use anyhow::ensure;
use serde_json::json;

use crate::{
    connection::Account,
    crew::{connections, users},
    run::{Run, at_once, repeat},
};

const CLIENTS: usize = 8;

/// Registers one user after the other.
pub async fn register(run: &mut Run) -> anyhow::Result<()> {
    let mut clients = connections(&run.server.url(), &vec![Account::default(); CLIENTS]).await?;
    let hashing = run.references.hashing_ms;
    let report = run.measure_warm("register", async |length, round| {
        at_once(&mut clients, async |client, connection| {
            repeat(length, async |n| {
                let account = crate::crew::register(connection, &format!("{round}{client}.{n}")).await?;
                Ok(!account.token.is_empty())
            })
            .await
        })
        .await
    });
    report.await?.hashing_cpu_ms_per_op = Some(hashing);

    Ok(())
}

/// Logs one device after the other in.
pub async fn login(run: &mut Run) -> anyhow::Result<()> {
    const USERS: usize = 400;

    let users = users(&run.server, "user", USERS).await?;
    let mut clients = connections(&run.server.url(), &vec![Account::default(); CLIENTS]).await?;
    let hashing = run.references.hashing_ms;
    let report = run.measure_warm("login", async |length, _| {
        at_once(&mut clients, async |client, connection| {
            repeat(length, async |n| {
                let number = (client + n * CLIENTS) % USERS;
                let body = json!({
                    "type": "m.login.password",
                    "identifier": { "type": "m.id.user", "user": users[number].user_id },
                    "password": format!("user{number}"),
                });
                connection.ok("POST", "/_matrix/client/v3/login", &body.to_string()).await?;
                let account = Account::from_login(&connection.json()?)?;
                Ok(account.user_id == users[number].user_id)
            })
            .await
        })
        .await
    });
    report.await?.hashing_cpu_ms_per_op = Some(hashing);

    Ok(())
}

/// Asks whose token it is.
pub async fn whoami(run: &mut Run) -> anyhow::Result<()> {
    let users = users(&run.server, "user", CLIENTS).await?;
    let mut clients = connections(&run.server.url(), &users).await?;
    run.measure_warm("whoami", async |length, _| {
        at_once(&mut clients, async |_, connection| {
            repeat(length, async |_| {
                connection.ok("GET", "/_matrix/client/v3/account/whoami", "").await?;
                ensure!(connection.has(&connection.account().user_id), "this is somebody else");
                Ok(true)
            })
            .await
        })
        .await
    })
    .await?;

    Ok(())
}
