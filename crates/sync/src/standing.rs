//! What is known of one peer on one document, and what to tell it next.
//!
//! Nothing here is kept when the connection ends, and nothing is ever queued: [`Standing::answer`]
//! makes the next message from the history at the moment when there is room to send it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use history::History;
use history::graph::Position;
use model::{ChangeHash, Heads};

use crate::bloom::Bloom;
use crate::message::{Flags, Have, Message, Reply};
use crate::planted::{Bug, planted};

/// How many different hashes a peer may ask for a second time before the oldest are forgotten.
const REPEATED_NEEDS_MAX: usize = 10_000;

/// Which changes go with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// None.
    None,
    /// A stretch of the log: what most peers get, and the same bytes for all of them.
    Range(Range<Position>),
    /// These, ascending.
    Some(Vec<Position>),
}

impl Changes {
    /// The positions, ascending.
    pub fn positions(&self) -> Vec<Position> {
        match self {
            Self::None => Vec::new(),
            Self::Range(range) => range.clone().collect(),
            Self::Some(positions) => positions.clone(),
        }
    }

    /// The smallest position, if there is any.
    pub fn first(&self) -> Option<Position> {
        match self {
            Self::None => None,
            Self::Range(range) => Some(range.start),
            Self::Some(positions) => positions.first().copied(),
        }
    }

    /// How many changes there are.
    pub fn count(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Range(range) => range.len(),
            Self::Some(positions) => positions.len(),
        }
    }
}

/// A message to send: what it says, and the changes that go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The message without its changes.
    pub reply: Reply,
    /// The changes.
    pub changes: Changes,
    /// Whether the peer reads version 2: the whole document in one item.
    pub version_2: bool,
}

/// How soon a peer should be told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// There is nothing to tell.
    Nothing,
    /// It has nothing to learn but that its changes are durable; several of these make one message.
    Acknowledge,
    /// There is news.
    News,
}

/// What is known of one peer on one document during one connection.
#[derive(Debug, Default)]
pub struct Standing {
    /// The heads that the peer said last; `None` before it said any.
    their_heads: Option<Heads>,
    /// Where those of them are that we know.
    their_known: Vec<Position>,
    /// Those that we do not know.
    their_unknown: Vec<ChangeHash>,
    /// The heads that we said last.
    told: Option<Heads>,
    /// Every head was known at some point, so the peer holds exactly their ancestors and what was
    /// sent since. Then everything below `position` is held, sent, or `owed`.
    level: bool,
    /// Changes from here on have not been considered for this peer.
    position: Position,
    /// Changes below `position` that are to be sent.
    owed: BTreeSet<Position>,
    /// Changes from `position` on that came from this peer.
    theirs: BTreeSet<Position>,
    /// What was sent while not level.
    sent: BTreeSet<Position>,
    /// Nothing is said before the log is durable up to here (rule R1).
    hold_until: Position,
    /// What we asked for last.
    asked: Vec<ChangeHash>,
    /// How often the peer asked for what was sent already.
    asked_again: BTreeMap<ChangeHash, u32>,
    reply_owed: bool,
    acknowledgement_owed: bool,
    /// The peer's last message had the heads it has and no changes.
    shown: bool,
    version_2: bool,
    read_only: bool,
    /// The peer holds a second history under an actor of ours. A message with the first one in it
    /// would fail as a whole, so it is sent no changes.
    forked: bool,
    /// It was sent, on this connection, what is such a history by now. Whether it has taken it in shows
    /// only in messages that are still on their way, so until it has gone back it counts as forked.
    sent_dead: bool,
    /// The peer is another region: it decides between two histories as we do, and can be sent both.
    region: bool,
    /// The last message was a part of what is owed. What follows waits until the peer has said something.
    part_under_way: bool,
    /// The peer's last message was such a part.
    more_follows: bool,
    /// The peer did not keep what we sent, so no message may presume that it does.
    distrust: bool,
    /// The heads for which a reset was answered with all that the peer lacks.
    reset_answered: Option<Heads>,
}

