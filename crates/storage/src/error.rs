//! What can go wrong with the database.

use tokio_postgres::error::{DbError, Severity};

/// The result of every function of this crate.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// A database operation failed. Never shown to clients; callers tell apart only what they can act on.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No connection could be had: the database is away, or all connections of the pool are in use.
    #[error("no database connection: {0}")]
    Unavailable(String),
    /// PostgreSQL refused a statement, or the connection broke.
    #[error("database: {}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// A migration failed.
    #[error("migrating the database: {0}")]
    Migration(String),
    /// A row holds what we never write there.
    #[error("inconsistent data: {0}")]
    Inconsistent(String),
    /// Another process took over this one's duties: nothing that this process writes is accepted any more.
    #[error("this process was replaced by another and may not write any more")]
    Fenced,
}

impl StorageError {
    /// Whether a unique constraint refused the row: somebody else was first.
    pub fn is_unique_violation(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        error.code() == Some(&tokio_postgres::error::SqlState::UNIQUE_VIOLATION)
    }

    /// Whether a statement divided by zero, as some do to stop their transaction.
    pub(crate) fn is_division_by_zero(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        error.code() == Some(&tokio_postgres::error::SqlState::DIVISION_BY_ZERO)
    }

    /// Whether the database is away, starts, ends or has no room, rather than something being wrong with a statement: it may work a
    /// little later.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            // Without an answer of the server, the connection failed. 53: no disk, memory or connections; 57P: shutting down.
            Self::Postgres(error) => match error.code() {
                Some(state) => state.code().starts_with("53") || state.code().starts_with("57P"),
                None => true,
            },
            Self::Migration(_) | Self::Inconsistent(_) | Self::Fenced => false,
        }
    }

    /// Whether a transaction that failed so may have been committed all the same: the connection failed, or was ended by the server.
    /// One that the server refused was not.
    pub fn leaves_commit_open(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        let refused = |said: &DbError| matches!(said.parsed_severity(), Some(Severity::Error));
        !error.as_db_error().is_some_and(refused)
    }

    /// Whether a text held what PostgreSQL can't store: the character U+0000. It then came from outside.
    pub fn is_unstorable_text(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        error.code() == Some(&tokio_postgres::error::SqlState::CHARACTER_NOT_IN_REPERTOIRE)
    }
}

/// tokio-postgres prints "db error" for what the server said; operators need the server's words.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => error.to_string(),
    }
}
