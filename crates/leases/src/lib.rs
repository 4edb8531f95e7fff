//! Fenced leases in PostgreSQL.