impl Standing {
    /// A standing with another region, of which nothing is known yet.
    pub fn of_region() -> Self {
        Self { region: true, ..Self::default() }
    }

    /// Takes in a message. Its changes have been offered to the history before; `handed` are the
    /// positions of those that are in the log, whether they are new there or not.
    pub fn receive(&mut self, message: &Message, handed: &[Position], history: &History) {
        self.part_under_way = false;
        let first = self.their_heads.is_none();
        let reset = message.is_reset();
        let mut reopen = self.take_flags(message, reset);

        let resolved = history.resolve(&message.heads);
        let went_back = match &self.their_heads {
            Some(heads) if *heads == message.heads => false,
            Some(heads) if message.heads.is_empty() => !heads.is_empty(),
            Some(_) => !history.graph().covers(&resolved.known, &self.their_known),
            None => false,
        };
        reopen |= went_back && !planted(Bug::NeverGoBack);
        reopen |= self.starts_over(message) && !reset;
        self.sent_dead &= !reopen;
        let forked = (resolved.forked || self.sent_dead) && !self.region;
        reopen |= self.forked && !forked;
        self.forked = forked;
        if reopen {
            self.forget();
        }
        for position in handed {
            self.owed.remove(position);
            if *position >= self.position || first || reopen {
                self.theirs.insert(*position);
            }
        }
        self.reply_owed |= first && !planted(Bug::NoFirstReply) || reopen || reset;
        self.acknowledgement_owed |= !message.items.is_empty() && !planted(Bug::AcknowledgesAtOnce);
        self.shown = message.items.is_empty();
        if !planted(Bug::AnswersEarly) {
            self.hold_until = (handed.iter().chain(&resolved.known).max())
                .map_or(self.hold_until, |last| self.hold_until.max(last + 1));
        }
        self.their_known = resolved.known;
        self.their_unknown = resolved.unknown;
        // A peer that names what we do not have, and did not send it, has to be asked for it.
        self.level &= self.their_unknown.is_empty();
        if !self.level {
            self.open(message, first || reopen, history);
        }
        self.take_need(message, history);
        self.take_reset(message, reset, history);
        self.their_heads = Some(message.heads.clone());
    }

    /// Starts over with the heads that the peer said last, because positions have changed: the
    /// history lost changes that turned out not to fit.
    pub fn restart(&mut self, history: &History) {
        let Some(heads) = &self.their_heads else { return };
        let resolved = history.resolve(heads);
        self.their_known = resolved.known;
        self.their_unknown = resolved.unknown;
        // Heads that we told of were sent, if anything was.
        let told = self.told.as_ref().filter(|_| self.level || !self.sent.is_empty());
        self.sent_dead |= told.is_some_and(|told| history.resolve(told).forked);
        self.forked = (resolved.forked || self.sent_dead) && !self.region;
        self.forget();
        self.hold_until = 0;
        self.told = None;
        self.reply_owed = true;
        self.position = history.durable();
        if self.their_unknown.is_empty() {
            self.owed = history.beyond(&self.their_known).into_iter().collect();
            self.level = true;
        }
    }

    /// The peer has been told, by other means, that there is nothing here: the first reply is given,
    /// and the document is news as soon as it turns up (rule R3).
    ///
    /// It has not heard what we hold, so what it makes next it will name and not send: until it has
    /// shown something that is known here, we are not level.
    pub fn declined(&mut self) {
        self.reply_owed = false;
        self.level = false;
        self.told = Some(Heads::none());
    }

    /// Speaks first, to a peer that has said nothing: our heads, and no filter. If it knows all of
    /// them it answers with exactly what we lack.
    pub fn greet(&mut self, history: &History) -> Answer {
        let heads = history.heads().clone();
        self.told = Some(heads.clone());
        let reply = Reply { heads, need: Vec::new(), have: None, flags: Flags::default() };
        Answer { reply, changes: Changes::None, version_2: true }
    }

