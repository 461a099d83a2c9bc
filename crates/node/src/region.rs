//! What a shard does with what links say.

use std::collections::BTreeSet;

use mesh::exchange::{FromShard, Presence, ToShard};
use mesh::{Entry, Item as EntryItem};
use model::{DocumentId, PeerId, RegionName, StorageId};
use store::Write;
use wire::Tail;

use crate::abroad::region_peer;
use crate::context::Context;
use crate::document::Document;
use crate::session::Session;
use crate::shard::Shard;
use crate::{BatchId, Branch, Effect, Now, Report, SessionId, mesh_rows};

/// With more documents under repair than this, no more are looked for.
const REPAIRS_MAX: usize = 256;
/// For how many documents what the audit compares is made in one batch.
const ITEMS_AT_ONCE: usize = 512;

impl Shard {
    /// Every region is also a session of the shard, for repair.
    pub(crate) fn seat_regions(&mut self) {
        let Some(mesh) = &self.ctx.mesh else { return };
        for (name, region) in &mesh.regions {
            let session = Session::new(region_peer(name), None);
            self.ctx.sessions.entry(region.session).or_insert(session);
        }
    }

    pub(crate) fn region(&mut self, now: Now, name: &RegionName, message: ToShard) {
        let Some(mesh) = &mut self.ctx.mesh else { return };
        let session = mesh.region(name).session;
        match message {
            ToShard::Up => self.region_up(name),
            ToShard::Down => self.region_down(now, name, session),
            ToShard::Take { lane, log, first, entries, credit } => {
                if mesh.is_here(&log) && !mesh.is_own(&log) {
                    for entry in mesh.receive(&log, first, entries) {
                        self.apply(now, entry);
                    }
                }
                let Some(mesh) = &mut self.ctx.mesh else { return };
                if mesh.has_staged() {
                    mesh.staged.taken.push((name.clone(), lane, credit));
                } else {
                    let message = FromShard::Taken { lane, credit };
                    self.tell(name, message);
                }
            }
            ToShard::Read { lane, log, from, bytes_max, digest } => {
                let store = self.ctx.store.clone();
                match mesh.read(&*store, (lane, &log), from, bytes_max, digest) {
                    Ok(message) => {
                        if matches!(message, FromShard::Diverged { .. }) {
                            self.diverged(name, &log);
                        }
                        self.tell(name, message);
                    }
                    Err(error) => self.ctx.report(Report::MeshUnreadable { error }),
                }
            }
            ToShard::Holds { log, sequence } => {
                // Nobody holds what we do not have: a claim to do so is worth nothing.
                let Some(end) = mesh.logs.get(&log).map(|it| it.held.end.sequence) else { return };
                let holds = mesh.region(name).holds.entry(log).or_default();
                *holds = (*holds).max(sequence.min(end));
            }
            ToShard::Skip { log, to } => {
                if mesh.is_here(&log) && !mesh.is_own(&log) {
                    mesh.skip(&log, to);
                }
            }
            ToShard::Forgotten { log, last } => {
                if mesh.is_here(&log) {
                    mesh.finish(&log, last);
                }
            }
            ToShard::Repair { document } => {
                self.with(now, &document, |ctx, document| {
                    document.repair_with(ctx, session, now);
                });
            }
            ToShard::Items { round, from, to } => {
                // A region has one question at a time; an older one is forgotten.
                mesh.asked_items.retain(|(region, ..)| region != name);
                mesh.asked_items.push((name.clone(), round, from..=to));
                self.answer_items();
            }
            ToShard::RepairItems { items } => self.repair_items(now, session, &items),
            ToShard::Sync { document, data } => {
                self.with(now, &document, |ctx, document| {
                    if let Err(error) = document.repair(ctx, session, &data, now) {
                        let (document, reason) = (document.id.clone(), format!("{error:?}"));
                        ctx.report(Report::NotRepaired { document, reason });
                    }
                });
            }
            ToShard::Written { bytes } => self.written(now, session, bytes),
            ToShard::Repaired { document } => {
                self.with(now, &document, |_, document| {
                    document.repaired(session);
                });
            }
            ToShard::Unavailable { document } => {
                self.with(now, &document, |ctx, document| {
                    document.not_abroad(ctx, session, now);
                });
            }
            ToShard::Presence { document: id, presence } => {
                if let Some(document) = self.documents.get_mut(&id) {
                    document.touched = now.running;
                    let Presence { author, stream, count, data } = presence;
                    let tail = Tail::ephemeral(&id, &stream, count, &data);
                    document.relay(&mut self.ctx, None, &tail, &author);
                }
            }
            ToShard::Heads { document: id, heads } => {
                if let Some(document) = self.documents.get_mut(&id)
                    && document.wake(&mut self.ctx).is_ok()
                {
                    document.heads_from_region(&mut self.ctx, heads, now);
                    document.arm(&mut self.ctx, now);
                }
            }
            ToShard::Interest { document, open } => {
                let max = self.ctx.limits.documents_per_session;
                let interest = &mut mesh.region(name).interest;
                if !open {
                    interest.remove(&document);
                } else if interest.len() < max {
                    interest.insert(document);
                }
            }
            ToShard::Subscribe { add, remove } => {
                let max = self.ctx.limits.subscriptions_per_session;
                if let Some(known) = self.ctx.sessions.get_mut(&session) {
                    for storage in remove {
                        known.subscriptions.remove(&storage);
                    }
                    let room = max.saturating_sub(known.subscriptions.len());
                    known.subscriptions.extend(add.into_iter().take(room));
                }
            }
            ToShard::Root { round } => {
                let (documents, sum) = (mesh.sketch.count(), mesh.sketch.sum());
                self.tell(name, FromShard::Root { round, documents, sum });
            }
            ToShard::Symbols { round, from, to } => {
                let symbols = mesh.sketch.symbols(from..to).to_vec();
                self.tell(name, FromShard::Symbols { round, from, symbols });
            }
        }
    }

