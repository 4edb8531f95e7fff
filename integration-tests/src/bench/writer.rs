//! A stream's writer by hand: what a transaction of some short rows takes at least, and a request that waits for it.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::{try_join, try_join3};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_postgres::{Client, NoTls, Statement, types::ToSql};

/// How many rows a stream's writer has in a transaction when eight clients write one after the other.
pub const ROWS: usize = 8;

/// What it writes to.
pub const TABLES: &str = "
    CREATE TABLE rows (room int8, person text, number int8 NOT NULL, PRIMARY KEY (room, person));
    CREATE INDEX ON rows (number);
    CREATE TABLE positions (stream text PRIMARY KEY, number int8 NOT NULL);
    INSERT INTO positions VALUES ('rows', 0);
    CREATE SEQUENCE numbers";

/// Numbers from a sequence; then, without waiting for answers, short rows over earlier ones of the same keys, a position, and the
/// commit.
pub struct Writer<'a> {
    client: &'a Client,
    numbers: Statement,
    rows: Statement,
    position: Statement,
}

impl<'a> Writer<'a> {
    /// Over a connection to a database with [`TABLES`].
    pub async fn prepare(client: &'a Client) -> anyhow::Result<Self> {
        const NUMBERS: &str = "SELECT nextval('numbers') FROM generate_series(1, $1::int8)";
        const ROWS_OVER: &str = "
            INSERT INTO rows SELECT * FROM unnest($1::int8[], $2::text[], $3::int8[])
                ON CONFLICT (room, person) DO UPDATE SET number = excluded.number";
        const POSITION: &str = "UPDATE positions SET number = $2 WHERE stream = $1";

        let (numbers, rows, position) =
            try_join3(client.prepare(NUMBERS), client.prepare(ROWS_OVER), client.prepare(POSITION)).await?;
        Ok(Self { client, numbers, rows, position })
    }

    /// The `n`th transaction, with so many rows. Gives whether it wrote them.
    pub async fn write(&self, n: usize, count: usize) -> anyhow::Result<bool> {
        let Self { client, .. } = self;
        let many = count as i64;
        let params: [&(dyn ToSql + Sync); 1] = [&many];
        let ((), taken) =
            try_join(client.batch_execute("BEGIN"), client.query(&self.numbers, &params)).await?;
        let ids: Vec<i64> = taken.iter().map(|row| row.get(0)).collect();
        let rooms: Vec<i64> = (0..many).collect();
        let people: Vec<String> = rooms.iter().map(|room| format!("@{room}-{}:x", n % 10)).collect();
        let written = async { client.execute(&self.rows, &[&rooms, &people, &ids]).await };
        let moved = async { client.execute(&self.position, &[&"rows", &ids[count - 1]]).await };
        let (written, _, ()) = try_join3(written, moved, client.batch_execute("COMMIT")).await?;
        Ok(written == count as u64)
    }
}

/// For how long it is waited for all of them: in the end some clients go before others.
const PATIENCE: Duration = Duration::from_millis(100);

/// Serves those who want a row written, [`ROWS`] in a transaction: it waits for as many, since as many clients ask.
pub async fn run(url: &str, mut queue: mpsc::Receiver<oneshot::Sender<()>>) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    let writer = Writer::prepare(&client).await?;
    let mut waiting = Vec::with_capacity(ROWS);
    for n in 0.. {
        waiting.extend(queue.recv().await);
        while waiting.len() < ROWS
            && let Ok(Some(one)) = timeout(PATIENCE, queue.recv()).await
        {
            waiting.push(one);
        }
        if waiting.is_empty() {
            return Ok(());
        }
        writer.write(n, waiting.len()).await?;
        // Who does not wait any more is of no interest.
        waiting.drain(..).for_each(|one| _ = one.send(()));
    }
    connection.await?.context("the connection")
}
