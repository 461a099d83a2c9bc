//! The side that answers: it keeps what it needs for one look, and no plans.

use std::mem;
use std::time::Duration;

use super::{
    Answer, Ask, Finding, Gather, ITEMS_MAX, Message, Out, Pace, Root, SYMBOLS_FIRST, Wrong,
};
use crate::sketch::{LENGTH, Symbol};

/// Up to how many symbols may answer a root when the numbers of documents make so many likely.
const SYMBOLS_FIRST_MAX: usize = 1_024;

#[derive(Debug)]
pub(super) struct Answerer {
    pace: Pace,
    phase: Phase,
    /// The look that the phase is about.
    round: u64,
    /// When the phase is given up.
    deadline: Duration,
    held: bool,
}

#[derive(Debug)]
enum Phase {
    Rest,
    OwnRoot {
        theirs: Root,
        expected: Option<Root>,
        own: Gather<Root>,
    },
    OwnSymbols {
        to: usize,
        own: Gather<Vec<Symbol>>,
    },
    /// The symbols of one moment, until the look is over.
    Serve {
        own: Vec<Symbol>,
        sent: usize,
    },
    OwnItems {
        to: u64,
        own: Gather<Vec<u64>>,
    },
}

impl Answerer {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, phase: Phase::Rest, round: 0, deadline: Duration::ZERO, held: false }
    }

    pub(super) fn stop(&mut self) {
        self.phase = Phase::Rest;
    }

    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        (!matches!(self.phase, Phase::Rest)).then_some(self.deadline)
    }

    pub(super) fn tick(&mut self, now: Duration) {
        if self.timeout().is_some_and(|deadline| deadline <= now) {
            self.phase = Phase::Rest;
        }
    }

    pub(super) fn heard(
        &mut self,
        now: Duration,
        message: Message,
        out: &mut Out,
    ) -> Result<(), Wrong> {
        match message {
            Message::Root { round, .. } | Message::Page { round, .. } if self.held => {
                self.phase = Phase::Rest;
                out.send(Message::Busy { round });
            }
            Message::Root { round, root, expected } => {
                out.counts.looks += 1;
                let own = out.gather(|round| Ask::Root { round });
                self.round = round;
                self.enter(Phase::OwnRoot { theirs: root, expected, own }, now + self.pace.answer);
            }
            Message::Page { round, from, to } => {
                let own = out.gather(|round| Ask::Items { round, from, to });
                self.round = round;
                self.enter(Phase::OwnItems { to, own }, now + self.pace.page);
            }
            Message::More { round, to } => {
                if let Phase::Serve { own, sent } = &mut self.phase
                    && round == self.round
                {
                    if to <= *sent {
                        return Err(Wrong::Order);
                    }
                    let first = mem::replace(sent, to.min(own.len()));
                    out.send(stretch(round, own, first, *sent));
                    self.deadline = now + self.pace.answer;
                }
            }
            // Whichever look it is of: what is only here is only here.
            Message::Differ { items, .. } => out.repair(items),
            Message::Stuck { items, .. } => {
                out.counts.stuck += items.len() as u64;
                out.found(Finding::Stuck { here: items, there: Vec::new() });
            }
            Message::RootSame { .. }
            | Message::Symbols { .. }
            | Message::Items { .. }
            | Message::Busy { .. } => return Err(Wrong::Side),
        }
        Ok(())
    }

    pub(super) fn answered(&mut self, now: Duration, shard: usize, answer: Answer, out: &mut Out) {
        match &mut self.phase {
            Phase::OwnRoot { theirs, expected, own } => {
                own.root(shard, &answer);
                if own.is_done() {
                    let (ours, theirs, expected) = (own.total, *theirs, *expected);
                    self.compare(now, ours, theirs, expected, out);
                }
            }
            Phase::OwnSymbols { to, own } => {
                own.symbols(shard, answer);
                if own.is_done() {
                    let symbols = mem::take(&mut own.total);
                    let sent = (*to).min(symbols.len());
                    out.send(stretch(self.round, &symbols, 0, sent));
                    self.enter(Phase::Serve { own: symbols, sent }, now + self.pace.answer);
                }
            }
            Phase::OwnItems { to, own } => {
                own.items(shard, answer);
                if own.is_done() {
                    let (mut items, mut to) = (mem::take(&mut own.total), *to);
                    items.dedup();
                    if items.len() > ITEMS_MAX {
                        items.truncate(ITEMS_MAX);
                        to = items[ITEMS_MAX - 1];
                    }
                    out.send(Message::Items { round: self.round, to, items });
                    self.phase = Phase::Rest;
                }
            }
            Phase::Rest | Phase::Serve { .. } => {}
        }
    }

    fn compare(
        &mut self,
        now: Duration,
        ours: Root,
        theirs: Root,
        expected: Option<Root>,
        out: &mut Out,
    ) {
        if ours == theirs || Some(ours) == expected {
            out.send(Message::RootSame { round: self.round, as_expected: ours != theirs });
            self.phase = Phase::Rest;
            return;
        }
        // At least as many items differ as there are more on one side.
        let surplus = ours.documents.abs_diff(theirs.documents);
        let likely = usize::try_from(surplus).unwrap_or(LENGTH).saturating_mul(7) / 5;
        let to = SYMBOLS_FIRST + if likely <= SYMBOLS_FIRST_MAX { likely } else { 0 };
        let own = out.gather(|round| Ask::Symbols { round, from: 0, to: LENGTH });
        self.enter(Phase::OwnSymbols { to, own }, now + self.pace.answer);
    }

    fn enter(&mut self, phase: Phase, deadline: Duration) {
        self.phase = phase;
        self.deadline = deadline;
    }
}

fn stretch(round: u64, symbols: &[Symbol], first: usize, to: usize) -> Message {
    let documents = symbols.first().map_or(0, |all| all.count as u64);
    Message::Symbols { round, documents, first, symbols: symbols[first..to].to_vec() }
}
