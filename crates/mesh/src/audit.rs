//! The audit: how two regions find out, without going through their documents, that they hold the
//! same, or which documents they do not hold alike.
//!
//! A document as it is (its heads, what is dead in it) is an [item](crate::exchange::item) of 64 bits;
//! a region is a set of items. Of the two regions at a link, the one whose name is smaller asks:
//!
//! ```text
//! every 30 s      Root ──────────────►  the same? RootSame; the look is over
//!                       ◄────────────── Symbols: the first 64 of the sketch
//! not enough yet  More ──────────────►  as many as the first ones make likely; again if need be
//!                       ◄────────────── Symbols
//! 3 s later       Root, expected ────►  the same difference still? RootSame
//! repair          Differ ────────────►  the items that only you have
//! 5 s later       Root ──────────────►  and so on, until they are the same
//! ```
//!
//! *What is under way is no difference.* At any moment some changes have arrived here and not there.
//! An item is the hash of a document's state, so one that is only here now and was only here 3 s ago
//! belongs to a document that did not change in between and that the other region still does not
//! have like this: only such items are repaired. A document that somebody types into without a
//! pause has never one item for so long; if a link has seen no equal roots for five minutes,
//! everything that differs is repaired.
//!
//! *Too different for the sketch* (about 5,900 items) are regions of which one is new, or was wiped.
//! If that, too, is still so 3 s later, both walk through all their items, range by range: the asker
//! asks for those of the answerer and compares. The shards set the pace: they answer for the next
//! range when they have room for more repairs. A walk that is cut off goes on where it was.
//!
//! *What repair does not mend* in five rounds is reported, on both sides, with its items.
//!
//! The machine has no clock and no sockets: time comes in, [`Effect`]s go out.

mod answerer;
mod asker;
mod message;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

pub use message::{ITEMS_MAX, Message, Root};

use crate::sketch::Symbol;
use answerer::Answerer;
use asker::Asker;

/// About how many items of a region one page of a walk covers. Much for one message, because a shard
/// may have to read all its rows to answer for a range.
const PAGE_ITEMS: u64 = 8_192;
/// The most items of either side that are given to repair after one look; more wait for the next.
const REPAIR_ITEMS_MAX: usize = 1_024;
/// How often the same item is repaired before it is reported.
const REPAIRS_MAX: u8 = 5;
/// How many symbols answer a root, unless the numbers of documents say that more are needed.
const SYMBOLS_FIRST: usize = 64;

/// When what is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From one look to the next, while all is well.
    pub every: Duration,
    /// From the link coming up, or from a skipped stretch of a log, to the first look.
    pub soon: Duration,
    /// How long an item has to differ until it is a difference.
    pub settle: Duration,
    /// From a repair to the look that shows whether it helped.
    pub again: Duration,
    /// How long the peer and our own shards may take for an answer.
    pub answer: Duration,
    /// The same for a page of a walk, for which shards wait until they have room for repairs.
    pub page: Duration,
    /// After how long without equal roots everything is repaired that differs.
    pub busy: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(30),
            soon: Duration::from_secs(3),
            settle: Duration::from_secs(3),
            again: Duration::from_secs(5),
            answer: Duration::from_secs(20),
            page: Duration::from_secs(120),
            busy: Duration::from_secs(300),
        }
    }
}

/// What a link tells every shard of its own region on behalf of the audit.
///
/// Each shard answers each of the first three once, for the state that it is in when it answers, and
/// repeats `round`, which is no number of a look but tells answers apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// How many items are there, and what is their sum?
    Root {
        /// To tell answers apart.
        round: u64,
    },
    /// Some symbols of the sketch.
    Symbols {
        /// To tell answers apart.
        round: u64,
        /// The place of the first.
        from: usize,
        /// The place after the last.
        to: usize,
    },
    /// All items in a range; to be answered when there is room for more repairs.
    Items {
        /// To tell answers apart.
        round: u64,
        /// The smallest item of the range.
        from: u64,
        /// The largest one.
        to: u64,
    },
    /// Repair the documents that have these items, as far as they are here. Not answered.
    Repair {
        /// The items.
        items: Vec<u64>,
    },
}

