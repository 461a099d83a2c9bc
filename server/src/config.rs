//! Configuration: defaults < file < environment < flags, parsed once into types.
//!
//! Every key is a field here; `tributary check-config` prints what is in force. A key that is not
//! known, or a value that makes no sense, stops the start with the key's name.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Uri;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use model::RegionName;
use serde::{Deserialize, Serialize};

use crate::backup::config::BackupConfig;
use crate::rest::config::RestConfig;

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
    /// How many documents one connection may have open on each shard.
    pub documents_per_session: usize,
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
    /// The other regions. One with a URL is dialled, one without is expected to dial.
    pub link: Vec<LinkConfig>,
    /// The archive: where documents are opened with Automerge.
    pub archive: ArchiveConfig,
    /// How long changes stay readable one by one after a snapshot covers them.
    pub retention: RetentionConfig,
    /// What is logged.
    pub log: LogConfig,
    /// REST.
    pub rest: RestConfig,
    /// Backups of the running server.
    pub backup: BackupConfig,
    /// What all links to other regions have in common.
    pub mesh: MeshConfig,
}

/// What all links to other regions have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshConfig {
    /// The file with the secret that all regions share. Empty: this region has no links.
    pub key_file: PathBuf,
    /// A PEM file with the certificates that `wss` trusts. Empty: those that the system trusts.
    pub ca_file: PathBuf,
}

/// Another region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkConfig {
    /// Its name, as it calls itself.
    pub name: String,
    /// Where it is dialled: `ws://host:port` or `wss://host:port`. Empty: it dials us.
    #[serde(default)]
    pub url: String,
}

/// The archive: worker processes that open documents with Automerge, off the hot path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveConfig {
    /// How many worker processes for what clients wait for, and as many for upkeep.
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

impl StoreKind {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Sqlite => "sqlite",
        }
    }
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
            documents_per_session: 100_000,
            join_seconds: 10,
            ping_seconds: 15,
            write_seconds: 30,
            drain_seconds: 2.0,
            shards: 0,
            link: Vec::new(),
            archive: ArchiveConfig {
                workers: 1,
                memory_mib: 2048,
                job_seconds: 60,
                verify_after_seconds: 2.0,
                compact_tail_kib: 64,
            },
            retention: RetentionConfig { kib: 1024, hours: 7 * 24 },
            log: LogConfig { filter: "info".to_owned(), format: LogFormat::Text },
            rest: RestConfig::default(),
            backup: BackupConfig::default(),
            mesh: MeshConfig { key_file: PathBuf::new(), ca_file: PathBuf::new() },
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
    /// Another region, and where it is dialled (ws or wss); may be repeated
    #[arg(long = "link", value_name = "NAME=URL", value_parser = parse_link)]
    #[serde(skip)]
    pub links: Vec<LinkConfig>,
    /// The file with the secret that all regions of the mesh share
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub mesh_key_file: Option<PathBuf>,
}

/// `NAME=ws://host:port`. What is in it is checked with the rest.
fn parse_link(text: &str) -> Result<LinkConfig, String> {
    match text.split_once('=') {
        Some((name, url)) if !url.is_empty() => {
            Ok(LinkConfig { name: name.to_owned(), url: url.to_owned() })
        }
        _ => Err("expected NAME=ws://host:port or NAME=wss://host:port".to_owned()),
    }
}

