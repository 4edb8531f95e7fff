//! By hand in PostgreSQL.

use std::time::Duration;

use futures_util::future::{try_join, try_join_all, try_join3};
use myelin_testing::TestDatabase;
use tokio_postgres::Client;

use crate::{
    meter::Meter,
    report::{Outcome, Report},
    run::{at_once, measure_other, repeat},
    writer::{ROWS, TABLES, Writer},
};

/// What a cold initial sync reads, as in [`initial_sync`](crate::scenarios): rooms, events of the state of each, and messages in each.
const ROOMS: i64 = 300;
const STATE: i64 = 25;
const MESSAGES: i64 = 50;
/// Rooms that are read together.
const ROOMS_AT_ONCE: i64 = 64;
/// The bytes of an event.
const EVENT_BYTES: i64 = 700;
/// Those who ask at once.
const CLIENTS: usize = 8;
/// One-time keys that are uploaded together.
const UPLOADED: i64 = 10;
/// One-time keys that can be claimed.
const KEYS: i64 = 40_000;
/// Events of the room that is read, and of a page of it.
const TIMELINE: i64 = 1_000;
const PAGE: i64 = 50;

/// The transaction of a stream's writer. An operation is a row.
pub async fn group(meter: &Meter, database: &TestDatabase, length: Duration) -> anyhow::Result<Report> {
    let client = database.connect().await?;
    client.batch_execute(TABLES).await?;
    let writer = Writer::prepare(&client).await?;
    let load = async {
        let outcome = repeat(length, async |n| writer.write(n, ROWS).await).await?;
        Ok(per_row(outcome))
    };

    measure_other(meter, &format!("floor_postgres_group_of_{ROWS}"), Vec::new(), load).await
}

/// An account and its first session: a row with a key in each of four tables, and one that is looked up by, in one statement. Eight
/// at once, each over a connection of its own.
pub async fn accounts(meter: &Meter, database: &TestDatabase, length: Duration) -> anyhow::Result<Report> {
    const ACCOUNT_TABLES: &str = "
        CREATE TABLE people (name text PRIMARY KEY, password text NOT NULL, made int8 NOT NULL);
        CREATE TABLE profiles (name text PRIMARY KEY, profile text NOT NULL);
        CREATE TABLE devices (name text, device text, seen int8 NOT NULL, PRIMARY KEY (name, device));
        CREATE TABLE tokens (hash bytea PRIMARY KEY, name text NOT NULL, device text NOT NULL);
        CREATE INDEX ON tokens (name, device)";
    const ACCOUNT: &str = "
        WITH person AS (INSERT INTO people VALUES ($1, repeat('x', 60), 0)),
             profile AS (INSERT INTO profiles VALUES ($1, '{}')),
             device AS (INSERT INTO devices VALUES ($1, 'ABCDEFGHIJ', 0))
        INSERT INTO tokens VALUES (sha256($1::text::bytea), $1, 'ABCDEFGHIJ')";

    database.connect().await?.batch_execute(ACCOUNT_TABLES).await?;
    let clients = try_join_all((0..CLIENTS).map(|_| database.connect())).await?;
    let load = at_once(clients, async |number, client: Client| {
        let statement = client.prepare(ACCOUNT).await?;
        repeat(length, async |n| Ok(client.execute(&statement, &[&format!("@{number}-{n}:x")]).await? == 1))
            .await
    });

    measure_other(meter, "floor_postgres_accounts", Vec::new(), load).await
}

/// Memberships of eight rooms: an event with two indexes, a row of the current state and one of the member for each, over the ones
/// before, in one transaction of two round trips. An operation is a membership.
pub async fn memberships(meter: &Meter, database: &TestDatabase, length: Duration) -> anyhow::Result<Report> {
    const MEMBER_TABLES: &str = "
        CREATE TABLE member_events (room int8, number int8, pos int8 NOT NULL, id text NOT NULL, data text NOT NULL,
                                    PRIMARY KEY (room, number));
        CREATE INDEX ON member_events (room, pos);
        CREATE TABLE member_states (room int8, key int8, number int8 NOT NULL, PRIMARY KEY (room, key));
        CREATE TABLE members (person int8, room int8, membership int2 NOT NULL, number int8 NOT NULL,
                              PRIMARY KEY (person, room));
        CREATE INDEX ON members (room, membership);
        CREATE SEQUENCE member_numbers";
    const NUMBERS: &str = "SELECT nextval('member_numbers') FROM generate_series(1, $1::int8)";
    const EVENTS: &str = "
        INSERT INTO member_events SELECT r, n, n, '$' || n || repeat('x', 40), repeat('x', 800)
          FROM unnest($1::int8[], $2::int8[]) q (r, n)";
    const STATES: &str = "
        INSERT INTO member_states SELECT r, $3::int8, n FROM unnest($1::int8[], $2::int8[]) q (r, n)
            ON CONFLICT (room, key) DO UPDATE SET number = excluded.number";
    const MEMBERS: &str = "
        INSERT INTO members SELECT $3::int8, r, n % 2, n FROM unnest($1::int8[], $2::int8[]) q (r, n)
            ON CONFLICT (person, room) DO UPDATE SET membership = excluded.membership, number = excluded.number";

    let client = database.connect().await?;
    client.batch_execute(MEMBER_TABLES).await?;
    let numbers = client.prepare(NUMBERS).await?;
    let (events, states, members) =
        try_join3(client.prepare(EVENTS), client.prepare(STATES), client.prepare(MEMBERS)).await?;
    let rooms: Vec<i64> = (0..ROWS as i64).collect();
    let load = async {
        let outcome = repeat(length, async |n| {
            let person = n as i64 / 2;
            let ((), taken) =
                try_join(client.batch_execute("BEGIN"), client.query(&numbers, &[&(ROWS as i64)])).await?;
            let ids: Vec<i64> = taken.iter().map(|row| row.get(0)).collect();
            let written = try_join3(
                async { client.execute(&events, &[&rooms, &ids]).await },
                async { client.execute(&states, &[&rooms, &ids, &person]).await },
                async { client.execute(&members, &[&rooms, &ids, &person]).await },
            );
            let (written, ()) = try_join(written, client.batch_execute("COMMIT")).await?;
            Ok(written == (ROWS as u64, ROWS as u64, ROWS as u64))
        });
        Ok(per_row(outcome.await?))
    };

    measure_other(meter, &format!("floor_postgres_memberships_of_{ROWS}"), Vec::new(), load).await
}