/// What one shard answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Ask::Root`].
    Root {
        /// Which question.
        round: u64,
        /// This shard's part.
        root: Root,
    },
    /// To [`Ask::Symbols`], all of them at once.
    Symbols {
        /// Which question.
        round: u64,
        /// This shard's part.
        symbols: Vec<Symbol>,
    },
    /// To [`Ask::Items`].
    Items {
        /// Which question.
        round: u64,
        /// This shard's items in the range, in any order.
        items: Vec<u64>,
    },
}

/// What the audit wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send this to the peer's audit.
    Send(Message),
    /// Tell this to every shard.
    Ask(Ask),
    /// Log and count this.
    Found(Finding),
}

/// What the audit found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The two regions hold the same. Only the asker says so, and what follows up to `Stuck`.
    Equal,
    /// So many items differ at this moment; some may merely be under way.
    Differs {
        /// That are only here.
        here: usize,
        /// That are only there.
        there: usize,
    },
    /// So many items were given to repair.
    Repairing {
        /// That are only here.
        here: usize,
        /// That are only there.
        there: usize,
    },
    /// More differs than the sketch can tell.
    TooDifferent {
        /// Documents here.
        here: u64,
        /// Documents there.
        there: u64,
    },
    /// A walk through all items has come to its end.
    Walked,
    /// The peer, or a shard of our own, did not answer in time. The look was given up.
    NoAnswer,
    /// These items still differ after all repairs. Said once for each item, on both sides.
    Stuck {
        /// That are only here.
        here: Vec<u64>,
        /// That are only there; not known to the answerer.
        there: Vec<u64>,
    },
}

/// What has happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Looks begun (asker), or answered.
    pub looks: u64,
    /// Looks that ended with equal roots. As all that follows, counted by the asker.
    pub equal: u64,
    /// Looks that ended with a difference, known or too large.
    pub different: u64,
    /// Items given to repair, of both sides; more than once if repaired more than once.
    pub repaired: u64,
    /// Walks ended.
    pub walks: u64,
    /// Items reported as stuck.
    pub stuck: u64,
    /// Looks given up for want of an answer.
    pub unanswered: u64,
}

/// What no honest peer says. The link is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// A question to the one who asks, or an answer to the one who answers.
    #[error("an audit message of the wrong side")]
    Side,
    /// Symbols that do not follow on those before, or a request for those already sent.
    #[error("audit symbols out of order")]
    Order,
    /// Items that are not in the range asked for.
    #[error("audit items outside of their range")]
    Range,
}

/// The audit of one link.
#[derive(Debug)]
pub struct Audit {
    side: Side,
    out: Out,
}

#[derive(Debug)]
enum Side {
    Asker(Asker),
    Answerer(Answerer),
}

impl Audit {
    /// The audit of a link that is down. `asks`: our region's name is smaller than the peer's.
    /// `shards`: how many answer each [`Ask`].
    pub fn new(asks: bool, shards: usize, pace: Pace) -> Self {
        let side =
            if asks { Side::Asker(Asker::new(pace)) } else { Side::Answerer(Answerer::new(pace)) };
        Self { side, out: Out { shards, ..Out::default() } }
    }

    /// The link is up.
    pub fn up(&mut self, now: Duration) {
        match &mut self.side {
            Side::Asker(asker) => asker.up(now),
            Side::Answerer(answerer) => answerer.stop(),
        }
    }

    /// The link is down. Nothing is under way any more; what was known stays known.
    pub fn down(&mut self) {
        match &mut self.side {
            Side::Asker(asker) => asker.down(),
            Side::Answerer(answerer) => answerer.stop(),
        }
    }

    /// Something was skipped in a log, on either side: the next look is not to wait for its turn.
    pub fn soon(&mut self, now: Duration) {
        if let Side::Asker(asker) = &mut self.side {
            asker.soon(now);
        }
    }

    /// Whether the regions are catching up with their logs, which will bring what differs.
    ///
    /// Then no look is begun, one under way is given up, and the peer is told to come again.
    pub fn hold(&mut self, now: Duration, catching_up: bool) {
        match &mut self.side {
            Side::Asker(asker) => asker.hold(now, catching_up),
            Side::Answerer(answerer) => answerer.hold(catching_up),
        }
    }

