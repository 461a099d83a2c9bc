//! Latencies in buckets of about one percent, so that ten million of them cost 30 KB.

use std::time::Duration;

/// Buckets per doubling; a recorded value is off by at most 1/128 of itself.
const STEPS: usize = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Covers every `u64` of nanoseconds.
const BUCKETS: usize = (64 - STEP_BITS as usize + 1) * STEPS;

/// A distribution of durations.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Histogram {
    /// Nothing recorded yet.
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, longest: Duration::ZERO }
    }

    /// Counts one duration.
    pub fn record(&mut self, value: Duration) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.longest = self.longest.max(value);
    }

    /// How many were recorded.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The longest one, exactly.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The smallest duration that at least `share` (0 to 1) of all do not exceed, within a
    /// bucket; zero if nothing was recorded.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.total as f64) * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(middle(index)).min(self.longest);
            }
        }
        self.longest
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < STEPS as u64 {
        return nanos as usize;
    }
    let doubling = 63 - nanos.leading_zeros() - STEP_BITS;
    let step = (nanos >> doubling) as usize - STEPS;
    (doubling as usize + 1) * STEPS + step
}

fn middle(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let doubling = bucket / STEPS - 1;
    let low = ((STEPS + bucket % STEPS) as u64) << doubling;
    low + (1 << doubling) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_within_a_bucket_of_the_exact_one() {
        let mut histogram = Histogram::new();
        for micros in 1..=100_000 {
            histogram.record(Duration::from_micros(micros));
        }
        for share in [0.01, 0.5, 0.9, 0.99, 0.999] {
            let exact = 100_000.0 * share / 1e6;
            let got = histogram.quantile(share).as_secs_f64();
            assert!((got / exact - 1.0).abs() < 0.01, "{share}: {got} is not about {exact}");
        }
        assert_eq!(histogram.quantile(1.0), Duration::from_millis(100));
    }

    #[test]
    fn every_value_falls_into_a_bucket_that_holds_it() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1_u64 << shift) | 1, (1_u64 << shift).wrapping_sub(1)] {
                let error = middle(bucket(value)).abs_diff(value);
                assert!(error <= value / 64, "{value} is taken for {}", middle(bucket(value)));
            }
        }
    }
}
