//! A document and other regions: what comes through their logs, what is repaired with them, what is
//! dead in all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use history::chunk::{Change, read_change};
use history::graph::Position;
use history::varint::{Malformed, Reader, put};
use history::{Door, Offer, Refusal};
use mesh::exchange::FromShard;
use mesh::{Entry, origin};
use model::{ChangeHash, RegionName};

use crate::context::Context;
use crate::document::{Document, Peer};
use crate::mesh_state::dead_entry;
use crate::planted::{Bug, planted};
use crate::rows::{self, Death};
use crate::{CloseReason, Now, Report, SessionId, mesh_rows};

/// What a message of a repair starts with.
pub(crate) const SYNC: u8 = 0;
const DEAD: u8 = 1;
const GREETING: u8 = 2;
/// A part of what the other region lacks, which is answered so that the next one can come.
pub(crate) const PART: u8 = 3;

/// How many changes of one actor with one number are kept, when a client goes on with a branch that is
/// dead. An honest one writes one; whoever writes thousands is not to fill the disk with them.
const DEAD_RIVALS_MAX: u32 = 8;

/// A document that clients wait for, because another region may have it.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) until: Duration,
    /// The regions that have not answered.
    waiting: BTreeSet<SessionId>,
}

/// What a document knows because there are other regions.
#[derive(Debug, Default)]
pub(crate) struct Abroad {
    /// Changes that other regions gave us and that are not in the log yet; whether they have a row.
    pub(crate) waiting: BTreeMap<ChangeHash, bool>,
    /// Those of them that wait for a burial. Their rows may be behind that of the burial, so these are
    /// not read from the store when it is done.
    again: Vec<Change>,
    /// Positions, not on their way to the store yet, of changes that came from other regions: they
    /// have their place in an origin log already.
    pub(crate) foreign: BTreeSet<u32>,
    /// Changes that have to leave the log.
    pub(crate) condemned: BTreeMap<ChangeHash, Refusal>,
    pub(crate) asking: Option<Asking>,
    /// Not asked again before this.
    ask_again_at: Duration,
    /// Losing branches may have grown: their copies are made, or made longer.
    pub(crate) copy_due: bool,
    /// That will be so when the next batch of this document is durable.
    copy_wanted: bool,
    /// That will be so when so many of its batches are.
    copy_after: Option<u64>,
    submissions: u64,
    commits: u64,
    pub(crate) item: Option<mesh_rows::Item>,
}

impl Document {
    /// A change out of another region's log.
    pub(crate) fn take_from_log(&mut self, ctx: &mut Context, change: &Change, now: Now) {
        self.touched = now.running;
        self.take_abroad(ctx, change);
    }

    fn take_abroad(&mut self, ctx: &mut Context, change: &Change) {
        if self.upkeep.is_burying() {
            self.abroad.again.push(change.clone());
            return self.keep_waiting(ctx, change);
        }
        if !self.has_directory(ctx) {
            return self.keep_waiting(ctx, change);
        }
        let mut outcomes = Vec::new();
        self.history.offer(change.clone(), Door::Region, &mut |change, offer| {
            outcomes.push((change.clone(), offer));
        });
        for (change, offer) in outcomes {
            self.settle(ctx, None, &change, &offer);
        }
        self.stage(ctx);
        self.carry_out_sentences(ctx);
    }

    /// What follows from an offer, whoever made it.
    pub(crate) fn settle(
        &mut self,
        ctx: &mut Context,
        from: Option<SessionId>,
        change: &Change,
        offer: &Offer,
    ) {
        let hash = change.hash();
        let is_region = from.is_none_or(|session| ctx.is_region(session));
        match offer {
            Offer::Appended(position) => {
                if let Some(has_row) = self.abroad.waiting.remove(&hash) {
                    self.abroad.foreign.insert(*position);
                    if has_row {
                        ctx.write(mesh_rows::delete_waiting(&self.id, &hash));
                    }
                } else if is_region {
                    self.abroad.foreign.insert(*position);
                }
                self.abroad.copy_due |= self.history.concerns_dead(change);
            }
            Offer::Known(_) => {
                if self.abroad.waiting.remove(&hash) == Some(true) {
                    ctx.write(mesh_rows::delete_waiting(&self.id, &hash));
                }
            }
            Offer::Pending if is_region => self.keep_waiting(ctx, change),
            Offer::Outranks(_) if planted(Bug::FirstWins) => {}
            Offer::Outranks(position) => {
                self.abroad.again.push(change.clone());
                self.keep_waiting(ctx, change);
                self.condemn_occupant(*position, change);
            }
            Offer::Refused(Refusal::TooManyPending { .. }) if is_region => {
                self.keep_waiting(ctx, change);
            }
            Offer::Refused(why) => {
                let on_the_dead = matches!(why, Refusal::Descendant { on, .. }
                    if self.history.is_dead(on))
                    && self.history.dead_rivals(change) < DEAD_RIVALS_MAX;
                if is_region || on_the_dead {
                    self.set_aside(ctx, change, why, !is_region);
                }
            }
            Offer::Pending | Offer::NeedsCrdt(_) => {}
        }
    }

