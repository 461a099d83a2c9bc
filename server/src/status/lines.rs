//! The last warnings and errors of the log, for those who look at the status page and have no shell.
//!
//! The page is as public as the port. So a line is kept without whatever may hold somebody's words:
//! only fields whose values this program makes itself, and each only so long.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use utoipa::ToSchema;

/// How many different lines are kept; the one that has not come again for longest goes first.
pub const LINES_MAX: usize = 50;
/// How many characters of a message or a value are kept.
const CHARS_MAX: usize = 300;

/// The fields that are kept. Not among them: addresses that may carry a password (`url`), what peers
/// say of themselves (`answer`, `from`), and what workers say of a document, which may quote it.
const KEPT: [&str; 12] = [
    "document",
    "session",
    "region",
    "change",
    "copy",
    "log",
    "lane",
    "descendants",
    "seconds",
    "error",
    "why",
    "reason",
];

/// One line of the log, with how often it has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = LogLine)]
pub struct Line {
    /// When it came last, in milliseconds since 1970 by this server's clock.
    pub at: u64,
    /// `error` or `warn`.
    pub level: String,
    /// What it says.
    pub message: String,
    /// What it says it of: document, region, session, why.
    pub fields: BTreeMap<String, String>,
    /// How often it has come.
    pub count: u64,
}

/// The last lines.
#[derive(Debug, Default)]
pub struct Lines(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The one that came last is at the end.
    lines: VecDeque<Line>,
    errors: u64,
    warnings: u64,
}

impl Lines {
    /// The lines, the newest first.
    pub fn newest(&self) -> Vec<Line> {
        self.with(|kept| kept.lines.iter().rev().cloned().collect())
    }

    /// How many errors and how many warnings there have been since the start.
    pub fn counts(&self) -> (u64, u64) {
        self.with(|kept| (kept.errors, kept.warnings))
    }

    /// A layer that writes here.
    pub fn layer(self: &Arc<Self>) -> Recorder {
        Recorder(self.clone())
    }

    fn push(&self, mut line: Line) {
        self.with(|kept| {
            *(if line.level == "error" { &mut kept.errors } else { &mut kept.warnings }) += 1;
            // A region that is down is reported every few seconds, and would push out all else.
            let same = |old: &Line| {
                (&old.level, &old.message, &old.fields)
                    == (&line.level, &line.message, &line.fields)
            };
            if let Some(at) = kept.lines.iter().position(same)
                && let Some(old) = kept.lines.remove(at)
            {
                line.count += old.count;
            }
            kept.lines.push_back(line);
            while kept.lines.len() > LINES_MAX {
                kept.lines.pop_front();
            }
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut Kept) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Takes warnings and errors out of the stream of the log.
pub struct Recorder(Arc<Lines>);

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            _ => return,
        };
        let mut words = Words::default();
        event.record(&mut words);
        // About a document, a worker's reason may quote what is in it. The log has it.
        if words.fields.contains_key("document") {
            words.fields.remove("reason");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.push(Line {
            at: now.as_millis() as u64,
            level: level.to_owned(),
            message: words.message,
            fields: words.fields,
            count: 1,
        });
    }
}

/// What an event says.
#[derive(Default)]
struct Words {
    message: String,
    fields: BTreeMap<String, String>,
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = Bounded(String::new(), CHARS_MAX);
        // It ends with an error when there is no more room, which is fine.
        let _ = write!(text, "{value:?}");
        match field.name() {
            "message" => self.message = text.0,
            name if KEPT.contains(&name) => drop(self.fields.insert(name.to_owned(), text.0)),
            _ => {}
        }
    }
}

/// Text up to a length, on one line.
struct Bounded(String, usize);

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            if self.1 == 0 {
                self.0.push('…');
                return Err(std::fmt::Error);
            }
            self.0.push(if c.is_control() { ' ' } else { c });
            self.1 -= 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn logged(what: impl FnOnce()) -> Arc<Lines> {
        let lines = Arc::new(Lines::default());
        let subscriber = tracing_subscriber::registry().with(lines.layer());
        tracing::subscriber::with_default(subscriber, what);
        lines
    }

    #[test]
    fn warnings_and_errors_are_kept_and_nothing_else() {
        let lines = logged(|| {
            tracing::info!("all is well");
            tracing::warn!(region = %"us", "the link is down");
            tracing::error!(error = "no room", "the store has failed");
        });
        let newest = lines.newest();
        let said: Vec<_> = newest.iter().map(|line| (&*line.level, &*line.message)).collect();
        assert_eq!(said, [("error", "the store has failed"), ("warn", "the link is down")]);
        assert_eq!(newest[1].fields["region"], "us");
        assert_eq!(newest[0].fields["error"], "no room");
        assert_eq!(lines.counts(), (1, 1));
    }

    #[test]
    fn what_comes_again_is_one_line_and_its_place_is_the_newest() {
        let lines = logged(|| {
            for n in 0..5 {
                tracing::warn!(region = %"us", "a region is not reached");
                tracing::warn!(session = n, "another");
            }
            tracing::warn!(region = %"us", "a region is not reached");
        });
        assert_eq!(lines.newest().len(), 6);
        assert_eq!((lines.newest()[0].count, lines.newest()[1].count), (6, 1));
        assert_eq!(lines.counts(), (0, 11));
    }

    #[test]
    fn neither_lines_nor_their_length_grow_without_bound() {
        let lines = logged(|| {
            for session in 0..1_000 {
                tracing::warn!(session, error = %"x\n".repeat(10_000), "again");
            }
        });
        let newest = lines.newest();
        assert_eq!((newest.len(), newest[0].fields["session"].as_str()), (LINES_MAX, "999"));
        assert_eq!(newest[0].fields["error"].chars().count(), CHARS_MAX + 1);
        assert!(!newest[0].fields["error"].contains('\n'));
    }

    #[test]
    fn what_may_be_a_secret_or_somebodys_words_is_left_out() {
        let lines = logged(|| {
            tracing::error!(document = %"4NMN", reason = "at key 'my diary'", "change set aside");
            tracing::warn!(url = %"ws://me:password@host", answer = "hello", "a region was refused");
        });
        let text = format!("{:?}", lines.newest());
        for secret in ["diary", "password", "hello"] {
            assert!(!text.contains(secret), "{text}");
        }
        assert!(text.contains("4NMN"));
    }
}
