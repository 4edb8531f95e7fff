//! A stream of words, and processes that write and read it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use myelin_leases::Session;
use myelin_replication::{Feed, Stamped, Stream, StreamWriter, Topic};
use myelin_storage::{Client, Database, Result, Write, query};
use myelin_testing::MigratedDatabase;
use myelin_types::{Position, StreamId, WriterId};

/// Words, on the receipts stream's sequence; "bad" is refused by the table.
pub struct Words;

impl Stream for Words {
    const NAME: &'static str = "receipts";
    type Row = String;

    /// The first letter; what is shouted is for all.
    fn about(word: &String) -> Option<Topic> {
        let of = word.bytes().next()?.into();
        Some(Topic { of, for_all: word.ends_with('!') })
    }

    async fn persist(db: &impl Write, rows: &[Stamped<String>]) -> Result<()> {
        const SQL: &str = "INSERT INTO words SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::text[])";
        let ids: Vec<i64> = rows.iter().map(|row| row.id.0).collect();
        let writers: Vec<i16> = rows.iter().map(|row| row.writer.0).collect();
        let words: Vec<&str> = rows.iter().map(|row| row.row.as_str()).collect();
        db.write(SQL, &[&ids, &writers, &words]).await
    }

    async fn since(
        client: &Client,
        after: &Position,
        upto: &Position,
        limit: i64,
    ) -> Result<Vec<Stamped<String>>> {
        const SQL: &str = "
            SELECT stream_id, writer_id, word FROM words WHERE stream_id > $1 AND stream_id <= $2
             ORDER BY stream_id LIMIT $3";
        let rows = query(client, SQL, &[&after.minimum().0, &upto.maximum().0, &limit]).await?;
        let rows = rows.iter().map(|row| Stamped {
            id: StreamId(row.get(0)),
            writer: WriterId(row.get(1)),
            row: row.get(2),
        });
        Ok(rows.filter(|row| upto.covers(row.writer, row.id)).collect())
    }
}

pub struct Process {
    pub session: Session,
    pub feed: Feed<Words>,
    pub writer: StreamWriter<Words>,
    pub seen: Arc<Mutex<Vec<String>>>,
}

pub async fn database() -> MigratedDatabase {
    let database = MigratedDatabase::create().await;
    let client = database.get().await.unwrap();
    const WORDS: &str = "
        CREATE TABLE words (stream_id bigint PRIMARY KEY, writer_id smallint, word text CHECK (word <> 'bad'))";
    client.batch_execute(WORDS).await.unwrap();
    database
}

pub async fn process(database: &MigratedDatabase, name: &str) -> Process {
    process_on((**database).clone(), name).await
}

/// A process that reaches its database in a way of its own.
pub async fn process_on(pool: Database, name: &str) -> Process {
    let session = Session::register(pool.clone(), name, &[Words::NAME], Duration::ZERO).await;
    let session = session.expect("a free name");
    let feed = Feed::<Words>::open(pool.clone()).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    feed.subscribe(move |batch| sink.lock().unwrap().extend(batch.rows.iter().map(|row| row.row.clone())));
    let writer = StreamWriter::start(pool, session.clone(), feed.clone());
    Process { session, feed, writer, seen }
}

pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Process {
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}
