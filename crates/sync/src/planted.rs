//! Bugs that tests plant to see that they are caught. In a normal build there are none.

/// A rule left out or broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// R2: a message is answered whether there is news or not.
    AlwaysAnswer,
    /// R5: our heads are presumed to be common ground in every message.
    PresumeAlways,
    /// R6: after a reset the peer is trusted as before.
    TrustAfterReset,
    /// R6: a reset is answered without the changes.
    ResetResendsNothing,
    /// R6: the missing flags of a reset are taken to say that the peer is not read-only.
    ResetTellsReadOnly,
    /// R7: a peer whose heads went back is not opened again.
    NeverGoBack,
    /// R9: what was sent once is never sent again.
    IgnoreRepeatedNeed,
}

#[cfg(any(test, feature = "planted-bugs"))]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local!(static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) });

    /// Plants a bug in this thread, or removes it.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub(crate) fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(any(test, feature = "planted-bugs"))]
pub use switch::plant;
#[cfg(any(test, feature = "planted-bugs"))]
pub(crate) use switch::planted;

#[cfg(not(any(test, feature = "planted-bugs")))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}
