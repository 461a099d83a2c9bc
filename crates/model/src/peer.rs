use std::fmt;
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest one that is accepted, in bytes.
            pub const BYTES_MAX: usize = $max;

            /// Checks the length and takes the text.
            ///
            /// # Errors
            /// When it is empty or longer than the bound.
            pub fn new(text: &str) -> Result<Self, NameTooLong> {
                if text.is_empty() || text.len() > Self::BYTES_MAX {
                    return Err(NameTooLong { what: stringify!($name), bytes: text.len(), max: $max });
                }
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// How a peer calls itself on one connection (`senderId`). Any text; nothing proves it.
    PeerId, 256
);
name!(
    /// A store that outlives connections (`storageId`). A UUID at stock clients, any text in practice.
    StorageId, 256
);
name!(
    /// The name of a region, unique in a mesh.
    RegionName, 64
);

/// A name is empty or longer than its bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} of {bytes} bytes; 1 to {max} are accepted")]
pub struct NameTooLong {
    /// Which kind of name.
    pub what: &'static str,
    /// How long it was.
    pub bytes: usize,
    /// The bound.
    pub max: usize,
}