    /// The peer's audit says this.
    ///
    /// # Errors
    /// When no honest peer would.
    pub fn heard(&mut self, now: Duration, message: Message) -> Result<(), Wrong> {
        match &mut self.side {
            Side::Asker(asker) => asker.heard(now, message, &mut self.out),
            Side::Answerer(answerer) => answerer.heard(now, message, &mut self.out),
        }
    }

    /// A shard of our own answers. Answers to earlier questions are ignored.
    pub fn answered(&mut self, now: Duration, shard: usize, answer: Answer) {
        match &mut self.side {
            Side::Asker(asker) => asker.answered(now, shard, answer, &mut self.out),
            Side::Answerer(answerer) => answerer.answered(now, shard, answer, &mut self.out),
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        match &mut self.side {
            Side::Asker(asker) => asker.tick(now, &mut self.out),
            Side::Answerer(answerer) => answerer.tick(now),
        }
    }

    /// When [`tick`](Self::tick) has something to do. Changes with every call of another method.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match &self.side {
            Side::Asker(asker) => asker.timeout(),
            Side::Answerer(answerer) => answerer.timeout(),
        }
    }

    /// What is wanted next. At most a handful wait at any time.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.out.effects.pop_front()
    }

    /// What has happened since the start.
    pub fn counts(&self) -> Counts {
        self.out.counts
    }
}

/// What goes out, and what both sides count.
#[derive(Debug, Default)]
struct Out {
    effects: VecDeque<Effect>,
    counts: Counts,
    shards: usize,
    /// The number of the last question to the shards.
    asked: u64,
}

impl Out {
    fn send(&mut self, message: Message) {
        self.effects.push_back(Effect::Send(message));
    }

    fn found(&mut self, finding: Finding) {
        self.effects.push_back(Effect::Found(finding));
    }

    fn repair(&mut self, items: Vec<u64>) {
        if !items.is_empty() {
            self.effects.push_back(Effect::Ask(Ask::Repair { items }));
        }
    }

    /// Asks every shard.
    fn gather<T: Default>(&mut self, ask: impl FnOnce(u64) -> Ask) -> Gather<T> {
        self.asked += 1;
        self.effects.push_back(Effect::Ask(ask(self.asked)));
        Gather { round: self.asked, silent: vec![true; self.shards], total: T::default() }
    }
}

/// The answers of all shards to one question, as far as they have come.
#[derive(Debug)]
struct Gather<T> {
    round: u64,
    silent: Vec<bool>,
    total: T,
}

impl<T> Gather<T> {
    /// Where the answer of a shard belongs, if it is one to this question, and the first.
    fn part(&mut self, shard: usize, round: u64) -> Option<&mut T> {
        let silent = self.silent.get_mut(shard).filter(|silent| **silent && round == self.round)?;
        *silent = false;
        Some(&mut self.total)
    }

    fn is_done(&self) -> bool {
        !self.silent.contains(&true)
    }
}

impl Gather<Root> {
    fn root(&mut self, shard: usize, answer: &Answer) {
        if let Answer::Root { round, root } = answer
            && let Some(total) = self.part(shard, *round)
        {
            total.documents = total.documents.wrapping_add(root.documents);
            total.sum = total.sum.wrapping_add(root.sum);
        }
    }
}

impl Gather<Vec<Symbol>> {
    fn symbols(&mut self, shard: usize, answer: Answer) {
        if let Answer::Symbols { round, symbols } = answer {
            let first = !self.silent.contains(&false);
            if let Some(total) = self.part(shard, round) {
                if first {
                    *total = symbols;
                } else {
                    crate::sketch::merge(total, &symbols);
                }
            }
        }
    }
}

impl Gather<Vec<u64>> {
    fn items(&mut self, shard: usize, answer: Answer) {
        if let Answer::Items { round, items } = answer
            && let Some(total) = self.part(shard, round)
        {
            total.extend(items);
            if self.is_done() {
                self.total.sort_unstable();
            }
        }
    }
}
