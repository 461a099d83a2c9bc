use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::job::{Reason, Stage};

/// The longest text that a [`Reason`] carries, in characters: Automerge prints whole values into
/// some of its messages.
const MESSAGE_CHARS_MAX: usize = 300;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Does `work`, and turns a panic inside it into a reason.
///
/// What `work` was changing is half changed after that: throw it away.
pub(crate) fn guarded<T>(
    stage: Stage,
    work: impl FnOnce() -> Result<T, Reason>,
) -> Result<T, Reason> {
    keep_quiet_about_caught_panics();
    let outer = CATCHING.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(outer);
    outcome.unwrap_or_else(|_| {
        let message = LAST_PANIC.take();
        is_it_memory(&message);
        Err(Reason::Panicked { stage, message })
    })
}

/// From now on an error or panic that speaks of exhausted memory ends this process.
///
/// Most allocations that fail end it anyway; but some, in the inflating and deflating under
/// Automerge, become an error and then a panic, and would be blamed on a change when it is the
/// document that is too big. Only for workers: words can be forged by who writes the change, and a
/// worker is there to die.
pub(crate) fn die_of_exhausted_memory() {
    MAY_DIE.store(true, Ordering::Relaxed);
}

static MAY_DIE: AtomicBool = AtomicBool::new(false);

fn is_it_memory(message: &str) {
    if MAY_DIE.load(Ordering::Relaxed)
        && (message.contains("OutOfMemory") || message.contains("out of memory"))
    {
        eprintln!("memory exhausted: {message}");
        std::process::abort();
    }
}

/// Any error of Automerge as a reason.
pub(crate) fn refused(stage: Stage) -> impl Fn(automerge::AutomergeError) -> Reason {
    move |error| Reason::Refused { stage, message: brief(&error.to_string()) }
}

/// One line, not too long.
pub(crate) fn brief(text: &str) -> String {
    is_it_memory(text);
    text.lines().next().unwrap_or_default().chars().take(MESSAGE_CHARS_MAX).collect()
}

/// The panics caught here are answers, not accidents: they go to the caller and not to the terminal.
/// Panics of other threads, and of this one elsewhere, are printed as before.
fn keep_quiet_about_caught_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                return others(info);
            }
            let said = info.payload_as_str().unwrap_or("no message");
            let place = info.location().map_or_else(String::new, |at| {
                let file = at.file().rsplit(['/', '\\']).next().unwrap_or_default();
                format!(" at {file}:{}", at.line())
            });
            LAST_PANIC.set(format!("{}{place}", brief(said)));
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_reason_with_its_words_and_its_place() {
        let reason = guarded::<()>(Stage::Save, || panic!("the {} is lost", "thread")).unwrap_err();
        let Reason::Panicked { stage: Stage::Save, message } = reason else { panic!("{reason}") };
        assert!(message.starts_with("the thread is lost at guard.rs:"), "{message}");
    }

    #[test]
    fn a_long_message_is_cut_to_a_line() {
        assert_eq!(brief("first\nsecond"), "first");
        assert_eq!(brief(&"é".repeat(1_000)).chars().count(), MESSAGE_CHARS_MAX);
    }
}
