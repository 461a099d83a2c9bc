//! Who may ask for a backup.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Backups over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupConfig {
    /// The file with the secret that whoever asks for a backup has to know. Empty: whoever asks from this
    /// machine gets one, and nobody else.
    pub key_file: PathBuf,
}
