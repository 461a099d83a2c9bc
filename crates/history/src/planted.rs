//! Bugs that tests plant to see that they are caught. In a normal build there are none.

/// Something a history forgets of what it refused (rule R8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A refused change is as unknown as one never heard of.
    ForgetsRefused,
    /// What builds on a refused change waits for it.
    AwaitsRefused,
}

impl Bug {
    /// Every one of them.
    pub const ALL: [Self; 2] = [Self::ForgetsRefused, Self::AwaitsRefused];
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
