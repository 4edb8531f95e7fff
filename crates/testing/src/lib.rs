//! Private PostgreSQL servers and freshly migrated databases for tests.
