//! Many typists who take turns at a fixed rate.

use std::time::{Duration, Instant};

use crate::histogram::Histogram;
use crate::net::ConnId;
use crate::world::World;

/// The typists of a row, and how far they are.
pub struct Typing {
    writers: Vec<ConnId>,
    /// Edits that each had typed before.
    begun: usize,
    typed: usize,
    /// How much later than it was due each change was sent.
    pub lateness: Histogram,
}

impl Typing {
    /// Typists whose documents have `begun` edits each.
    pub fn new(writers: Vec<ConnId>, begun: usize) -> Self {
        Self { writers, begun, typed: 0, lateness: Histogram::new() }
    }

    /// Edits of the document of one typist.
    pub fn edits(&self, at: usize) -> usize {
        let writers = self.writers.len();
        self.begun + (self.typed + writers - 1 - at) / writers
    }

    /// Changes typed by all of them.
    pub fn typed(&self) -> usize {
        self.typed
    }

    /// Types so many changes altogether, so many a second, each at its time.
    ///
    /// # Errors
    /// If a client failed.
    pub fn run(&mut self, world: &mut World, rate: usize, count: usize) -> Result<(), String> {
        let end = self.typed + count;
        self.run_while(world, rate, |typed| Ok(typed < end))
    }

    /// Types so many changes a second as long as `more`, which is asked before each turn and told
    /// how many were typed in all, says so.
    ///
    /// # Errors
    /// If a client failed, or `more` says so.
    pub fn run_while(
        &mut self,
        world: &mut World,
        rate: usize,
        mut more: impl FnMut(usize) -> Result<bool, String>,
    ) -> Result<(), String> {
        let (began, first) = (Instant::now(), self.typed);
        let due =
            |typed: usize| began + Duration::from_secs_f64((typed - first) as f64 / rate as f64);
        while more(self.typed)? {
            let now = Instant::now();
            // A turn that was late makes up for it, but asks before each change all the same.
            if due(self.typed) <= now {
                self.lateness.record(now - due(self.typed));
                let at = self.typed % self.writers.len();
                self.typed += 1;
                world.write(self.writers[at], self.edits(at));
                continue;
            }
            world.turn(due(self.typed))?;
        }
        Ok(())
    }

    /// Gives every reader, in the order of the typists, all that was typed for a goal.
    pub fn aim(&self, world: &mut World, readers: &[ConnId]) {
        for (at, reader) in readers.iter().enumerate() {
            world.aim(*reader, self.edits(at));
        }
    }
}
