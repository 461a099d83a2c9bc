//! Connections: messages on their way, delivered one at a time when chance says so.

use std::collections::VecDeque;
use std::ops::AddAssign;

/// What crossed the connections.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    pub messages: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// Messages after the last edit.
    pub tail: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.tail = self.tail.max(other.tail);
    }
}

/// A connection of one client.
#[derive(Default)]
pub struct Wire {
    pub session: Option<u64>,
    pub up: VecDeque<Vec<u8>>,
    pub down: VecDeque<Vec<u8>>,
}
