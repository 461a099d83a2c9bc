//! The storage contract, kept by SQLite.
