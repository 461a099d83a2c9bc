//! What comes and goes each second: the last minute of it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many seconds are remembered.
const SECONDS: usize = 60;
/// A rate is that of this many seconds: long enough not to flicker, short enough to be of now.
const RATE_OVER: usize = 5;

/// What has come and gone since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Changes appended to logs.
    pub changes_in: u64,
    /// Changes sent, once for each receiver.
    pub changes_out: u64,
    /// Bytes of frames received from clients.
    pub bytes_in: u64,
    /// Bytes of frames sent to clients.
    pub bytes_out: u64,
}

/// The same in each second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Changes appended to logs.
    pub changes_in: f64,
    /// Changes sent.
    pub changes_out: f64,
    /// Bytes received.
    pub bytes_in: f64,
    /// Bytes sent.
    pub bytes_out: f64,
}

/// The last minute.
#[derive(Debug, Default)]
pub struct Traffic(Mutex<VecDeque<(Duration, Totals)>>);

impl Traffic {
    /// Notes the totals of a moment; called about once a second.
    pub fn note(&self, at: Duration, totals: Totals) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back((at, totals));
        while samples.len() > SECONDS + 1 {
            samples.pop_front();
        }
    }

    /// The rates between one note and the next, the oldest first.
    pub fn each_second(&self) -> Vec<Rates> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = samples.iter().zip(samples.iter().skip(1));
        pairs.map(|(from, to)| between(from, to)).collect()
    }

    /// The rates of now.
    pub fn now(&self) -> Rates {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(to) = samples.back() else { return Rates::default() };
        let from = samples.len().saturating_sub(RATE_OVER + 1);
        between(&samples[from], to)
    }
}

fn between((from, before): &(Duration, Totals), (to, after): &(Duration, Totals)) -> Rates {
    let seconds = to.saturating_sub(*from).as_secs_f64();
    let rate = |before: u64, after: u64| {
        // A tenth is as exact as it is read.
        let each = if seconds > 0.0 { after.saturating_sub(before) as f64 / seconds } else { 0.0 };
        (each * 10.0).round() / 10.0
    };
    Rates {
        changes_in: rate(before.changes_in, after.changes_in),
        changes_out: rate(before.changes_out, after.changes_out),
        bytes_in: rate(before.bytes_in, after.bytes_in),
        bytes_out: rate(before.bytes_out, after.bytes_out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(changes: &[u64]) -> Traffic {
        let traffic = Traffic::default();
        for (second, changes_in) in changes.iter().enumerate() {
            let totals = Totals { changes_in: *changes_in, ..Totals::default() };
            traffic.note(Duration::from_secs(second as u64), totals);
        }
        traffic
    }

    #[test]
    fn rates_are_what_came_between_two_notes() {
        let traffic = noted(&[0, 10, 10, 40]);
        let each: Vec<_> = traffic.each_second().iter().map(|rates| rates.changes_in).collect();
        assert_eq!(each, [10.0, 0.0, 30.0]);
        assert_eq!(traffic.now().changes_in, 13.3);
    }

    #[test]
    fn the_rate_of_now_looks_back_a_few_seconds_and_memory_a_minute() {
        let counts: Vec<u64> = (0..1_000).map(|second| second * 7).collect();
        let traffic = noted(&counts);
        assert_eq!(traffic.each_second().len(), SECONDS);
        assert_eq!(traffic.now().changes_in, 7.0);
        assert_eq!(noted(&[]).now(), Rates::default());
        assert_eq!(noted(&[5]).now(), Rates::default());
    }
}
