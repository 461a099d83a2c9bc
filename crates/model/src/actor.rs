use std::fmt;
use std::sync::Arc;

/// Who made a change: the actor id of Automerge, any bytes (usually 16 random ones).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorId(Arc<[u8]>);

impl ActorId {
    /// The longest actor id that is accepted. Stock clients use 16 bytes; the format knows no bound.
    pub const BYTES_MAX: usize = 1024;

    /// An actor id from its bytes.
    ///
    /// # Errors
    /// When there are more than [`ActorId::BYTES_MAX`] of them.
    pub fn new(bytes: &[u8]) -> Result<Self, ActorTooLong> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(ActorTooLong { bytes: bytes.len() });
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An actor id is longer than [`ActorId::BYTES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an actor id of {bytes} bytes; at most {} are accepted", ActorId::BYTES_MAX)]
pub struct ActorTooLong {
    /// How long it was.
    pub bytes: usize,
}
