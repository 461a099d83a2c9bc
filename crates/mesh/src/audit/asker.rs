//! The side that asks: when to look, how far to ask, what to repair.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use super::{
    Answer, Ask, Finding, Gather, Message, Out, PAGE_ITEMS, Pace, REPAIR_ITEMS_MAX, REPAIRS_MAX,
    Root, Wrong,
};
use crate::sketch::{Decoder, LENGTH, Symbol, weight};

/// The longest rest before a walk is repeated, in times of what lies between two looks.
const WALK_REST_MAX: u32 = 20;

#[derive(Debug)]
pub(super) struct Asker {
    pace: Pace,
    phase: Phase,
    /// When the phase is given up; of a rest, when the next look begins.
    deadline: Duration,
    /// The number of the look, or of the page.
    round: u64,
    held: bool,
    /// All items that differed at the last look that told them.
    suspects: BTreeMap<u64, Suspect>,
    /// A look has already been taken out of turn because of items that might have been under way.
    followed: bool,
    /// Since when no roots have been equal.
    unequal_since: Option<Duration>,
    /// The last look was too much for the sketch.
    too_different: bool,
    /// Where the walk goes on.
    walk_from: u64,
    /// Where the page before that began.
    walk_before: u64,
    /// How many walks there have been since the sketch last sufficed.
    walks: u32,
}

/// An item in which the regions differ.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    here: bool,
    since: Duration,
    repairs: u8,
    reported: bool,
}

#[derive(Debug)]
enum Phase {
    Off,
    Rest,
    OwnRoot { own: Gather<Root> },
    TheirRoot { own: Root },
    OwnSymbols { theirs: Vec<Symbol>, own: Gather<Vec<Symbol>> },
    Decode { own: Vec<Symbol>, decoder: Decoder },
    Page(Page),
}

/// A page of the walk.
#[derive(Debug)]
struct Page {
    to: u64,
    /// How much the next one spans.
    width: u64,
    own: Gather<Vec<u64>>,
    theirs: Option<(u64, Vec<u64>)>,
}

