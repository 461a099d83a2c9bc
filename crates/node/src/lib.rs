//! The machine: sessions and documents; events in, effects out.
