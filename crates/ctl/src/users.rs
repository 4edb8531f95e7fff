//! `register-user`: an account made by who knows `registration_shared_secret`, also where registration is off.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use myelin_accounts::SharedSecretRegistration;
use myelin_config::{Config, Listener, ResourceName};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::{config, password::Source};

/// How long the server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The account to make.
#[derive(Debug, Args)]
pub(crate) struct Register {
    /// Files and folders of the configuration, which has the secret and where the server listens.
    #[arg(short, long = "config-path", visible_alias = "config", required_unless_present = "shared_secret")]
    config_path: Vec<PathBuf>,
    /// The secret, where the configuration is not at hand.
    #[arg(short = 'k', long)]
    shared_secret: Option<String>,
    /// The name, which becomes the part of the user ID before the colon.
    #[arg(short, long, visible_alias = "user")]
    username: String,
    #[command(flatten)]
    password: Source,
    /// Makes an administrator of the server.
    #[arg(short, long, overrides_with = "no_admin")]
    admin: bool,
    /// Makes an ordinary user, which is the default.
    #[arg(long, overrides_with = "admin")]
    no_admin: bool,
    /// `support` or `bot`, for users of a special kind.
    #[arg(short = 't', long, visible_alias = "user_type")]
    user_type: Option<String>,
    /// Succeeds if the name is taken.
    #[arg(long)]
    exists_ok: bool,
    /// Where the server is reached; by default the first listener of the configuration that serves clients.
    server_url: Option<String>,
}

#[derive(Deserialize)]
struct Nonce {
    nonce: String,
}

#[derive(Deserialize)]
struct Registered {
    user_id: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    errcode: String,
    error: String,
}

/// Registers the account and prints its user ID.
pub(crate) fn register(arguments: &Register) -> anyhow::Result<()> {
    let config = match arguments.config_path.as_slice() {
        [] => None,
        paths => Some(config::load(paths)?),
    };
    let secret = secret(arguments, config.as_ref())?;
    let url = match (&arguments.server_url, &config) {
        (Some(url), _) => url.trim_end_matches('/').to_owned(),
        (None, Some(config)) => url_of(config)?,
        (None, None) => "http://localhost:8008".to_owned(),
    };
    let password = arguments.password.read()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(send(arguments, &secret, &url, &password))
}

fn secret(arguments: &Register, config: Option<&Config>) -> anyhow::Result<String> {
    let configured = config.and_then(|config| config.registration.registration_shared_secret.as_ref());
    let secret = arguments.shared_secret.clone().or_else(|| Some(configured?.expose().to_owned()));
    secret.context(
        "the configuration has no `registration_shared_secret`; set one and restart the server, or register with a client",
    )
}

/// Where the server of a configuration listens for clients on this machine.
fn url_of(config: &Config) -> anyhow::Result<String> {
    let serves_clients =
        |listener: &&Listener| listener.port.is_some() && listener.serves(ResourceName::Client);
    let address = config.http.listeners.iter().find(serves_clients).and_then(Listener::address);
    let address = address.context(
        "no listener of the configuration serves clients on a port; say where the server is reached",
    )?;
    Ok(address.to_string())
}

#[expect(clippy::print_stdout, reason = "the user ID is what was asked for")]
async fn send(arguments: &Register, secret: &str, url: &str, password: &str) -> anyhow::Result<()> {
    let client = Client::builder().timeout(PATIENCE).build()?;
    let path = format!("{url}/_synapse/admin/v1/register");
    let answer = client.get(&path).send().await.with_context(|| format!("asking {url}"))?;
    let Nonce { nonce } = answer_of(answer).await?.json().await.context("reading the answer")?;

    let signed = SharedSecretRegistration {
        nonce: &nonce,
        username: &arguments.username,
        password,
        is_admin: arguments.admin,
        user_type: arguments.user_type.as_deref(),
    };
    let mut body = json!({
        "nonce": nonce,
        "username": arguments.username,
        "password": password,
        "admin": arguments.admin,
        // Nobody would use the session that it makes.
        "inhibit_login": true,
        "mac": signed.sign(secret),
    });
    if let Some(user_type) = &arguments.user_type {
        body["user_type"] = user_type.as_str().into();
    }
    let answer = client.post(&path).json(&body).send().await.with_context(|| format!("asking {url}"))?;
    if arguments.exists_ok && answer.status() == StatusCode::BAD_REQUEST {
        let refusal: Refusal = answer.json().await.unwrap_or_default();
        if refusal.errcode == "M_USER_IN_USE" {
            println!("{} is there already", arguments.username);
            return Ok(());
        }
        bail!("{}", refusal.error);
    }
    let registered: Registered = answer_of(answer).await?.json().await.context("reading the answer")?;
    println!("{}", registered.user_id);
    Ok(())
}

async fn answer_of(answer: Response) -> anyhow::Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let refusal: Refusal = answer.json().await.unwrap_or_default();
    match refusal.errcode.as_str() {
        "" => bail!("the server answered {status}, and not as a homeserver does"),
        errcode => bail!("{} ({errcode})", refusal.error),
    }
}