    /// The heads that the peer said last.
    pub fn their_heads(&self) -> Option<&Heads> {
        self.their_heads.as_ref()
    }

    /// Whether these were the heads that we said last.
    pub fn has_told(&self, heads: &Heads) -> bool {
        self.told.as_ref() == Some(heads)
    }

    /// Whether the peer will not apply changes.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether this peer holds, or was sent, everything that is durable, and nothing is unknown.
    pub fn is_level(&self, history: &History) -> bool {
        self.level && self.owed.is_empty() && self.position >= history.durable()
    }

    /// How soon the peer should be told something.
    pub fn urgency(&self, history: &History) -> Urgency {
        if self.their_heads.is_none() || self.part_under_way || history.durable() < self.hold_until
        {
            return Urgency::Nothing;
        }
        if self.reply_owed
            || self.has_changes(history)
            || self.has_need_news(history)
            || (self.has_heads_news(history) && !self.acknowledgement_owed)
        {
            return Urgency::News;
        }
        let acknowledges = self.acknowledgement_owed && !planted(Bug::NeverAcknowledges);
        if acknowledges { Urgency::Acknowledge } else { Urgency::Nothing }
    }

    /// The next message, if there is anything to say (rule R2), and assumes that it is sent.
    pub fn answer(&mut self, history: &History) -> Option<Answer> {
        if self.urgency(history) == Urgency::Nothing {
            return None;
        }
        let asks = !self.level && !self.more_follows;
        let need = if asks { history.missing(&self.their_unknown) } else { Vec::new() };
        // A question goes alone: a peer that cannot take in our changes, because it holds a second
        // history under one actor, does not read the rest of a message with them either.
        let changes = if need.is_empty() || need == self.asked {
            self.take_changes(history)
        } else {
            Changes::None
        };
        let heads = match planted(Bug::NamesWhatIsNotDurable) {
            false => history.heads().clone(),
            true => history.graph().heads().clone(),
        };
        if planted(Bug::SendsReset) && !self.their_unknown.is_empty() {
            let have = Some(Have::nothing());
            let reply = Reply { heads, need: Vec::new(), have, flags: Flags::default() };
            return Some(Answer { reply, changes: Changes::None, version_2: self.version_2 });
        }
        let trusted = self.level && self.takes_changes(history) && !self.distrust;
        let have = if self.more_follows {
            None
        } else if trusted || planted(Bug::PresumeAlways) {
            Some(Have { last_sync: heads.as_slice().to_vec(), bloom: Bloom::empty() })
        } else {
            Some(self.what_they_may_lack(history))
        };
        self.told = Some(heads.clone());
        self.asked.clone_from(&need);
        self.reply_owed = planted(Bug::AlwaysAnswer);
        self.acknowledgement_owed = false;
        let reply = Reply { heads, need, have, flags: Flags::default() };
        Some(Answer { reply, changes, version_2: self.version_2 })
    }

    /// Keeps back what is too much for one message: the changes from a position on. They are owed, and go
    /// when the peer has said something. Says whether there are any.
    pub fn keep_back(&mut self, answer: &mut Answer, from: Position) -> bool {
        let mut positions = answer.changes.positions();
        let later = positions.split_off(positions.partition_point(|position| *position < from));
        if later.is_empty() {
            return false;
        }
        for position in &later {
            self.sent.remove(position);
        }
        self.owed.extend(later);
        self.part_under_way = true;
        answer.changes = Changes::Some(positions);
        true
    }

    /// Whether the message that is about to be received is a part, and more follows when it is answered.
    /// Until all is there we ask for nothing, and do not say what we hold.
    pub fn expect_more(&mut self, more_follows: bool) {
        self.more_follows = more_follows;
    }

