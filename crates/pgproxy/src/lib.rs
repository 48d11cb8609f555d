//! The stable address of every PostgreSQL.