impl Asker {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            phase: Phase::Off,
            deadline: Duration::ZERO,
            round: 0,
            held: false,
            suspects: BTreeMap::new(),
            followed: false,
            unequal_since: None,
            too_different: false,
            walk_from: 0,
            walk_before: 0,
            walks: 0,
        }
    }

    pub(super) fn up(&mut self, now: Duration) {
        self.rest(now + self.pace.soon);
    }

    pub(super) fn down(&mut self) {
        self.phase = Phase::Off;
        self.unequal_since = None;
        // What the last page found may not have reached the peer.
        self.walk_from = self.walk_before;
    }

    pub(super) fn soon(&mut self, now: Duration) {
        if let Phase::Rest = self.phase {
            self.deadline = self.deadline.min(now + self.pace.soon);
        }
    }

    pub(super) fn hold(&mut self, now: Duration, held: bool) {
        if mem::replace(&mut self.held, held) == held || matches!(self.phase, Phase::Off) {
            return;
        }
        // The first look after it gives what came last the time to settle.
        if !matches!(self.phase, Phase::Rest) {
            self.rest(now);
        }
        self.deadline = self.deadline.max(now + self.pace.settle);
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        match self.phase {
            Phase::Off => None,
            _ => Some(self.deadline),
        }
    }

    pub(super) fn tick(&mut self, now: Duration, out: &mut Out) {
        if self.timeout().is_none_or(|deadline| deadline > now) {
            return;
        }
        if self.held && matches!(self.phase, Phase::Rest) {
            // Whoever calls says each time whether it still is.
            self.rest(now + self.pace.settle);
        } else if let Phase::Rest = self.phase {
            self.round += 1;
            out.counts.looks += 1;
            let own = out.gather(|round| Ask::Root { round });
            self.enter(Phase::OwnRoot { own }, now + self.pace.answer);
        } else {
            out.counts.unanswered += 1;
            out.found(Finding::NoAnswer);
            self.rest(now + self.pace.every);
        }
    }

    pub(super) fn heard(
        &mut self,
        now: Duration,
        message: Message,
        out: &mut Out,
    ) -> Result<(), Wrong> {
        let current = self.round;
        match message {
            Message::RootSame { round, as_expected } if round == current => {
                if let Phase::TheirRoot { .. } = self.phase {
                    let same = if as_expected { self.suspects.clone() } else { BTreeMap::new() };
                    self.settle(now, same.iter().map(|(item, suspect)| (*item, suspect.here)), out);
                }
                Ok(())
            }
            Message::Symbols { round, documents, first, symbols } if round == current => {
                self.symbols(now, documents, first, symbols, out)
            }
            Message::Items { round, to, items } if round == current => {
                self.items(now, to, items, out)
            }
            Message::Busy { round } if round == current => {
                if !matches!(self.phase, Phase::Off | Phase::Rest) {
                    self.rest(now + self.pace.again);
                }
                Ok(())
            }
            // Of a look that was given up.
            Message::RootSame { .. }
            | Message::Symbols { .. }
            | Message::Items { .. }
            | Message::Busy { .. } => Ok(()),
            Message::Root { .. }
            | Message::More { .. }
            | Message::Differ { .. }
            | Message::Stuck { .. }
            | Message::Page { .. } => Err(Wrong::Side),
        }
    }

    pub(super) fn answered(&mut self, now: Duration, shard: usize, answer: Answer, out: &mut Out) {
        match &mut self.phase {
            Phase::OwnRoot { own } => {
                own.root(shard, &answer);
                if own.is_done() {
                    let root = own.total;
                    out.send(Message::Root {
                        round: self.round,
                        root,
                        expected: self.expect(root),
                    });
                    self.enter(Phase::TheirRoot { own: root }, now + self.pace.answer);
                }
            }
            Phase::OwnSymbols { theirs, own } => {
                own.symbols(shard, answer);
                if own.is_done() {
                    let (theirs, own) = (mem::take(theirs), mem::take(&mut own.total));
                    self.decode(now, own, Decoder::new(), theirs, out);
                }
            }
            Phase::Page(page) => {
                page.own.items(shard, answer);
                self.turn(now, out);
            }
            Phase::Off | Phase::Rest | Phase::TheirRoot { .. } | Phase::Decode { .. } => {}
        }
    }

    /// What the peer's root is if exactly the suspects still differ.
    fn expect(&self, own: Root) -> Option<Root> {
        let mut root = own;
        for (item, suspect) in &self.suspects {
            if suspect.here {
                root.documents = root.documents.wrapping_sub(1);
                root.sum = root.sum.wrapping_sub(weight(*item));
            } else {
                root.documents = root.documents.wrapping_add(1);
                root.sum = root.sum.wrapping_add(weight(*item));
            }
        }
        (!self.suspects.is_empty()).then_some(root)
    }

    fn symbols(
        &mut self,
        now: Duration,
        documents: u64,
        first: usize,
        symbols: Vec<Symbol>,
        out: &mut Out,
    ) -> Result<(), Wrong> {
        match &mut self.phase {
            Phase::TheirRoot { .. } if first != 0 => Err(Wrong::Order),
            Phase::TheirRoot { own } => {
                // So many can never be told apart by the sketch.
                if own.documents.abs_diff(documents) >= LENGTH as u64 {
                    let ours = own.documents;
                    self.overflow(now, ours, documents, out);
                } else {
                    let own = out.gather(|round| Ask::Symbols { round, from: 0, to: LENGTH });
                    let deadline = now + self.pace.answer;
                    self.enter(Phase::OwnSymbols { theirs: symbols, own }, deadline);
                }
                Ok(())
            }
            Phase::Decode { own, decoder } => {
                if first != decoder.len() {
                    return Err(Wrong::Order);
                }
                let (own, decoder) = (mem::take(own), mem::take(decoder));
                self.decode(now, own, decoder, symbols, out);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Goes on with the peer's next symbols, and asks for more if they do not suffice.
    fn decode(
        &mut self,
        now: Duration,
        own: Vec<Symbol>,
        mut decoder: Decoder,
        theirs: Vec<Symbol>,
        out: &mut Out,
    ) {
        let before = decoder.len();
        for (ours, theirs) in own[before.min(own.len())..].iter().zip(&theirs) {
            decoder.push(ours.minus(*theirs));
        }
        if decoder.is_complete() {
            let here = decoder.here().iter().map(|item| (*item, true));
            let there = decoder.there().iter().map(|item| (*item, false));
            return self.settle(now, here.chain(there), out);
        }
        let length = decoder.len();
        // It takes 1.3 to 1.6 symbols for each item. The first estimate may be a third off, and is
        // as often too high as too low; the next one is hardly a fifth off, and what is too much by
        // it costs less than to ask a third time.
        let estimate = decoder.estimate();
        let likely = estimate.saturating_mul(if before == 0 { 28 } else { 37 }) / 20;
        // No symbols at all: the peer has no more.
        if likely > LENGTH * 3 / 2 || length >= own.len() || length == before {
            let ours = own.first().map_or(0, |all| all.count as u64);
            let theirs = ours.wrapping_sub(decoder.surplus() as u64);
            return self.overflow(now, ours, theirs, out);
        }
        // Where the estimate says that there should be enough already, it is a matter of luck.
        let to = likely.max(length + length / 8 + 8).min(own.len());
        out.send(Message::More { round: self.round, to });
        self.enter(Phase::Decode { own, decoder }, now + self.pace.answer);
    }

    /// The look is over: these items differ. Repairs those that have differed for long enough, and
    /// decides when to look again.
    fn settle(&mut self, now: Duration, differ: impl Iterator<Item = (u64, bool)>, out: &mut Out) {
        self.too_different = false;
        (self.walk_from, self.walk_before) = (0, 0);
        self.walks = 0;
        let fresh = |here| Suspect { here, since: now, repairs: 0, reported: false };
        let known = mem::take(&mut self.suspects);
        let suspects = differ.map(|(item, here)| match known.get(&item) {
            Some(suspect) if suspect.here == here => (item, *suspect),
            _ => (item, fresh(here)),
        });
        self.suspects = suspects.collect();
        if self.suspects.is_empty() {
            out.counts.equal += 1;
            out.found(Finding::Equal);
            self.unequal_since = None;
            self.followed = false;
            return self.rest(now + self.pace.every);
        }
        out.counts.different += 1;
        let here = self.suspects.values().filter(|suspect| suspect.here).count();
        out.found(Finding::Differs { here, there: self.suspects.len() - here });

        let unequal_since = *self.unequal_since.get_or_insert(now);
        let all = now >= unequal_since + self.pace.busy;
        if all {
            self.unequal_since = Some(now);
        }
        self.report(out);
        let hopeful = self.repair(now, all, out);
        let fresh = self.suspects.values().any(|suspect| suspect.repairs == 0);
        let next = if hopeful {
            self.followed = false;
            self.pace.again
        } else if fresh && !self.followed {
            self.followed = true;
            self.pace.settle
        } else {
            self.followed = false;
            self.pace.every
        };
        self.rest(now + next);
    }

    /// Gives to repair what has differed for long enough, or `all`. Says whether there was anything
    /// of which it may be hoped that it helps.
    fn repair(&mut self, now: Duration, all: bool, out: &mut Out) -> bool {
        let settle = self.pace.settle;
        let mut ripe: Vec<(u64, &mut Suspect)> = self
            .suspects
            .iter_mut()
            .filter(|(_, suspect)| all || now >= suspect.since + settle)
            .map(|(item, suspect)| (*item, suspect))
            .collect();
        // Those that were never repaired first: what is stuck must not keep others waiting.
        ripe.sort_by_key(|(item, suspect)| (suspect.repairs, *item));
        let (mut here, mut there, mut hopeful) = (Vec::new(), Vec::new(), false);
        for (item, suspect) in ripe {
            let list = if suspect.here { &mut here } else { &mut there };
            if list.len() < REPAIR_ITEMS_MAX {
                list.push(item);
                suspect.repairs = suspect.repairs.saturating_add(1);
                hopeful |= !suspect.reported;
            }
        }
        if !here.is_empty() || !there.is_empty() {
            out.counts.repaired += (here.len() + there.len()) as u64;
            out.found(Finding::Repairing { here: here.len(), there: there.len() });
            self.hand_out(here, there, out);
        }
        hopeful
    }

    /// Reports what no repair has mended.
    fn report(&mut self, out: &mut Out) {
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for (item, suspect) in &mut self.suspects {
            if suspect.repairs >= REPAIRS_MAX && !suspect.reported {
                suspect.reported = true;
                if suspect.here { here.push(*item) } else { there.push(*item) }
            }
        }
        if !here.is_empty() || !there.is_empty() {
            out.counts.stuck += (here.len() + there.len()) as u64;
            if !there.is_empty() {
                out.send(Message::Stuck { round: self.round, items: there.clone() });
            }
            out.found(Finding::Stuck { here, there });
        }
    }

    fn hand_out(&self, here: Vec<u64>, there: Vec<u64>, out: &mut Out) {
        if !there.is_empty() {
            out.send(Message::Differ { round: self.round, items: there });
        }
        out.repair(here);
    }

    /// The sketch does not suffice. What is under way may be much, so once is not enough to walk;
    /// and a walk that did not help, or whose repairs are not done yet, is not repeated at once.
    fn overflow(&mut self, now: Duration, here: u64, there: u64, out: &mut Out) {
        out.counts.different += 1;
        out.found(Finding::TooDifferent { here, there });
        self.suspects.clear();
        if mem::replace(&mut self.too_different, true) {
            let pages = here.max(there).div_ceil(PAGE_ITEMS).max(1);
            self.page(now, u64::MAX / pages, out);
        } else if self.walks == 0 {
            self.rest(now + self.pace.settle);
        } else {
            self.rest(now + self.pace.every * self.walks.min(WALK_REST_MAX));
        }
    }

    fn page(&mut self, now: Duration, width: u64, out: &mut Out) {
        self.round += 1;
        let from = self.walk_from;
        // The last page takes what dividing left over.
        let to = if u64::MAX - from < width.saturating_mul(2) { u64::MAX } else { from + width };
        out.send(Message::Page { round: self.round, from, to });
        let own = out.gather(|round| Ask::Items { round, from, to });
        self.enter(Phase::Page(Page { to, width, own, theirs: None }), now + self.pace.page);
    }

    fn items(
        &mut self,
        now: Duration,
        to: u64,
        mut items: Vec<u64>,
        out: &mut Out,
    ) -> Result<(), Wrong> {
        let range = self.walk_from..=to;
        if let Phase::Page(page) = &mut self.phase {
            items.sort_unstable();
            // An end before the first item would make a walk without an end.
            if to > page.to || range.is_empty() || !items.iter().all(|item| range.contains(item)) {
                return Err(Wrong::Range);
            }
            page.theirs = Some((to, items));
            self.turn(now, out);
        }
        Ok(())
    }

    /// Goes on to the next page if everything about this one is here.
    fn turn(&mut self, now: Duration, out: &mut Out) {
        let Phase::Page(page) = &mut self.phase else { return };
        if !page.own.is_done() {
            return;
        }
        let Some((to, theirs)) = page.theirs.take() else { return };
        let (width, mut ours) = (page.width, mem::take(&mut page.own.total));
        ours.retain(|item| *item <= to);
        let here: Vec<u64> = less(&ours, &theirs);
        let there: Vec<u64> = less(&theirs, &ours);
        out.counts.repaired += (here.len() + there.len()) as u64;
        self.hand_out(here, there, out);
        match to.checked_add(1) {
            Some(from) => {
                self.walk_before = mem::replace(&mut self.walk_from, from);
                self.page(now, width, out);
            }
            None => {
                (self.walk_from, self.walk_before) = (0, 0);
                self.too_different = false;
                self.walks = self.walks.saturating_add(1);
                out.counts.walks += 1;
                out.found(Finding::Walked);
                self.rest(now + self.pace.again);
            }
        }
    }

    fn rest(&mut self, until: Duration) {
        self.enter(Phase::Rest, until);
    }

    fn enter(&mut self, phase: Phase, deadline: Duration) {
        self.phase = phase;
        self.deadline = deadline;
    }
}

/// What is in one ascending list and not in the other.
fn less(list: &[u64], other: &[u64]) -> Vec<u64> {
    list.iter().copied().filter(|item| other.binary_search(item).is_err()).collect()
}