impl Config {
    /// Reads the configuration: defaults, then the file, then the environment, then the flags.
    ///
    /// # Errors
    /// A sentence that names the key and where it came from.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = &flags.config {
            // Read here too, because its reader takes a file that it may not read for an empty one.
            std::fs::read_to_string(file).map_err(|error| {
                let file = file.display();
                ConfigError(format!("the config file {file} cannot be read: {error}"))
            })?;
            figment = figment.merge(Toml::file_exact(file));
        }
        let mut config: Self = figment
            .merge(Env::prefixed("TRIBUTARY_").split("__"))
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| ConfigError(describe(&error)))?;
        config.take_link_flags(flags);
        config.check()?;
        config.check_links()?;
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

    /// The other regions that are configured.
    pub fn other_regions(&self) -> Vec<RegionName> {
        let names = self.link.iter().map(|link| RegionName::new(&link.name));
        names.collect::<Result<_, _>>().expect("checked when it was read")
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
            documents_per_session: self.documents_per_session,
            memory_bytes: documents as usize / shards,
            open_bytes: documents as usize / shards,
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
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(SHARDS_MAX),
            shards => shards,
        }
    }

    /// Links on the command line come on top of those in the file, and replace their namesakes.
    fn take_link_flags(&mut self, flags: &Flags) {
        if let Some(file) = &flags.mesh_key_file {
            self.mesh.key_file.clone_from(file);
        }
        self.link.retain(|link| flags.links.iter().all(|flag| flag.name != link.name));
        self.link.extend(flags.links.iter().cloned());
    }

    fn check(&self) -> Result<(), ConfigError> {
        let checks = [
            (is_region_name(&self.region), "region", "1 to 64 letters, digits, '-', '_' or '.'"),
            (self.memory_budget_mib >= 32, "memory_budget_mib", "at least 32"),
            (
                (4096..=1 << 30).contains(&self.frame_bytes_max),
                "frame_bytes_max",
                "4096 to 1073741824",
            ),
            (
                is_unset(&self.mesh.key_file) || self.frame_bytes_max <= LINKED_FRAME_BYTES_MAX,
                "frame_bytes_max",
                "67108864 at most where mesh.key_file is set, for other regions have to take it, too",
            ),
            (self.sessions_max >= 1, "sessions_max", "at least 1"),
            (self.documents_per_session >= 1, "documents_per_session", "at least 1"),
            ((1..=3600).contains(&self.join_seconds), "join_seconds", "1 to 3600"),
            ((1..=3600).contains(&self.ping_seconds), "ping_seconds", "1 to 3600"),
            ((1..=3600).contains(&self.write_seconds), "write_seconds", "1 to 3600"),
            ((0.0..=3600.0).contains(&self.drain_seconds), "drain_seconds", "0 to 3600"),
            (self.shards <= SHARDS_MAX, "shards", "0 to 16"),
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
        let checks = checks.into_iter().chain(self.rest.checks());
        match checks.into_iter().find(|(holds, _, _)| !holds) {
            Some((_, key, expected)) => Err(ConfigError(format!(
                "the value of '{key}' makes no sense: expected {expected}"
            ))),
            None => Ok(()),
        }
    }

    fn check_links(&self) -> Result<(), ConfigError> {
        let refuse = |text: String| Err(ConfigError(text));
        let mut names = BTreeSet::new();
        for LinkConfig { name, url } in &self.link {
            if !is_region_name(name) {
                return refuse(format!(
                    "the value of 'link.name' makes no sense: '{name}' is not 1 to 64 letters, \
                     digits, '-', '_' or '.'"
                ));
            }
            if *name == self.region {
                return refuse(format!(
                    "the value of 'link.name' makes no sense: '{name}' is the name of this region"
                ));
            }
            if !names.insert(name) {
                return refuse(format!("'link' names the region '{name}' twice"));
            }
            if !url.is_empty()
                && let Err(why) = check_link_url(url)
            {
                return refuse(format!(
                    "the value of 'link.url' of '{name}' makes no sense: '{url}' {why}; expected \
                     ws://host:port or wss://host:port"
                ));
            }
        }
        if self.link.len() > LINKS_MAX {
            return refuse(format!("'link': at most {LINKS_MAX} regions can be linked"));
        }
        if !self.link.is_empty() && is_unset(&self.mesh.key_file) {
            return refuse(
                "'link' without 'mesh.key_file': regions prove to each other that they know one \
                 secret; put it into a file and name that (--mesh-key-file)"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// A document belongs to one of as many streams in every region, and so to one shard.
const SHARDS_MAX: usize = mesh::STREAMS as usize;
/// A frame between regions has room for what was one message of a client, with what is around it.
const LINKED_FRAME_BYTES_MAX: usize = mesh::frame::FRAME_BYTES_MAX - (8 << 20);
/// How many other regions there may be.
pub const LINKS_MAX: usize = 64;

/// Whether a path was left empty.
pub fn is_unset(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn is_region_name(text: &str) -> bool {
    let named = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    RegionName::new(text).is_ok() && text.chars().all(named)
}

fn check_link_url(text: &str) -> Result<(), String> {
    let uri: Uri = text.parse().map_err(|error| format!("is not a URL ({error})"))?;
    if !matches!(uri.scheme_str(), Some("ws" | "wss")) {
        return Err("begins with neither ws:// nor wss://".to_owned());
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("has a user name in it, which nobody would ask for".to_owned());
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err("names no host".to_owned());
    }
    match uri.path_and_query().map(|path| path.as_str()) {
        None | Some("/" | "") => Ok(()),
        Some(path) => Err(format!("has a path ('{path}'), but the endpoint is always /mesh")),
    }
}

fn describe(error: &figment::Error) -> String {
    let key = error.path.join(".");
    let source = error.metadata.as_ref().map(|metadata| match &metadata.source {
        // Flags come out of a type of this program, which is nothing to whoever reads this.
        Some(figment::Source::Code(_)) => " (on the command line)".to_owned(),
        Some(source) => format!(" (in {}, {source})", metadata.name),
        None => format!(" (in {})", metadata.name),
    });
    let hint = match key.as_str() {
        "listen" => "; expected an address and a port, such as 127.0.0.1:4450",
        _ => "",
    };
    let about = if key.is_empty() { String::new() } else { format!("'{key}': ") };
    format!("{about}{}{}{hint}", error.kind, source.unwrap_or_default())
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
    fn links_on_the_command_line_join_those_in_the_file_and_replace_their_namesakes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "mesh.key_file = 'k'\n[[link]]\nname = 'us'\n[[link]]\nname = 'ap'\n";
        std::fs::write(file.path(), text).unwrap();
        let flags = Flags {
            config: Some(file.path().to_owned()),
            links: vec![parse_link("us=ws://us:1").unwrap(), parse_link("sa=wss://sa:2").unwrap()],
            ..Flags::default()
        };
        let config = Config::load(&flags).unwrap();
        let links: Vec<_> = config.link.iter().map(|l| (l.name.as_str(), l.url.as_str())).collect();
        assert_eq!(links, [("ap", ""), ("us", "ws://us:1"), ("sa", "wss://sa:2")]);
        assert_eq!(with_file(&config.to_toml()), Ok(config));
    }

    #[test]
    fn a_link_flag_without_a_name_or_a_url_is_refused() {
        for text in ["us", "us=", "ws://us:1"] {
            assert!(parse_link(text).is_err(), "{text}");
        }
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
            ("shards = 17", "shards"),
            ("[mesh]\nkey_fiel = 'k'", "key_fiel"),
            ("[[link]]\nname = 'us'\nurl = 'ws://us:4450'", "mesh.key_file"),
            ("mesh.key_file = 'k'\n[[link]]\nurl = 'ws://us:4450'", "name"),
            ("mesh.key_file = 'k'\n[[link]]\nname = 'u s'", "link.name"),
            ("mesh.key_file = 'k'\n[[link]]\nname = 'local'", "link.name"),
            ("mesh.key_file = 'k'\n[[link]]\nname = 'us'\n[[link]]\nname = 'us'", "twice"),
            ("mesh.key_file = 'k'\n[[link]]\nname = 'us'\nurl = 'http://us'", "link.url"),
            ("mesh.key_file = 'k'\n[[link]]\nname = 'us'\nurl = 'ws://us:4450/sync'", "link.url"),
            ("mesh.key_file = 'k'\n[[link]]\nname = 'us'\nurl = 'us:4450'", "link.url"),
        ] {
            let error = with_file(text).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }
}
