//! Bugs that tests plant to see that they are caught. In a normal build there are none.

/// Makes the switch of a room's `Bug`: `plant` for tests, and `planted`, which is `const false` unless the
/// room is built for tests or with its feature `planted-bugs`.
#[macro_export]
macro_rules! planted_switch {
    ($bug:ty) => {
        #[cfg(any(test, feature = "planted-bugs"))]
        thread_local!(
            static PLANTED: ::std::cell::Cell<Option<$bug>> = const { ::std::cell::Cell::new(None) }
        );

        /// Plants a bug in this thread, or removes it.
        #[cfg(any(test, feature = "planted-bugs"))]
        pub fn plant(bug: Option<$bug>) {
            PLANTED.set(bug);
        }

        #[cfg(any(test, feature = "planted-bugs"))]
        pub(crate) fn planted(bug: $bug) -> bool {
            PLANTED.get() == Some(bug)
        }

        #[cfg(not(any(test, feature = "planted-bugs")))]
        pub(crate) const fn planted(_: $bug) -> bool {
            false
        }
    };
}

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

planted_switch!(Bug);
