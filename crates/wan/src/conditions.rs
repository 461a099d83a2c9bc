//! What a link is like at the moment.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// The longest latency, and the widest jitter, in milliseconds.
pub const LATENCY_MS_MAX: u32 = 60_000;

/// What both ways of a link are like. As JSON: `{"there": {...}, "back": {...}}`; what is left out is
/// as if the network were not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    /// From whoever connects to the target.
    pub there: Way,
    /// From the target to whoever connected.
    pub back: Way,
}

/// What one way is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Way {
    /// How long each byte takes, in milliseconds; up to one more, for the timer.
    pub latency_ms: u32,
    /// Up to how much longer it takes, by chance, in milliseconds. The order is kept.
    pub jitter_ms: u32,
    /// How many bytes all connections together get through in a second; `null`: any number.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Whether anything goes through at all.
    pub flow: Flow,
}

/// Whether bytes go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flow {
    /// They do.
    #[default]
    Open,
    /// They are taken in, as long as there is room, and not delivered.
    Stalled,
    /// They are not even taken in.
    Cut,
}

impl Conditions {
    /// The same both ways.
    pub fn both(way: Way) -> Self {
        Self { there: way, back: way }
    }

    /// Whether a connection can be made: both ways are open.
    pub(crate) fn is_open(&self) -> bool {
        self.there.flow == Flow::Open && self.back.flow == Flow::Open
    }

    pub(crate) fn check(&self) -> Result<(), OutOfBounds> {
        for way in [self.there, self.back] {
            for (field, ms) in [("latency_ms", way.latency_ms), ("jitter_ms", way.jitter_ms)] {
                if ms > LATENCY_MS_MAX {
                    return Err(OutOfBounds { field, ms });
                }
            }
        }
        Ok(())
    }
}

/// A time is longer than this network can keep bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {ms}; at most {LATENCY_MS_MAX} is possible")]
pub struct OutOfBounds {
    /// Which one.
    pub field: &'static str,
    /// What it was to be.
    pub ms: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_perfect_and_what_is_unknown_is_an_error() {
        let json = r#"{"there": {"latency_ms": 70, "bytes_per_second": 1000, "flow": "stalled"}}"#;
        let conditions: Conditions = serde_json::from_str(json).expect("conditions");
        assert_eq!(conditions.there.latency_ms, 70);
        assert_eq!(conditions.there.flow, Flow::Stalled);
        assert_eq!(conditions.back, Way::default());
        for json in
            [r#"{"their": {}}"#, r#"{"back": {"flow": "slow"}}"#, r#"{"back": {"latency_ms": -1}}"#]
        {
            assert!(serde_json::from_str::<Conditions>(json).is_err(), "{json}");
        }
        assert!(
            serde_json::from_str::<Conditions>(r#"{"back": {"bytes_per_second": 0}}"#).is_err()
        );
    }

    #[test]
    fn a_latency_of_more_than_a_minute_is_refused() {
        let way = Way { latency_ms: LATENCY_MS_MAX + 1, ..Way::default() };
        let conditions = Conditions { back: way, ..Conditions::default() };
        let error = OutOfBounds { field: "latency_ms", ms: LATENCY_MS_MAX + 1 };
        assert_eq!(conditions.check(), Err(error));
        assert_eq!(Conditions::default().check(), Ok(()));
    }
}
