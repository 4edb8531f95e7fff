//! Transactions, and statements that are sent without waiting for each other's answers.

use std::{error::Error, future::Future};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, TryStreamExt as _, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_postgres::{
    Row, Statement,
    types::{IsNull, ToSql, Type, to_sql_checked},
};

use super::{Client, DetachedClient, GenericClient, execute};
use crate::{Result, StorageError};

/// What is set apart for a statement's parameters before they are known.
const ENCODED_BYTES: usize = 1024;

/// A transaction on a [`Client`]; rolled back when dropped without [`Transaction::commit`].
///
/// Its `BEGIN` goes to the server together with the first statement: who begins does not wait for it.
#[expect(missing_debug_implementations, reason = "a connection has nothing to show")]
pub struct Transaction<'a> {
    client: &'a DetachedClient,
    is_over: bool,
}

impl<'a> Transaction<'a> {
    /// Begins.
    pub fn begin(client: &'a mut Client) -> Self {
        // If the connection is broken, the first statement says so.
        let _ = client.batch_execute("BEGIN").now_or_never();
        Self { client, is_over: false }
    }

    /// Commits.
    ///
    /// # Errors
    /// If the database refused, or if it is not known whether it did: the connection broke meanwhile.
    pub async fn commit(mut self) -> Result<()> {
        self.is_over = true;
        Ok(self.client.batch_execute("COMMIT").await?)
    }

    /// Sends all further statements, and the `COMMIT`, without waiting for answers.
    pub fn take_off(self) -> Flight<'a> {
        Flight { transaction: self, answers: Mutex::default() }
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // It is sent by being asked for once; nobody needs the answer.
            let _ = self.client.batch_execute("ROLLBACK").now_or_never();
        }
    }
}

impl GenericClient for Transaction<'_> {
    fn connection(&self) -> &DetachedClient {
        self.client
    }
}

/// Takes statements whose answers say nothing.
pub trait Write: Sync {
    /// Runs a constant statement, prepared once per connection.
    fn write(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<()>> + Send;
}

impl<C: GenericClient> Write for C {
    async fn write(&self, sql: &'static str, params: &[&(dyn ToSql + Sync)]) -> Result<()> {
        execute(self, sql, params).await.map(drop)
    }
}

/// The last statements of a transaction, on their way to the server without waiting for each other: one wait for all of
/// them, instead of one for each. Once one of them fails, the server refuses all others and the `COMMIT`.
///
/// What must stop the transaction has to fail as a statement: nobody looks at an answer before the commit.
#[expect(missing_debug_implementations, reason = "a connection has nothing to show")]
pub struct Flight<'a> {
    transaction: Transaction<'a>,
    answers: Mutex<Vec<BoxFuture<'a, Result<()>>>>,
}

impl<'a> Flight<'a> {
    /// Sends a statement whose rows are there once the flight [has landed](Flight::land). `explain` makes of its error what it
    /// means.
    ///
    /// # Errors
    /// If the statement can't be prepared or sent.
    pub async fn ask(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
        explain: fn(StorageError) -> StorageError,
    ) -> Result<Answer> {
        let client = self.transaction.client;
        let (statement, params) = self.prepare(sql, params).await?;
        let (give, rows) = oneshot::channel();
        self.send(async move {
            let answer = async { client.query_raw(&statement, params).await?.try_collect().await };
            let rows: Vec<Row> = answer.await.map_err(|error| explain(error.into()))?;
            // Whoever asked may not want to know any more.
            let _ = give.send(rows);
            Ok(())
        })?;
        Ok(Answer(rows))
    }

    /// Commits if `written`, what went before, is fine, and waits for all answers.
    ///
    /// # Errors
    /// The first that there was. If it is of the connection, the transaction may have been committed all the same.
    pub async fn land(self, written: Result<()>) -> Result<()> {
        let client = self.transaction.client;
        let commit = || self.send(async move { Ok(client.batch_execute("COMMIT").await?) });
        let sent = written.and_then(|()| commit());
        let Self { mut transaction, answers } = self;
        transaction.is_over = sent.is_ok();
        for answer in answers.into_inner() {
            answer.await?;
        }
        sent
    }