    /// A copy of a losing branch; every region makes it by itself, so it is not told to others.
    pub(crate) fn adopt(&mut self, now: Now, branch: &Branch) {
        self.with(now, &branch.copy, |ctx, document| {
            document.adopt(ctx, branch, now);
        });
    }

    /// The mesh's part of a batch.
    pub(crate) fn submit_mesh(&mut self, now: Now, batch: BatchId, writes: &mut Vec<Write>) {
        let Some(mesh) = &mut self.ctx.mesh else { return };
        let places = mesh.number();
        let salt = mesh.setup.salt;
        // A node that has just got its first link makes items for all its documents: some at a time.
        let mut room = ITEMS_AT_ONCE;
        let (changed, later) = std::mem::take(&mut mesh.changed).into_iter().partition(|id| {
            room = room.saturating_sub(1);
            room > 0 || places.contains_key(id)
        });
        mesh.changed = later;
        let changed: BTreeSet<DocumentId> = changed;
        for id in changed {
            let document =
                self.documents.entry(id).or_insert_with_key(|id| Document::new(id.clone()));
            if let Err(error) = document.wake(&mut self.ctx) {
                document.unreadable(&mut self.ctx, error);
                continue;
            }
            let old = document.abroad.item;
            let (epoch, sequence) = places
                .get(&document.id)
                .copied()
                .unwrap_or_else(|| old.map_or((0, 0), |old| (old.epoch, old.sequence)));
            let new = mesh_rows::Item { item: document.make_item(salt), epoch, sequence };
            document.abroad.item = Some(new);
            document.arm(&mut self.ctx, now);
            if let Some(mesh) = &mut self.ctx.mesh {
                mesh.put_item(&document.id, old, new);
            }
        }
        if let Some(mesh) = &mut self.ctx.mesh {
            mesh.submit(batch, writes);
        }
    }

    /// Lets go of a little of what no other region needs of the logs, and of logs that nobody needs; says
    /// whether there is more.
    pub(crate) fn trim_logs(&mut self) -> bool {
        let (store, max) = (self.ctx.store.clone(), self.ctx.limits.log_entries_max);
        let Some(mesh) = &mut self.ctx.mesh else { return false };
        let trimmed = mesh.trim(&*store, max);
        let done = trimmed.and_then(|more| Ok(mesh.forget(&*store)? || more));
        done.unwrap_or_else(|error| {
            self.ctx.report(Report::MeshUnreadable { error });
            false
        })
    }

    /// Presence crosses a link only to where somebody looks at the document.
    pub(crate) fn presence_abroad(
        &mut self,
        id: &DocumentId,
        author: PeerId,
        stream: String,
        count: u64,
        data: Vec<u8>,
    ) {
        let Some(mesh) = &self.ctx.mesh else { return };
        let presence = Presence { author, stream, count, data };
        for region in mesh.interested(id) {
            let (document, presence) = (id.clone(), presence.clone());
            self.tell(&region, FromShard::Presence { document, presence });
        }
    }

    /// Stores that no client here wants to hear of any more.
    pub(crate) fn unwanted(&self, removed: &[StorageId]) -> Vec<StorageId> {
        let wanted = |storage: &StorageId| {
            (self.ctx.sessions.iter()).any(|(session, known)| {
                !self.ctx.is_region(*session) && known.subscriptions.contains(storage)
            })
        };
        removed.iter().filter(|storage| !wanted(storage)).cloned().collect()
    }