/// Claims of a one-time key from each of eight devices, in a transaction of two round trips. An operation is a key.
pub async fn claims(meter: &Meter, database: &TestDatabase, length: Duration) -> anyhow::Result<Report> {
    let tables = format!(
        "CREATE TABLE keys (device int8, number int8, key text NOT NULL, PRIMARY KEY (device, number));
         INSERT INTO keys SELECT d, n, repeat('x', 200) FROM generate_series(0, {ROWS} - 1) d, generate_series(1, {KEYS}) n;
         CREATE TABLE counts (stream text PRIMARY KEY, number int8 NOT NULL);
         INSERT INTO counts VALUES ('keys', 0);
         ANALYZE keys"
    );
    const CLAIM: &str = "
        DELETE FROM keys USING unnest($1::int8[]) q (d) WHERE device = d AND number = $2 RETURNING key";
    const COUNT: &str = "UPDATE counts SET number = $2 WHERE stream = $1";

    let client = database.connect().await?;
    client.batch_execute(&tables).await?;
    let (claim, count) = try_join(client.prepare(CLAIM), client.prepare(COUNT)).await?;
    let devices: Vec<i64> = (0..ROWS as i64).collect();
    let load = async {
        let outcome = repeat(length, async |n| {
            let number = n as i64 + 1;
            let ((), keys) =
                try_join(client.batch_execute("BEGIN"), client.query(&claim, &[&devices, &number])).await?;
            try_join(
                async { client.execute(&count, &[&"keys", &number]).await },
                client.batch_execute("COMMIT"),
            )
            .await?;
            Ok(keys.len() == ROWS)
        });
        Ok(per_row(outcome.await?))
    };

    measure_other(meter, &format!("floor_postgres_claims_of_{ROWS}"), Vec::new(), load).await
}

/// Uploads of ten one-time keys by each of eight devices: rows with two indexes and a position, in one transaction. An operation is an
/// upload.
pub async fn uploads(meter: &Meter, database: &TestDatabase, length: Duration) -> anyhow::Result<Report> {
    const UPLOAD_TABLES: &str = "
        CREATE TABLE new_keys (person text, device text, name text, number int8 GENERATED ALWAYS AS IDENTITY,
                               key text NOT NULL, PRIMARY KEY (person, device, name));
        CREATE INDEX ON new_keys (person, device, number);
        CREATE TABLE uploads (stream text PRIMARY KEY, number int8 NOT NULL);
        INSERT INTO uploads VALUES ('keys', 0)";
    const UPLOAD: &str = "
        INSERT INTO new_keys (person, device, name, key)
        SELECT '@user' || d || ':x', 'ABCDEFGHIJ', 'signed_curve25519:' || $2::int8 || '.' || n, repeat('x', 240)
          FROM unnest($1::int8[]) q (d), generate_series(1, $3::int8) n";
    const MOVE: &str = "UPDATE uploads SET number = $2 WHERE stream = $1";

    let client = database.connect().await?;
    client.batch_execute(UPLOAD_TABLES).await?;
    let (upload, advance) = try_join(client.prepare(UPLOAD), client.prepare(MOVE)).await?;
    let load = async {
        let outcome = repeat(length, async |n| {
            let number = n as i64;
            // As in the scenario, a device comes again after some hundred others.
            let devices: Vec<i64> =
                (0..ROWS as i64).map(|device| (number * ROWS as i64 + device) % 2_000).collect();
            let ((), written) = try_join(client.batch_execute("BEGIN"), async {
                client.execute(&upload, &[&devices, &number, &UPLOADED]).await
            })
            .await?;
            try_join(
                async { client.execute(&advance, &[&"keys", &number]).await },
                client.batch_execute("COMMIT"),
            )
            .await?;
            Ok(written == ROWS as u64 * UPLOADED as u64)
        });
        Ok(per_row(outcome.await?))
    };

    measure_other(meter, &format!("floor_postgres_uploads_of_{ROWS}"), Vec::new(), load).await
}