    /// Has a request sent, which happens when its future is looked at first, and keeps it for its answer.
    fn send(&self, request: impl Future<Output = Result<()>> + Send + 'a) -> Result<()> {
        let mut request = request.boxed();
        match (&mut request).now_or_never() {
            // Not sent, or answered already: if that went wrong, what comes behind must not be committed.
            Some(answer) => answer,
            None => {
                self.answers.lock().push(request);
                Ok(())
            }
        }
    }

    /// The statement, and the parameters as they go over the wire: the request outlives what they borrow from.
    async fn prepare(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<(Statement, Vec<Encoded>)> {
        let statement = self.transaction.client.prepare_cached(sql).await?;
        let mut buffer = BytesMut::with_capacity(ENCODED_BYTES);
        let encode = |(param, kind): (&&(dyn ToSql + Sync), &Type)| {
            let start = buffer.len();
            let is_null = param.to_sql_checked(kind, &mut buffer);
            let is_null = is_null.map_err(|error| {
                StorageError::Inconsistent(format!("a parameter does not fit its column: {error}"))
            })?;
            Ok(matches!(is_null, IsNull::No).then_some(start..buffer.len()))
        };
        let ranges: Vec<_> = params.iter().zip(statement.params()).map(encode).collect::<Result<_>>()?;
        let buffer = buffer.freeze();
        let params =
            ranges.into_iter().map(|range| Encoded(range.map(|range| buffer.slice(range)))).collect();
        Ok((statement, params))
    }
}

impl Write for Flight<'_> {
    async fn write(&self, sql: &'static str, params: &[&(dyn ToSql + Sync)]) -> Result<()> {
        let client = self.transaction.client;
        let (statement, params) = self.prepare(sql, params).await?;
        self.send(async move { Ok(client.execute_raw(&statement, params).await.map(drop)?) })
    }
}

/// What a statement of a [`Flight`] was answered.
#[derive(Debug)]
pub struct Answer(oneshot::Receiver<Vec<Row>>);

impl Answer {
    /// The rows; none if the flight has not landed.
    pub fn rows(mut self) -> Vec<Row> {
        self.0.try_recv().unwrap_or_default()
    }
}

/// A parameter as it goes over the wire; `None` for NULL.
#[derive(Debug)]
struct Encoded(Option<Bytes>);

