//! Exit codes, and what they mean to whoever runs this.

use std::process::ExitCode;

/// Why the process ends other than well. The numbers are a contract: scripts depend on them.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// 1: something is wrong with what was asked for: `verify` found damage, there is no such document
    /// to export, `import` found nothing or left something out (the rest is in), or a region could not be
    /// asked or did not finish a backup.
    #[error("{0}")]
    Found(String),
    /// 2: the command line or the configuration makes no sense, or a directory that is to be new is not.
    #[error("{0}")]
    Usage(String),
    /// 3: the store cannot be opened or is not whole, or a server has it open.
    #[error("{0}")]
    Store(String),
    /// 4: the store failed while the server ran, or while `import`, `backup` or `restore` wrote; nothing that
    /// was acknowledged is lost.
    #[error("{0}")]
    StoreFailed(String),
    /// 5: the address cannot be listened on.
    #[error("{0}")]
    Listen(String),
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Found(_) => 1,
            Self::Usage(_) => 2,
            Self::Store(_) => 3,
            Self::StoreFailed(_) => 4,
            Self::Listen(_) => 5,
        })
    }
}