    /// Whoever has the slot of this change has to leave the log: its hash is larger.
    pub(crate) fn condemn_occupant(&mut self, occupant: Position, change: &Change) {
        let hash = self.history.graph().hash(occupant);
        let (actor, seq) = (change.actor().to_string(), change.seq());
        let why = Refusal::Forked { hash, actor, seq };
        self.abroad.condemned.entry(hash).or_insert(why);
    }

    /// Keeps a change durably until it can be offered again.
    fn keep_waiting(&mut self, ctx: &mut Context, change: &Change) {
        if planted(Bug::DropsWaiting) {
            return;
        }
        if self.abroad.waiting.insert(change.hash(), true) != Some(true) {
            ctx.write(mesh_rows::put_waiting(&self.id, change));
        }
    }

    /// A change is dead. `tell`: it came from a client here, so no other region has it yet.
    fn set_aside(&mut self, ctx: &mut Context, change: &Change, why: &Refusal, tell: bool) {
        let hash = change.hash();
        if self.abroad.waiting.remove(&hash) == Some(true) {
            ctx.write(mesh_rows::delete_waiting(&self.id, &hash));
        }
        let buried = self.history.has_buried(&hash);
        if buried {
            return;
        }
        let death = death_of(why);
        let reason = why.to_string();
        ctx.write(rows::put_dead(&self.id, death, &reason, change));
        // Those that waited for it are dead with it.
        let mut heirs = Vec::new();
        let occupant = self.history.bury(change, why.clone(), &mut |change, offer| {
            heirs.push((change.clone(), offer));
        });
        if let Some(occupant) = occupant {
            self.condemn_occupant(occupant, change);
        }
        if tell {
            let item = origin::Item::Change(change.clone());
            ctx.publish(Entry { document: self.id.clone(), item });
        } else if death == Death::Misfit && !matches!(why, Refusal::Dead { .. }) {
            // Our own finding; everybody else has to know it.
            ctx.publish(dead_entry(&self.id, hash, reason.clone()));
        }
        self.copy_when_durable(ctx);
        ctx.item_changed(&self.id);
        ctx.counters.died += 1;
        ctx.report(Report::Died {
            document: self.id.clone(),
            change: hash,
            descendants: 0,
            reason,
        });
        for (heir, offer) in heirs {
            if let Offer::Refused(why) = offer {
                let tell = !self.abroad.waiting.contains_key(&heir.hash());
                self.set_aside(ctx, &heir, &why, tell);
            }
        }
    }

    /// Another region has found that a change does not fit.
    pub(crate) fn doom(&mut self, ctx: &mut Context, hash: ChangeHash, reason: &str) {
        let known = self.history.is_doomed(&hash)
            || self.history.refusal(&hash).is_some_and(|why| death_of(why) == Death::Misfit);
        if known && self.history.is_dead(&hash) {
            return;
        }
        ctx.write(rows::put_verdict(&self.id, &hash, reason));
        if self.history.has_buried(&hash) {
            // Dead already, because of another change; copies may hold it, and have to hear of it.
            self.history.convict(&hash, reason.to_owned());
            return self.copy_when_durable(ctx);
        }
        ctx.item_changed(&self.id);
        if self.history.doom(hash, reason.to_owned()).is_some() {
            let why = Refusal::Dead { hash, reason: reason.to_owned() };
            self.abroad.condemned.insert(hash, why);
            self.carry_out_sentences(ctx);
        }
    }

    /// Takes what waited out of the store and offers it again.
    pub(crate) fn offer_waiting(&mut self, ctx: &mut Context) {
        if self.upkeep.is_burying() {
            return;
        }
        for change in std::mem::take(&mut self.abroad.again) {
            self.take_abroad(ctx, &change);
        }
        match mesh_rows::waiting(&*ctx.store, &self.id) {
            Ok(changes) => {
                for change in changes {
                    self.abroad.waiting.insert(change.hash(), true);
                    self.take_abroad(ctx, &change);
                }
            }
            Err(error) => self.unreadable(ctx, error),
        }
    }

