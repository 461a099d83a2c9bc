//! The limits of REST.

use serde::{Deserialize, Serialize};

/// REST: who may ask from a browser, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestConfig {
    /// The origins whose pages may call: `https://app.example`, or `*` for all. None: no page may,
    /// other than one served from here.
    pub cors_origins: Vec<String>,
    /// How many worker processes open documents to answer REST, beside those of the archive.
    pub workers: usize,
    /// How many questions may wait for a worker; the next is answered with 503.
    pub queue_max: usize,
    /// The largest body of a request, in bytes.
    pub body_bytes_max: usize,
    /// How deep objects and arrays of a body may be nested.
    pub json_depth_max: usize,
    /// How many documents a page may have.
    pub page_max: usize,
    /// How many changes a page of a history, or an answer with raw changes, may have.
    pub history_max: usize,
    /// How long a request may take, in seconds.
    pub seconds: u32,
    /// How long a request may ask to wait for heads, in seconds.
    pub wait_seconds_max: u32,
    /// How many event streams and waiting requests there may be at once.
    pub streams_max: usize,
    /// How many MiB of answers are kept.
    pub cache_mib: u64,
}

impl Default for RestConfig {
    fn default() -> Self {
        Self {
            cors_origins: Vec::new(),
            workers: 1,
            queue_max: 64,
            body_bytes_max: 64 << 20,
            json_depth_max: 100,
            page_max: 500,
            history_max: 10_000,
            seconds: 30,
            wait_seconds_max: 60,
            streams_max: 1_000,
            cache_mib: 32,
        }
    }
}

impl RestConfig {
    /// What has to hold: whether it does, the key, and what is expected.
    pub fn checks(&self) -> Vec<(bool, &'static str, &'static str)> {
        vec![
            (
                self.cors_origins.iter().all(|origin| is_origin(origin)),
                "rest.cors_origins",
                "a list of origins such as 'https://app.example', or '*'",
            ),
            ((1..=64).contains(&self.workers), "rest.workers", "1 to 64"),
            ((1..=100_000).contains(&self.queue_max), "rest.queue_max", "1 to 100000"),
            (
                (1024..=1 << 30).contains(&self.body_bytes_max),
                "rest.body_bytes_max",
                "1024 to 1073741824",
            ),
            ((1..=120).contains(&self.json_depth_max), "rest.json_depth_max", "1 to 120"),
            ((1..=10_000).contains(&self.page_max), "rest.page_max", "1 to 10000"),
            ((1..=10_000_000).contains(&self.history_max), "rest.history_max", "1 to 10000000"),
            ((1..=3600).contains(&self.seconds), "rest.seconds", "1 to 3600"),
            ((1..=3600).contains(&self.wait_seconds_max), "rest.wait_seconds_max", "1 to 3600"),
            ((1..=1_000_000).contains(&self.streams_max), "rest.streams_max", "1 to 1000000"),
            ((1..=1 << 20).contains(&self.cache_mib), "rest.cache_mib", "1 to 1048576"),
        ]
    }
}

/// A scheme, a host and perhaps a port, as browsers send it, or `*`.
fn is_origin(text: &str) -> bool {
    let after_scheme = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    text == "*"
        || after_scheme.is_some_and(|rest| {
            !rest.is_empty()
                && rest.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c))
        })
}