/// A page of a room, by eight readers.
pub async fn pages(meter: &Meter, database: &TestDatabase, length: Duration) -> anyhow::Result<Report> {
    let tables = format!(
        "CREATE TABLE pages (room int8, number int8, pos int8, id text NOT NULL, data text NOT NULL,
                             PRIMARY KEY (room, number));
         CREATE INDEX ON pages (room, pos);
         INSERT INTO pages SELECT 1, n, n, '$' || n || repeat('x', 40), repeat('x', {EVENT_BYTES})
           FROM generate_series(1, {TIMELINE}) n;
         ANALYZE pages"
    );
    const READ: &str =
        "SELECT pos, id, data FROM pages WHERE room = $1 AND pos <= $2 ORDER BY pos DESC LIMIT $3";

    database.connect().await?.batch_execute(&tables).await?;
    let clients = try_join_all((0..CLIENTS).map(|_| database.connect())).await?;
    let load = at_once(clients, async |_, client: Client| {
        let statement = client.prepare(READ).await?;
        repeat(length, async |n| {
            let from = TIMELINE - n as i64 * PAGE % (TIMELINE - PAGE);
            Ok(client.query(&statement, &[&1_i64, &from, &PAGE]).await?.len() as i64 == PAGE)
        })
        .await
    });

    measure_other(meter, "floor_postgres_pages", Vec::new(), load).await
}

/// Each transaction counts as the rows that it has.
fn per_row(transactions: Outcome) -> Outcome {
    let latencies = transactions.latencies.iter().flat_map(|latency| vec![*latency; ROWS]).collect();
    Outcome { latencies, errors: transactions.errors }
}

/// What a cold initial sync has to read, by a new connection: events of states by way of a table that tells which they are, the
/// last messages of each room, so many of which are told, and how many others there are. An operation is all of it.
pub async fn cold_reads(
    meter: &Meter,
    database: &TestDatabase,
    length: Duration,
    (name, told): (&str, i64),
) -> anyhow::Result<Report> {
    // As they come to be: rooms one after the other, messages in all of them at the same time.
    let tables = format!(
        "DROP TABLE IF EXISTS events, state;
         CREATE TABLE events (room int8, number int8, pos int8, counts int2 NOT NULL, data text NOT NULL,
                              PRIMARY KEY (room, number));
         CREATE INDEX ON events (room, pos);
         CREATE TABLE state (room int8, key int8, number int8 NOT NULL, PRIMARY KEY (room, key));
         INSERT INTO events SELECT r, n, r * {STATE} + n, 0, repeat('x', {EVENT_BYTES})
           FROM generate_series(1, {ROOMS}) r, generate_series(1, {STATE}) n;
         INSERT INTO state SELECT room, number, number FROM events;
         INSERT INTO events SELECT r, {STATE} + m, {ROOMS} * ({STATE} + m) + r, 1, repeat('x', {EVENT_BYTES})
           FROM generate_series(1, {MESSAGES}) m, generate_series(1, {ROOMS}) r;
         ANALYZE"
    );
    const STATES: &str = "
        SELECT e.room, e.data FROM unnest($1::int8[]) q (room)
         CROSS JOIN LATERAL (SELECT number FROM state s WHERE s.room = q.room OFFSET 0) s
         CROSS JOIN LATERAL (SELECT * FROM events e WHERE e.room = q.room AND e.number = s.number OFFSET 0) e";
    const TIMELINES: &str = "
        SELECT e.room, e.data FROM unnest($1::int8[]) q (room)
         CROSS JOIN LATERAL (SELECT * FROM events e WHERE e.room = q.room ORDER BY e.pos DESC LIMIT $2) e";
    const COUNTS: &str = "
        SELECT q.room, count(*) FROM unnest($1::int8[]) q (room)
         CROSS JOIN LATERAL (SELECT * FROM events e WHERE e.room = q.room ORDER BY e.pos DESC OFFSET $2 LIMIT $3) e
         WHERE e.counts <> 0 GROUP BY q.room";

    database.connect().await?.batch_execute(&tables).await?;
    let load = async {
        repeat(length, async |_| {
            let client = database.connect().await?;
            client.batch_execute("SET jit = off; SET enable_memoize = off").await?;
            let (states, timelines, counts) =
                try_join3(client.prepare(STATES), client.prepare(TIMELINES), client.prepare(COUNTS)).await?;
            let all: Vec<i64> = (1..=ROOMS).collect();
            let mut rows = 0;
            for rooms in all.chunks(ROOMS_AT_ONCE as usize) {
                rows += client.query(&states, &[&rooms]).await?.len();
                rows += client.query(&timelines, &[&rooms, &told]).await?.len();
                rows += client.query(&counts, &[&rooms, &told, &MESSAGES]).await?.len();
            }
            Ok(rows as i64 == ROOMS * (STATE + told + 1))
        })
        .await
    };

    measure_other(meter, name, Vec::new(), load).await
}
