//! The sync protocol on a history: one peer's standing on one document.
