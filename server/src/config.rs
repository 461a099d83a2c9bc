//! Configuration: defaults < file < environment < flags, parsed once into types.
//!
//! Every key is a field here; `tributary check-config` prints what is in force. A key that is not
//! known, or a value that makes no sense, stops the start with the key's name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use model::RegionName;
use serde::{Deserialize, Serialize};

/// Everything that can be configured. Keys in the file are the names of the fields; in the
/// environment they are written `TRIBUTARY_LISTEN`, `TRIBUTARY_ARCHIVE__WORKERS`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of this region, unique in a mesh: letters, digits, `-`, `_` and `.`.
    pub region: String,
    /// The address to listen on, for WebSockets and HTTP. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The directory that holds the store. It is created if it is missing.
    pub data: PathBuf,
    /// Which store keeps the documents.
    pub store: StoreKind,
    /// About how many MiB documents in memory and the store's cache may take together.
    pub memory_budget_mib: u64,
    /// The largest WebSocket message, in bytes: also the largest document that a client can upload
    /// or download in one piece.
    pub frame_bytes_max: usize,
    /// How many connections are accepted at once.
    pub sessions_max: usize,
    /// How long a connection may take to say `join`, in seconds.
    pub join_seconds: u64,
    /// How often a connection is pinged, in seconds. One that is silent for two of these is closed.
    pub ping_seconds: u64,
    /// How long a frame may take to get to the socket of a slow reader, in seconds.
    pub write_seconds: u64,
    /// Over how many seconds sessions are closed when the server is asked to stop.
    pub drain_seconds: f64,
    /// How many shards documents are spread over; 0 means one for each core.
    pub shards: usize,
    /// The archive: where documents are opened with Automerge.
    pub archive: ArchiveConfig,
    /// How long changes stay readable one by one after a snapshot covers them.
    pub retention: RetentionConfig,
    /// What is logged.
    pub log: LogConfig,
}

/// The archive: worker processes that open documents with Automerge, off the hot path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveConfig {
    /// How many worker processes.
    pub workers: usize,
    /// The address space of one of them, in MiB.
    pub memory_mib: u64,
    /// How long one job may take, in seconds.
    pub job_seconds: u32,
    /// How many seconds a document has to be quiet before its newest changes are verified.
    pub verify_after_seconds: f64,
    /// A tail of this many KiB (or a quarter of the snapshot, if that is more) is compacted.
    pub compact_tail_kib: usize,
}

/// How long changes stay readable one by one after a snapshot covers them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// How many KiB of them per document.
    pub kib: usize,
    /// For how many hours.
    pub hours: u64,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A filter as `tracing` reads it: `info`, `debug`, `warn,tributary=debug`.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
}

/// Which store keeps the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// sled, the default.
    Sled,
    /// SQLite, for operators who would rather have the most tested engine there is.
    Sqlite,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: "local".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 4450)),
            data: PathBuf::from("./tributary-data"),
            store: StoreKind::Sled,
            memory_budget_mib: 256,
            frame_bytes_max: 64 << 20,
            sessions_max: 50_000,
            join_seconds: 10,
            ping_seconds: 15,
            write_seconds: 30,
            drain_seconds: 2.0,
            shards: 0,
            archive: ArchiveConfig {
                workers: 1,
                memory_mib: 2048,
                job_seconds: 60,
                verify_after_seconds: 2.0,
                compact_tail_kib: 64,
            },
            retention: RetentionConfig { kib: 1024, hours: 7 * 24 },
            log: LogConfig { filter: "info".to_owned(), format: LogFormat::Text },
        }
    }
}

/// The flags that override the file and the environment.
#[derive(Debug, Clone, Default, Serialize, clap::Args)]
pub struct Flags {
    /// A TOML file with the configuration.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// The name of this region [default: local]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The address to listen on; port 0 takes a free one [default: 127.0.0.1:4450]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// The directory that holds the store [default: ./tributary-data]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Which store keeps the documents [default: sled]
    #[arg(long, value_name = "KIND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreKind>,
    /// About how many MiB documents in memory and the store's cache may take [default: 256]
    #[arg(long = "memory-budget", value_name = "MIB")]
    #[serde(rename = "memory_budget_mib", skip_serializing_if = "Option::is_none")]
    pub memory_budget: Option<u64>,
}