    /// Starts, or goes on with, bringing the document level with another region.
    pub(crate) fn repair_with(&mut self, ctx: &mut Context, session: SessionId, now: Now) {
        if self.peers.contains_key(&session) {
            return;
        }
        self.touched = now.running;
        let mut peer = Peer::of_region();
        peer.began = true;
        let greeting = peer.standing.greet(&self.history);
        peer.leaves_at = Some(now.running + ctx.limits.repair_within);
        self.peers.insert(session, Box::new(peer));
        self.send_dead(ctx, session);
        let payload = greeting.reply.encode([].into_iter());
        self.send_abroad(ctx, session, GREETING, &payload);
    }

    /// A message of a repair.
    pub(crate) fn repair(
        &mut self,
        ctx: &mut Context,
        session: SessionId,
        data: &[u8],
        now: Now,
    ) -> Result<(), Malformed> {
        let (kind, rest) = data.split_first().ok_or(Malformed)?;
        let kind = *kind;
        match kind {
            SYNC | GREETING | PART => {
                let late = kind == SYNC && !self.peers.contains_key(&session);
                // What it sent before and the archive looks at is not lost by it.
                let waits = self.peers.get(&session).is_some_and(|peer| peer.is_waiting());
                let new = kind == GREETING && !waits;
                if new {
                    self.peers.remove(&session);
                }
                let peer = self.peers.entry(session).or_insert_with(|| Box::new(Peer::of_region()));
                peer.leaves_at = Some(now.running + ctx.limits.repair_within);
                peer.standing.expect_more(kind == PART);
                // The last words of a repair that is over here: they are answered only if they say
                // something else than what we hold.
                peer.quiet = late;
                if new {
                    self.send_dead(ctx, session);
                }
                self.receive(ctx, session, rest.to_vec(), now);
                if let Some(peer) = self.peers.get_mut(&session)
                    && std::mem::take(&mut peer.quiet)
                {
                    if peer.standing.their_heads() == Some(self.history.graph().heads()) {
                        self.peers.remove(&session);
                    } else {
                        self.speak(ctx, session, now);
                    }
                }
                self.conclude(ctx, session);
            }
            DEAD => {
                for (hash, reason, change) in read_dead(rest)? {
                    match change {
                        Some(change) if !self.history.has_buried(&hash) => {
                            self.keep_waiting(ctx, &change);
                            if let Some(reason) = reason {
                                self.doom(ctx, hash, &reason);
                            }
                            if !self.upkeep.is_burying() {
                                self.take_from_log(ctx, &change, now);
                            }
                        }
                        _ => {
                            if let Some(reason) = reason {
                                self.doom(ctx, hash, &reason);
                            }
                        }
                    }
                }
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }

    /// The other region, which began it, sees nothing left to repair.
    pub(crate) fn repaired(&mut self, session: SessionId) {
        let peer = self.peers.get(&session);
        if peer.is_some_and(|peer| peer.standing.is_level(&self.history)) {
            self.peers.remove(&session);
        }
    }

    /// Ends a repair when both sides hold the same and have said so.
    pub(crate) fn conclude(&mut self, ctx: &mut Context, session: SessionId) {
        let Some(peer) = self.peers.get(&session) else { return };
        let same = peer.standing.their_heads() == Some(self.history.heads())
            && peer.standing.has_told(self.history.heads())
            && !peer.is_waiting()
            && self.history.durable() == self.history.len();
        if same && ctx.is_region(session) {
            let began = peer.began;
            self.peers.remove(&session);
            if began {
                ctx.tell_region(session, FromShard::Repaired { document: self.id.clone() });
            }
        }
    }

    /// Dead changes are not spoken of in sync messages, so they go beside them.
    fn send_dead(&mut self, ctx: &mut Context, session: SessionId) {
        let dead = match rows::dead(&*ctx.store, &self.id) {
            Ok(dead) => dead,
            Err(error) => return self.unreadable(ctx, error),
        };
        if dead.is_empty() || planted(Bug::ForgetsDead) {
            return;
        }
        let size = |it: &rows::Dead| it.change.as_ref().map_or(0, |change| change.bytes().len());
        let mut rest = dead.as_slice();
        while !rest.is_empty() {
            let mut left = ctx.limits.repair_part_bytes;
            let fit = rest.iter().take_while(|it| {
                let fits = left > 0;
                left = left.saturating_sub(size(it).max(1));
                fits
            });
            let (now, later) = rest.split_at(fit.count());
            ctx.send_sync(session, self.id.clone(), encode_dead(now));
            rest = later;
        }
    }

    /// Sends a sync message to another region.
    pub(crate) fn send_abroad(
        &self,
        ctx: &mut Context,
        session: SessionId,
        kind: u8,
        payload: &[u8],
    ) {
        let mut data = Vec::with_capacity(payload.len() + 1);
        data.push(kind);
        data.extend_from_slice(payload);
        ctx.send_sync(session, self.id.clone(), data);
    }

    /// A client asks for a document that is not here. Whether to wait: another region may have it.
    pub(crate) fn ask_regions(&mut self, ctx: &mut Context, now: Now) -> bool {
        if self.abroad.asking.is_some() {
            return true;
        }
        let up = ctx.regions_up();
        if up.is_empty() || now.running < self.abroad.ask_again_at {
            return false;
        }
        let until = now.running + ctx.limits.ask_within;
        self.abroad.ask_again_at = until;
        for session in &up {
            self.repair_with(ctx, *session, now);
        }
        self.abroad.asking = Some(Asking { until, waiting: up.into_iter().collect() });
        true
    }

    /// A region does not have the document that it was asked for, or has gone.
    pub(crate) fn not_abroad(&mut self, ctx: &mut Context, session: SessionId, now: Now) {
        self.peers.remove(&session);
        if let Some(asking) = &mut self.abroad.asking {
            asking.waiting.remove(&session);
            if asking.waiting.is_empty() {
                self.stop_asking(ctx, now);
            }
        }
    }

    /// Nobody has it: whoever waits is told so.
    pub(crate) fn stop_asking(&mut self, ctx: &mut Context, now: Now) {
        self.abroad.asking = None;
        let waiting: Vec<SessionId> =
            self.peers.keys().copied().filter(|session| !ctx.is_region(*session)).collect();
        for session in waiting {
            // Somebody may have made the document while we asked; that one is asked for it.
            let has = self.peers.get(&session).is_some_and(|peer| peer.has_some());
            if self.history.is_empty() && !has {
                self.decline(ctx, session);
            } else {
                self.speak(ctx, session, now);
            }
        }
    }

    /// What the audit compares, as it is with everything that is in the log.
    pub(crate) fn make_item(&self, salt: u64) -> u64 {
        mesh::exchange::item(salt, &self.id, self.history.graph().heads(), &self.history.dead())
    }

    /// Removes condemned changes from the log, as soon as that is possible.
    pub(crate) fn carry_out_sentences(&mut self, ctx: &mut Context) {
        if self.abroad.condemned.is_empty() || !self.may_bury() {
            return;
        }
        let culprits = std::mem::take(&mut self.abroad.condemned);
        if let Err(error) = self.bury(ctx, culprits.clone()) {
            self.abroad.condemned.extend(culprits);
            self.put_off_sentences(self.touched);
            ctx.report(Report::Unreadable { document: self.id.clone(), error });
        }
    }

    /// What is dead has changed: copies are made of it once it is in the store.
    fn copy_when_durable(&mut self, ctx: &mut Context) {
        self.abroad.copy_after = None;
        self.abroad.copy_wanted = true;
        ctx.staged.insert(self.id.clone());
    }

    pub(crate) fn waits_to_copy(&self) -> bool {
        self.abroad.copy_due || self.abroad.copy_wanted || self.abroad.copy_after.is_some()
    }

    /// A batch with what this document has to store goes out.
    pub(crate) fn count_submission(&mut self) {
        self.abroad.submissions += 1;
        if std::mem::take(&mut self.abroad.copy_wanted) {
            self.abroad.copy_after = Some(self.abroad.submissions);
        }
    }

    /// The next of those batches is durable.
    pub(crate) fn count_commit(&mut self) {
        self.abroad.commits += 1;
        let commits = self.abroad.commits;
        self.abroad.copy_due |= self.abroad.copy_after.take_if(|it| *it <= commits).is_some();
    }

    /// Tells other regions whether clients here have the document open.
    pub(crate) fn show_interest(&self, ctx: &mut Context, open: bool) {
        ctx.tell_all_regions(FromShard::Interest { document: self.id.clone(), open });
    }

    pub(crate) fn is_under_repair(&self) -> bool {
        self.peers.values().any(|peer| peer.leaves_at.is_some())
    }

    pub(crate) fn has_clients(&self, ctx: &Context) -> bool {
        self.peers.keys().any(|session| !ctx.is_region(*session))
    }

    /// Puts the directory in place, which is needed before anything can be checked against it; if that
    /// cannot be done it is reported, and sessions are closed.
    pub(crate) fn has_directory(&mut self, ctx: &mut Context) -> bool {
        if self.history.directory().is_some() {
            return true;
        }
        match rows::directory(&*ctx.store, &self.id, self.meta.unwrap_or_default()) {
            Ok(directory) => {
                self.history.install_directory(directory);
                true
            }
            Err(error) => {
                self.unreadable(ctx, error);
                false
            }
        }
    }

    /// Repairs that nobody goes on with end. One that waits for our archive has its time again.
    pub(crate) fn end_stale_repairs(&mut self, ctx: &Context, now: Now) {
        self.peers.retain(|_, peer| {
            let is_over = peer.leaves_at.is_some_and(|at| at <= now.running);
            let goes_on = is_over && peer.is_waiting();
            if goes_on {
                peer.leaves_at = Some(now.running + ctx.limits.repair_within);
            }
            !is_over || goes_on
        });
    }

    /// When something is due because of other regions.
    pub(crate) fn abroad_due(&self) -> Option<Duration> {
        let asking = self.abroad.asking.as_ref().map(|asking| asking.until);
        let repairs = self.peers.values().filter_map(|peer| peer.leaves_at).min();
        [asking, repairs].into_iter().flatten().min()
    }

    /// A link is closed because of what it said, never a client's session.
    pub(crate) fn close_or_report(&self, ctx: &mut Context, session: SessionId, why: CloseReason) {
        if ctx.is_region(session) {
            let (document, reason) = (self.id.clone(), why.to_string());
            ctx.report(Report::NotRepaired { document, reason });
        } else {
            ctx.close(session, why);
        }
    }
}

/// What killed a change, as its row says.
pub(crate) fn death_of(why: &Refusal) -> Death {
    match why {
        Refusal::Forked { .. } => Death::LostItsSlot,
        Refusal::Descendant { .. } => Death::Descendant,
        _ => Death::Misfit,
    }
}

/// What a row says of a dead change, as the history remembers it.
pub(crate) fn refusal_of(dead: &rows::Dead, change: &Change) -> Refusal {
    let hash = dead.hash;
    match dead.death {
        Death::Misfit => Refusal::Dead { hash, reason: dead.reason.clone() },
        Death::LostItsSlot => {
            Refusal::Forked { hash, actor: change.actor().to_string(), seq: change.seq() }
        }
        Death::Descendant => {
            let on = change.deps().first().copied().unwrap_or(hash);
            Refusal::Descendant { hash, on }
        }
    }
}

type DeadItem = (ChangeHash, Option<String>, Option<Change>);

fn encode_dead(dead: &[rows::Dead]) -> Vec<u8> {
    let mut data = vec![DEAD];
    put(&mut data, dead.len() as u64);
    for it in dead {
        data.extend_from_slice(it.hash.as_bytes());
        let reason = if it.death == Death::Misfit { it.reason.as_str() } else { "" };
        put(&mut data, reason.len() as u64);
        data.extend_from_slice(reason.as_bytes());
        let bytes = it.change.as_ref().map_or(&[][..], Change::bytes);
        put(&mut data, bytes.len() as u64);
        data.extend_from_slice(bytes);
    }
    data
}

fn read_dead(bytes: &[u8]) -> Result<Vec<DeadItem>, Malformed> {
    let mut reader = Reader::new(bytes);
    let count = reader.count()?;
    let mut dead = Vec::new();
    for _ in 0..count {
        let hash = ChangeHash(reader.array()?);
        let length = reader.count()?;
        let reason = String::from_utf8_lossy(reader.bytes(length)?).into_owned();
        let length = reader.count()?;
        let change = match length {
            0 => None,
            length => Some(read_change(reader.bytes(length)?).map_err(|_| Malformed)?),
        };
        if change.as_ref().is_some_and(|change| change.hash() != hash) {
            return Err(Malformed);
        }
        dead.push((hash, (!reason.is_empty()).then_some(reason), change));
    }
    Ok(dead)
}

/// A region's name as it appears among sessions.
pub(crate) fn region_peer(name: &RegionName) -> model::PeerId {
    model::PeerId::new(&format!("region {name}")).expect("a region's name leaves room")
}
