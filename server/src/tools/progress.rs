//! How far long work is: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How often a bar is drawn, so that it moves while one document takes long.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// Shows progress on standard error; results go to standard output without disturbing it.
pub struct Progress {
    what: &'static str,
    total: Option<u64>,
    done: u64,
    bar: Option<ProgressBar>,
    next_line: Instant,
}

impl Progress {
    /// Starts to count. `what` is what is being counted, in words such as "reading rows"; `total` is
    /// how many there will be, if that is known.
    pub fn start(what: &'static str, total: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let (bar, template) = match total {
                Some(total) => (ProgressBar::new(total), "{msg} {wide_bar} {pos}/{len} {eta}"),
                None => (ProgressBar::new_spinner(), "{spinner} {msg} {pos} ({elapsed})"),
            };
            let style = ProgressStyle::with_template(template).expect("the template is valid");
            bar.set_style(style);
            bar.set_message(what);
            bar.enable_steady_tick(DRAW_EVERY);
            bar
        });
        Self { what, total, done: 0, bar, next_line: Instant::now() + LINE_EVERY }
    }

    /// One more is done.
    pub fn step(&mut self) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
        } else if Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE_EVERY;
            match self.total {
                Some(total) => self.warn(&format!("{}: {} of {total}", self.what, self.done)),
                None => self.warn(&format!("{}: {}", self.what, self.done)),
            }
        }
    }

    /// Writes a line to standard output.
    pub fn say(&self, line: &str) {
        // Whoever reads this may stop reading, as `head` does; that is no reason to die.
        self.apart(|| drop(writeln!(std::io::stdout(), "{line}")));
    }

    /// Writes a line to standard error.
    pub fn warn(&self, line: &str) {
        self.apart(|| drop(writeln!(std::io::stderr(), "{line}")));
    }

    fn apart(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