impl Config {
    /// Reads the configuration: defaults, then the file, then the environment, then the flags.
    ///
    /// # Errors
    /// A sentence that names the key and where it came from.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = &flags.config {
            if !file.is_file() {
                return Err(ConfigError(format!("config file {} cannot be read", file.display())));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        let config: Self = figment
            .merge(Env::prefixed("TRIBUTARY_").split("__"))
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| ConfigError(describe(&error)))?;
        config.check()?;
        Ok(config)
    }

    /// The configuration as a file would say it.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration can be written as TOML")
    }

    /// The name of the region.
    pub fn region_name(&self) -> RegionName {
        RegionName::new(&self.region).expect("checked when it was read")
    }

    /// What the machine may spend.
    pub fn node_limits(&self, shards: usize) -> node::Limits {
        let documents = (self.memory_budget_mib << 20) / 2;
        let defaults = node::Limits::default();
        node::Limits {
            verify_after: Duration::from_secs_f64(self.archive.verify_after_seconds),
            compact_tail_bytes: self.archive.compact_tail_kib << 10,
            retain_bytes: self.retention.kib << 10,
            retain_age: Duration::from_secs(self.retention.hours * 3600),
            memory_bytes: documents as usize / shards,
            chunks: history::chunk::Limits {
                inflated_bytes_max: self.frame_bytes_max,
                ..history::chunk::Limits::default()
            },
            ..defaults
        }
    }

    /// How many shards there are.
    pub fn shard_count(&self) -> usize {
        match self.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            shards => shards,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let named = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let region = RegionName::new(&self.region).is_ok() && self.region.chars().all(named);
        let checks = [
            (region, "region", "1 to 64 letters, digits, '-', '_' or '.'"),
            (self.memory_budget_mib >= 32, "memory_budget_mib", "at least 32"),
            (
                (4096..=1 << 30).contains(&self.frame_bytes_max),
                "frame_bytes_max",
                "4096 to 1073741824",
            ),
            (self.sessions_max >= 1, "sessions_max", "at least 1"),
            ((1..=3600).contains(&self.join_seconds), "join_seconds", "1 to 3600"),
            ((1..=3600).contains(&self.ping_seconds), "ping_seconds", "1 to 3600"),
            ((1..=3600).contains(&self.write_seconds), "write_seconds", "1 to 3600"),
            ((0.0..=3600.0).contains(&self.drain_seconds), "drain_seconds", "0 to 3600"),
            (self.shards <= 1024, "shards", "0 to 1024"),
            ((1..=64).contains(&self.archive.workers), "archive.workers", "1 to 64"),
            (self.archive.memory_mib >= 256, "archive.memory_mib", "at least 256"),
            ((1..=3600).contains(&self.archive.job_seconds), "archive.job_seconds", "1 to 3600"),
            (
                (0.0..=86_400.0).contains(&self.archive.verify_after_seconds),
                "archive.verify_after_seconds",
                "0 to 86400",
            ),
            (self.archive.compact_tail_kib >= 1, "archive.compact_tail_kib", "at least 1"),
            (self.retention.hours <= 1_000_000, "retention.hours", "0 to 1000000"),
            (
                self.log.filter.parse::<tracing_subscriber::EnvFilter>().is_ok(),
                "log.filter",
                "a filter such as 'info'",
            ),
        ];
        match checks.iter().find(|(holds, _, _)| !holds) {
            Some((_, key, expected)) => Err(ConfigError(format!(
                "the value of '{key}' makes no sense: expected {expected}"
            ))),
            None => Ok(()),
        }
    }
}

fn describe(error: &figment::Error) -> String {
    let key = error.path.join(".");
    let source = error.metadata.as_ref().map(|metadata| match &metadata.source {
        Some(source) => format!(" (in {}, {source})", metadata.name),
        None => format!(" (in {})", metadata.name),
    });
    let about = if key.is_empty() { String::new() } else { format!("'{key}': ") };
    format!("{about}{}{}", error.kind, source.unwrap_or_default())
}

/// Why the configuration is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let flags = Flags { config: Some(file.path().to_owned()), ..Flags::default() };
        Config::load(&flags).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "region = 'eu'\nping_seconds = 7\n").unwrap();
        let flags = Flags {
            config: Some(file.path().to_owned()),
            region: Some("us".to_owned()),
            ..Flags::default()
        };
        let config = Config::load(&flags).unwrap();
        assert_eq!((config.region.as_str(), config.ping_seconds), ("us", 7));
        assert_eq!(config.join_seconds, Config::default().join_seconds);
    }

    #[test]
    fn what_check_config_prints_reads_back_as_the_same() {
        assert_eq!(with_file(&Config::default().to_toml()), Ok(Config::default()));
    }

    #[test]
    fn an_unknown_key_is_named() {
        assert!(with_file("regoin = 'eu'").unwrap_err().contains("regoin"));
        assert!(with_file("[archive]\nwrokers = 2").unwrap_err().contains("wrokers"));
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named() {
        for (text, key) in [
            ("listen = 'nowhere'", "listen"),
            ("join_seconds = 0", "join_seconds"),
            ("region = 'a b'", "region"),
            ("store = 'redis'", "store"),
            ("[archive]\nworkers = 0", "archive.workers"),
        ] {
            let error = with_file(text).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }
}
