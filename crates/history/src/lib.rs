//! One document as its change graph: chunks, log, operation directory, structural check.
