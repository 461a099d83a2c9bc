//! The storage contract, kept by sled.
