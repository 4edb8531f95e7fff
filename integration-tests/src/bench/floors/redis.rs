//! With somebody who hears Redis and does nothing.

use std::{env, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use fred::{
    clients::Client,
    interfaces::{ClientLike as _, EventInterface as _, PubsubInterface as _},
    types::{
        Builder,
        config::{Config, ServerConfig},
    },
};
use myelin_testing::TestRedis;
use tokio::{process::Command, time::sleep};

use crate::{
    meter::Meter,
    processes::Group,
    report::{Outcome, Report},
    run::{Pace, measure_other, paced},
};

const CHANNEL: &str = "floor";

/// About as long as the notice of a message.
const NOTICE_BYTES: usize = 960;

/// How long it may take until it hears.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long messages come before they are measured.
const WARM_UP: Duration = Duration::from_secs(1);

fn client(socket: PathBuf) -> Builder {
    Builder::from_config(Config { server: ServerConfig::Unix { path: socket }, ..Config::default() })
}

/// What `--hear-nothing` does: subscribes, with the client and on as many threads as the daemons do, and forgets what it hears.
pub async fn hear(socket: PathBuf) -> anyhow::Result<()> {
    let subscriber = client(socket).build_subscriber_client()?;
    let mut messages = subscriber.message_rx();
    subscriber.init().await?;
    subscriber.subscribe(CHANNEL).await?;
    while messages.recv().await.is_ok() {}

    Ok(())
}

/// A process that is told so many messages a second which are no concern of it. An operation is a second.
pub async fn notices(meter: &Meter, per_second: usize, length: Duration) -> anyhow::Result<Report> {
    let redis = TestRedis::start();
    let program = env::current_exe().context("finding this program")?;
    let hearer = Command::new(program)
        .arg("--hear-nothing")
        .arg(redis.socket())
        .kill_on_drop(true)
        .spawn()
        .context("starting somebody who hears")?;
    let publisher = client(redis.socket()).build()?;
    publisher.init().await?;
    let notice = "x".repeat(NOTICE_BYTES);
    let deadline = std::time::Instant::now() + PATIENCE;
    while tell(&publisher, &notice).await? == 0 {
        ensure!(std::time::Instant::now() < deadline, "nobody hears");
        sleep(Duration::from_millis(10)).await;
    }
    let talk = async |length| {
        let all = paced(Pace { per_second, length }, vec![()], async |(), _| {
            Ok(tell(&publisher, &notice).await? == 1)
        });
        let told: Outcome = all.await?;
        ensure!(told.errors == 0, "{} messages were not heard", told.errors);
        Ok(Outcome::of(usize::try_from(length.as_secs())?))
    };
    talk(WARM_UP).await?;
    let groups = vec![Group::server("hearer", hearer.id().into_iter().collect())];

    measure_other(meter, &format!("floor_notices_{per_second}"), groups, talk(length)).await
}

/// How many heard it.
async fn tell(publisher: &Client, notice: &str) -> anyhow::Result<i64> {
    Ok(publisher.publish(CHANNEL, notice).await?)
}
