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
/// transaction is aborted", which says nothing and is never given here while the other part knows more.
pub async fn pipelined<A, B>(
    first: impl Future<Output = Result<A>>,
    second: impl Future<Output = Result<B>>,
) -> Result<(A, B)> {
    match join(first, second).await {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        (Err(first), Err(second)) => Err(if says_nothing(&first) { second } else { first }),
    }
}

/// Whether the error is only that there was one before.
fn says_nothing(error: &StorageError) -> bool {
    let StorageError::Postgres(error) = error else { return false };
    error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Transaction, execute, test_support::TestClient};

    #[tokio::test]
    async fn the_error_is_the_one_that_made_the_transaction_fail() {
        let mut client = TestClient::new().await;
        let good = "SELECT 1";
        let bad = "SELECT 1 / 0";
        for (first, second) in [(good, bad), (bad, good)] {
            let transaction = Transaction::begin(&mut client);
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
}