    /// Flags describe the sender, except on a reset, which never carries them (rule R6).
    fn take_flags(&mut self, message: &Message, reset: bool) -> bool {
        let Some(flags) = message.flags else { return false };
        self.version_2 = true;
        let mut reopen = false;
        if !reset || planted(Bug::ResetTellsReadOnly) {
            let read_only = flags.contains(Flags::READ_ONLY);
            // What we held back while it was read-only is due now (rule R10).
            reopen |= self.read_only && !read_only && !planted(Bug::ReadersStayBehind);
            self.read_only = read_only;
        }
        reopen || flags.contains(Flags::SYNC_RESET)
    }

    /// Rule R7, where the heads do not show it: the document was closed and opened again as it was.
    /// A client that has heard our heads counts those it knows as common ground from then on, and
    /// none says the same heads twice without a reason.
    fn starts_over(&self, message: &Message) -> bool {
        self.told.as_ref().is_some_and(|told| !told.is_empty())
            && self.their_heads.as_ref() == Some(&message.heads)
            && self.their_unknown.is_empty()
            && !message.heads.is_empty()
            && message.items.is_empty()
            && message.need.is_empty()
            && !message.have.is_empty()
            && message.have.iter().all(|have| have.last_sync.is_empty())
    }

    fn forget(&mut self) {
        self.part_under_way = false;
        self.level = false;
        self.owed.clear();
        self.theirs.clear();
        self.sent.clear();
        self.asked.clear();
        self.asked_again.clear();
    }

    /// Rule R4. All heads known: the peer holds exactly their ancestors. Else we ask for the rest, and
    /// send what its filter proves that it lacks.
    fn open(&mut self, message: &Message, fresh: bool, history: &History) {
        if fresh {
            self.position = history.durable();
        }
        if self.their_unknown.is_empty() && !planted(Bug::BelievesHave) {
            let lacks = history.beyond(&self.their_known);
            let lacks = lacks.into_iter().filter(|position| *position < self.position);
            self.owed.extend(lacks);
            for position in self.sent.iter().chain(&self.theirs) {
                self.owed.remove(position);
            }
            self.sent.clear();
            self.theirs = self.theirs.split_off(&self.position);
            self.level = true;
            return;
        }
        if message.have.is_empty() {
            return;
        }
        let last_sync = history.resolve(message.have.iter().flat_map(|have| have.last_sync.iter()));
        if !last_sync.unknown.is_empty() && !planted(Bug::SendsOnUnknownGround) {
            return;
        }
        let mut lacking = BTreeSet::new();
        for position in history.beyond(&last_sync.known) {
            let hash = history.graph().hash(position);
            let proven = message.have.iter().all(|have| !have.bloom.contains(&hash))
                || history.graph().deps(position).iter().any(|dep| lacking.contains(dep));
            if proven {
                lacking.insert(position);
            }
        }
        for position in lacking {
            if position < self.position
                && !self.sent.contains(&position)
                && !self.theirs.contains(&position)
            {
                self.owed.insert(position);
            }
        }
    }

    /// Rule R9: what was not sent is sent; what was is sent again, with all that the peer may lack,
    /// when it is asked for the 2nd, 4th, 8th… time. The first time the two have merely crossed.
    fn take_need(&mut self, message: &Message, history: &History) {
        if !self.takes_changes(history) {
            return;
        }
        let mut again = false;
        for hash in &message.need {
            let Some(position) = history.graph().position(hash) else { continue };
            if position >= self.position || self.owed.contains(&position) {
                continue;
            }
            if !self.level && self.sent.insert(position) {
                self.sent.remove(&position);
                self.owed.insert(position);
                continue;
            }
            if self.asked_again.len() >= REPEATED_NEEDS_MAX {
                self.asked_again.pop_first();
            }
            let times = self.asked_again.entry(*hash).or_default();
            *times += 1;
            if *times >= 2 && times.is_power_of_two() && !planted(Bug::IgnoreRepeatedNeed) {
                again = true;
                self.owed.insert(position);
            }
        }
        if again {
            self.resend(history);
        }
    }