    fn region_up(&mut self, name: &RegionName) {
        let Some(mesh) = &mut self.ctx.mesh else { return };
        mesh.region(name).up = true;
        let session = mesh.region(name).session;
        let vector = mesh.vector();
        let leads = mesh.setup.shard == 0;
        self.seat_regions();
        // What is said before the vector goes nowhere.
        if let Some(known) = self.ctx.sessions.get_mut(&session) {
            known.in_flight = 0;
        }
        self.tell(name, vector);
        let open: Vec<DocumentId> = (self.documents.values())
            .filter(|document| document.has_clients(&self.ctx))
            .map(|document| document.id.clone())
            .collect();
        for document in open {
            self.tell(name, FromShard::Interest { document, open: true });
        }
        if leads {
            let clients =
                self.ctx.sessions.iter().filter(|(session, _)| !self.ctx.is_region(**session));
            let add: BTreeSet<StorageId> =
                clients.flat_map(|(_, known)| known.subscriptions.iter().cloned()).collect();
            if !add.is_empty() {
                let add = add.into_iter().collect();
                self.tell(name, FromShard::Subscribe { add, remove: Vec::new() });
            }
        }
    }

    fn region_down(&mut self, now: Now, name: &RegionName, session: SessionId) {
        let Some(mesh) = &mut self.ctx.mesh else { return };
        let region = mesh.region(name);
        region.up = false;
        region.interest.clear();
        if let Some(known) = self.ctx.sessions.get_mut(&session) {
            known.subscriptions.clear();
        }
        let asked: Vec<DocumentId> = (self.documents.iter())
            .filter(|(_, document)| document.peers.contains_key(&session))
            .map(|(id, _)| id.clone())
            .collect();
        for id in asked {
            self.with(now, &id, |ctx, document| {
                document.not_abroad(ctx, session, now);
            });
        }
    }

    fn apply(&mut self, now: Now, entry: Entry) {
        let Entry { document, item } = entry;
        let kept = item.clone();
        let taken = self.with(now, &document, |ctx, document| match item {
            EntryItem::Change(change) => document.take_from_log(ctx, &change, now),
            EntryItem::Dead { hash, reason } => document.doom(ctx, hash, &reason),
        });
        // It is in the log that we keep; what it belongs to cannot be read.
        if !taken && let EntryItem::Change(change) = kept {
            self.ctx.write(mesh_rows::put_waiting(&document, &change));
        }
    }

    /// Opens every document here that has one of these items.
    fn repair_items(&mut self, now: Now, session: SessionId, items: &[u64]) {
        let Some(mesh) = &self.ctx.mesh else { return };
        let found: Vec<DocumentId> =
            items.iter().filter_map(|item| mesh.items.get(item)).cloned().collect();
        for document in found {
            self.with(now, &document, |ctx, document| {
                document.repair_with(ctx, session, now);
            });
        }
    }

    /// Answers questions for items, as long as there is room for the repairs that will follow.
    pub(crate) fn answer_items(&mut self) {
        let Some(mesh) = &mut self.ctx.mesh else { return };
        if mesh.asked_items.is_empty() {
            return;
        }
        let repairs = self.documents.values().filter(|document| document.is_under_repair());
        if repairs.count() > REPAIRS_MAX {
            return;
        }
        for (region, round, range) in std::mem::take(&mut mesh.asked_items) {
            let message = match range.is_empty() {
                true => FromShard::Items { round, items: Vec::new() },
                false => {
                    let items = mesh.items.range(range).map(|(item, _)| *item).collect();
                    FromShard::Items { round, items }
                }
            };
            self.ctx.effects.push_back(Effect::Region { to: Some(region), message });
        }
    }

    fn diverged(&mut self, region: &RegionName, log: &mesh::LogId) {
        let Some(mesh) = &mut self.ctx.mesh else { return };
        if mesh.is_own(log) {
            mesh.renew_epoch(log);
            self.ctx.report(Report::LogTaken { log: log.clone() });
        } else {
            let (log, region) = (log.clone(), region.clone());
            self.ctx.report(Report::LogDiffers { log, region });
        }
    }

    fn tell(&mut self, region: &RegionName, message: FromShard) {
        self.ctx.effects.push_back(Effect::Region { to: Some(region.clone()), message });
    }

    /// Does something with a document, waking it up for that. Whether that could be done.
    fn with(
        &mut self,
        now: Now,
        id: &DocumentId,
        act: impl FnOnce(&mut Context, &mut Document),
    ) -> bool {
        let ctx = &mut self.ctx;
        let document =
            self.documents.entry(id.clone()).or_insert_with_key(|id| Document::new(id.clone()));
        let woken = document.wake(ctx);
        let done = woken.is_ok();
        match woken {
            Ok(()) => act(ctx, document),
            Err(error) => document.unreadable(ctx, error),
        }
        document.arm(ctx, now);
        done
    }
}
