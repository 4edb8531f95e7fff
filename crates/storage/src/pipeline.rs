//! Statements of one transaction that are sent without waiting for each other.

use std::future::Future;

use futures_util::future::join;
use tokio_postgres::error::SqlState;

use crate::{Result, StorageError};

/// Runs two parts of one transaction at once: the statements of both are on their way to the server before the first is
/// answered. They must not depend on each other; those of `first` are sent first.
///
/// # Errors
/// The one that made the transaction fail. After it the server answers every other statement only with "current
/// transaction is aborted", which says nothing and is never given here while the other part knows more. A transaction
/// that is [`StorageError::Fenced`] is that before anything else: rows of a writer that was replaced may well collide
/// with those of its successor.
pub async fn pipelined<A, B>(
    first: impl Future<Output = Result<A>>,
    second: impl Future<Output = Result<B>>,
) -> Result<(A, B)> {
    match join(first, second).await {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        (Err(first), Err(second)) => Err(if weight(&second) > weight(&first) { second } else { first }),
    }
}

/// How much an error tells.
fn weight(error: &StorageError) -> u8 {
    match error {
        StorageError::Postgres(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => 0,
        StorageError::Fenced => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{execute, test_support::TestClient};

    #[tokio::test]
    async fn the_error_is_the_one_that_made_the_transaction_fail() {
        let mut client = TestClient::new().await;
        let good = "SELECT 1";
        let bad = "SELECT 1 / 0";
        for (first, second) in [(good, bad), (bad, good)] {
            let transaction = client.transaction().await.unwrap();
            let run = async |statement| execute(&transaction, statement, &[]).await;
            // Each part goes on after the failure of the other.
            let parts = (async { run(first).await.and(run(good).await) }, async {
                run(second).await.and(run(good).await)
            });
            let error = pipelined(parts.0, parts.1).await.unwrap_err();
            let StorageError::Postgres(error) = error else { panic!("{error}") };
            assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO), "{first}, {second}");
        }
    }

    #[tokio::test]
    async fn a_replaced_writer_is_told_so_whatever_else_went_wrong() {
        let mut client = TestClient::new().await;
        let transaction = client.transaction().await.unwrap();
        let fenced = async || Err::<(), _>(StorageError::Fenced);
        let failing = async || execute(&transaction, "SELECT 1 / 0", &[]).await;
        assert!(matches!(pipelined(failing(), fenced()).await, Err(StorageError::Fenced)));
        assert!(matches!(pipelined(fenced(), failing()).await, Err(StorageError::Fenced)));
    }
}