impl ToSql for Encoded {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match &self.0 {
            Some(value) => {
                out.extend_from_slice(value);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use tokio_postgres::error::SqlState;

    use super::*;
    use crate::{query_one, test_support::TestClient};

    const INSERT: &str =
        "INSERT INTO filters (user_id, filter_id, filter_hash, filter) VALUES ($1, $2, int8send($2), $3)";
    const COUNT: &str = "SELECT count(*) FROM filters";

    async fn count(client: &Client) -> i64 {
        query_one(client, COUNT, &[]).await.unwrap().get(0)
    }

    async fn insert(db: &impl Write, number: i64) -> Result<()> {
        db.write(INSERT, &[&"@a:x", &number, &"{}"]).await
    }

    fn code(outcome: &Result<()>) -> Option<&SqlState> {
        match outcome {
            Err(StorageError::Postgres(error)) => error.code(),
            _ => None,
        }
    }

    #[tokio::test]
    async fn what_is_not_committed_is_gone() {
        let mut client = TestClient::new().await;
        let transaction = Transaction::begin(&mut client);
        insert(&transaction, 1).await.unwrap();
        drop(transaction);
        assert_eq!(count(&client).await, 0);
        let transaction = Transaction::begin(&mut client);
        insert(&transaction, 1).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(count(&client).await, 1);
        drop(Transaction::begin(&mut client).take_off());
        assert_eq!(count(&client).await, 1);
    }

    #[tokio::test]
    async fn a_flight_writes_in_order_and_answers_after_its_commit() {
        let mut client = TestClient::new().await;
        let flight = Transaction::begin(&mut client).take_off();
        insert(&flight, 1).await.unwrap();
        let in_between = flight.ask(COUNT, &[], |error| error).await.unwrap();
        insert(&flight, 2).await.unwrap();
        let at_the_end = flight.ask(COUNT, &[], |error| error).await.unwrap();
        flight.land(Ok(())).await.unwrap();
        let counts = [in_between, at_the_end].map(|answer| answer.rows()[0].get::<_, i64>(0));
        assert_eq!(counts, [1, 2]);
        assert_eq!(count(&client).await, 2);
    }

    #[tokio::test]
    async fn one_statement_that_fails_undoes_the_flight_and_is_the_one_that_is_told() {
        let mut client = TestClient::new().await;
        for numbers in [[1, 1, 2], [1, 2, 1], [1, 2, 2]] {
            let flight = Transaction::begin(&mut client).take_off();
            for number in numbers {
                insert(&flight, number).await.unwrap();
            }
            let outcome = flight.land(Ok(())).await;
            assert_eq!(code(&outcome), Some(&SqlState::UNIQUE_VIOLATION), "{outcome:?}");
            assert_eq!(count(&client).await, 0);
        }
    }

    #[tokio::test]
    async fn a_question_that_fails_undoes_the_flight_and_says_what_that_means() {
        let mut client = TestClient::new().await;
        let flight = Transaction::begin(&mut client).take_off();
        insert(&flight, 1).await.unwrap();
        let answer = flight.ask("SELECT 1 / 0", &[], |_| StorageError::Fenced).await.unwrap();
        insert(&flight, 2).await.unwrap();
        assert!(matches!(flight.land(Ok(())).await, Err(StorageError::Fenced)));
        assert!(answer.rows().is_empty());
        assert_eq!(count(&client).await, 0);
    }

    #[tokio::test]
    async fn what_was_not_written_is_not_committed() {
        let mut client = TestClient::new().await;
        let flight = Transaction::begin(&mut client).take_off();
        insert(&flight, 1).await.unwrap();
        let outcome = flight.land(Err(StorageError::Inconsistent("nonsense".to_owned()))).await;
        assert!(matches!(outcome, Err(StorageError::Inconsistent(_))), "{outcome:?}");
        assert_eq!(count(&client).await, 0);

        // What went wrong first is told, not what went wrong for that.
        let flight = Transaction::begin(&mut client).take_off();
        insert(&flight, 1).await.unwrap();
        insert(&flight, 1).await.unwrap();
        let outcome = flight.land(Err(StorageError::Inconsistent("nonsense".to_owned()))).await;
        assert_eq!(code(&outcome), Some(&SqlState::UNIQUE_VIOLATION), "{outcome:?}");
    }

    #[tokio::test]
    async fn parameters_of_all_kinds_arrive_as_they_are() {
        const SQL: &str =
            "SELECT $1::bigint[], $2::text[], $3::smallint, $4::bytea, $5::text, $6::bool, $7::text";
        let mut client = TestClient::new().await;
        let flight = Transaction::begin(&mut client).take_off();
        let texts = vec![Some("ä"), None];
        let answer = flight
            .ask(
                SQL,
                &[&vec![1_i64, -2], &texts, &3_i16, &[0_u8, 255].as_slice(), &None::<&str>, &true, &""],
                |error| error,
            )
            .await
            .unwrap();
        flight.land(Ok(())).await.unwrap();
        let row = &answer.rows()[0];
        assert_eq!(row.get::<_, Vec<i64>>(0), [1, -2]);
        assert_eq!(row.get::<_, Vec<Option<String>>>(1), [Some("ä".to_owned()), None]);
        assert_eq!(row.get::<_, i16>(2), 3);
        assert_eq!(row.get::<_, Vec<u8>>(3), [0, 255]);
        assert_eq!(row.get::<_, Option<String>>(4), None);
        assert!(row.get::<_, bool>(5));
        assert_eq!(row.get::<_, String>(6), "");
    }
}