    /// Rule R6: the peer says that it does not know what we took for common ground.
    fn take_reset(&mut self, message: &Message, reset: bool, history: &History) {
        if reset {
            self.distrust = !planted(Bug::TrustAfterReset);
            if self.reset_answered.as_ref() != Some(&message.heads)
                && !planted(Bug::ResetResendsNothing)
            {
                self.reset_answered = Some(message.heads.clone());
                self.resend(history);
            }
        } else if self.distrust {
            let told = self.told.as_ref().map(|told| history.resolve(told).known);
            self.distrust =
                !told.is_some_and(|told| history.graph().covers(&self.their_known, &told));
        }
    }

    fn resend(&mut self, history: &History) {
        let lacks = history.beyond(&self.their_known);
        self.owed.extend(lacks.into_iter().filter(|position| *position < self.position));
    }

    /// Where there are two histories of an actor, whoever names what we do not know may have made it
    /// on top of the other one: that has to be seen first.
    fn takes_changes(&self, history: &History) -> bool {
        let clear = self.level || self.region || !history.has_forks();
        (!self.read_only || planted(Bug::SendsToReaders)) && !self.forked && clear
    }

    fn has_changes(&self, history: &History) -> bool {
        if !self.takes_changes(history) {
            return false;
        }
        let new = (history.durable() - self.position.min(history.durable())) as usize;
        !self.owed.is_empty() || new > self.theirs.range(..history.durable()).count()
    }

    /// The peer's own heads are no news to it, once it has shown them without changes.
    fn has_heads_news(&self, history: &History) -> bool {
        let shown = self.shown && self.their_heads.as_ref() == Some(history.heads());
        self.told.as_ref() != Some(history.heads()) && !shown
    }

    fn has_need_news(&self, history: &History) -> bool {
        if self.level || self.more_follows || self.their_unknown.is_empty() {
            return false;
        }
        let need = history.missing(&self.their_unknown);
        !need.is_empty() && need != self.asked
    }

    fn take_changes(&mut self, history: &History) -> Changes {
        let new = self.position.min(history.durable())..history.durable();
        self.position = history.durable();
        if !self.takes_changes(history) {
            self.owed.clear();
            self.theirs = self.theirs.split_off(&self.position);
            return Changes::None;
        }
        let changes = if self.owed.is_empty() && self.theirs.range(new.clone()).next().is_none() {
            if new.is_empty() { Changes::None } else { Changes::Range(new) }
        } else {
            let mut positions: Vec<Position> = std::mem::take(&mut self.owed).into_iter().collect();
            positions.extend(new.filter(|position| !self.theirs.contains(position)));
            match (positions.first(), positions.last()) {
                (Some(first), Some(last)) if (last - first) as usize + 1 == positions.len() => {
                    Changes::Range(*first..*last + 1)
                }
                (Some(_), Some(_)) => Changes::Some(positions),
                _ => Changes::None,
            }
        };
        if !self.level {
            self.sent.extend(changes.positions());
        }
        self.theirs = self.theirs.split_off(&self.position);
        changes
    }

    /// Rule R5: what the peer has for certain, and a filter of everything else that we hold.
    fn what_they_may_lack(&self, history: &History) -> Have {
        let known = self.their_known.iter().filter(|position| **position < history.durable());
        let known: Vec<Position> = known.copied().collect();
        let last_sync: Heads =
            known.iter().map(|position| history.graph().hash(*position)).collect();
        let others = history.beyond(&known);
        let bloom = Bloom::of(others.iter().map(|position| history.graph().hash(*position)));
        Have { last_sync: last_sync.as_slice().to_vec(), bloom }
    }
}
