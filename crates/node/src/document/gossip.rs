//! What stores hold, as their owners say: passed on to whoever subscribes to them, in this region and
//! in others.

use mesh::exchange::{FromShard, StoreHeads};
use model::{Heads, StorageId};

use super::Document;
use crate::context::Context;
use crate::{Now, SessionId};

impl Document {
    /// A peer wants to hear of these stores from now on.
    pub(crate) fn subscribed(
        &mut self,
        ctx: &mut Context,
        session: SessionId,
        add: &[StorageId],
        now: Now,
    ) {
        let me = &ctx.me.storage;
        if let Some(peer) = self.peers.get_mut(&session) {
            let known = add.iter().filter(|id| *id == me || self.gossip.contains_key(id));
            peer.gossip_due.extend(known.cloned());
            self.pass_on_heads(ctx, session, now);
        }
    }

    /// Remembers what a store holds, and notes who wants to hear of it.
    pub(super) fn note_heads(
        &mut self,
        ctx: &mut Context,
        from: SessionId,
        heads: &Heads,
        now: Now,
    ) {
        let storage = ctx.sessions.get(&from).and_then(|known| known.storage.clone());
        let Some(storage) = storage else { return };
        let full = self.gossip.len() >= ctx.limits.gossip_stores_per_document;
        let news = match self.gossip.get(&storage) {
            Some(known) => known.heads != *heads,
            None => !full,
        };
        if !news {
            return;
        }
        // Of two stamps the later one counts everywhere, also after a region whose clock is ahead.
        let after =
            self.gossip.get(&storage).map_or(0, |known| known.timestamp_ms.saturating_add(1));
        let (heads, timestamp_ms) = (heads.clone(), now.wall_ms.max(after));
        let entry = wire::RemoteHeads { storage: storage.clone(), heads, timestamp_ms };
        self.learn_heads(ctx, Some(from), entry, now);
    }

    /// What a store is known to hold, passed on to whoever wants to hear of it.
    fn learn_heads(
        &mut self,
        ctx: &mut Context,
        from: Option<SessionId>,
        entry: wire::RemoteHeads,
        now: Now,
    ) {
        let storage = entry.storage.clone();
        self.gossip.insert(storage.clone(), entry);
        if from.is_some() {
            self.tell_regions_of_heads(ctx, &storage, now);
        }
        let interested: Vec<SessionId> = (self.peers.keys().copied())
            .filter(|session| Some(*session) != from && ctx.subscribes(*session, &storage))
            .collect();
        for session in interested {
            if let Some(peer) = self.peers.get_mut(&session) {
                peer.gossip_due.insert(storage.clone());
            }
            self.pass_on_heads(ctx, session, now);
        }
    }

    /// What stores in another region hold.
    pub(crate) fn heads_from_region(
        &mut self,
        ctx: &mut Context,
        heads: Vec<StoreHeads>,
        now: Now,
    ) {
        for StoreHeads { storage, heads, timestamp_ms } in heads {
            let full = self.gossip.len() >= ctx.limits.gossip_stores_per_document;
            let news = match self.gossip.get(&storage) {
                Some(known) => known.timestamp_ms < timestamp_ms && known.heads != heads,
                None => !full,
            };
            if news && storage != ctx.me.storage {
                let entry = wire::RemoteHeads { storage, heads, timestamp_ms };
                self.learn_heads(ctx, None, entry, now);
            }
        }
    }

    /// Tells regions whose clients subscribe to a store what it holds now.
    pub(super) fn tell_regions_of_heads(&self, ctx: &mut Context, storage: &StorageId, now: Now) {
        for session in ctx.subscribed_regions(&self.id, storage) {
            let heads = if *storage == ctx.me.storage {
                StoreHeads {
                    storage: storage.clone(),
                    heads: self.history.heads().clone(),
                    timestamp_ms: now.wall_ms,
                }
            } else if let Some(known) = self.gossip.get(storage) {
                let (heads, timestamp_ms) = (known.heads.clone(), known.timestamp_ms);
                StoreHeads { storage: storage.clone(), heads, timestamp_ms }
            } else {
                continue;
            };
            let (document, heads) = (self.id.clone(), vec![heads]);
            ctx.tell_region(session, FromShard::Heads { document, heads });
        }
    }

    pub(super) fn pass_on_heads(&mut self, ctx: &mut Context, session: SessionId, now: Now) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        if ctx.is_region(session) {
            // It is told beside repairs, once for all its clients.
            peer.gossip_due.clear();
            return;
        }
        if peer.gossip_due.is_empty() || !ctx.has_room(session, &self.id) {
            return;
        }
        let Some(target) = ctx.sessions.get(&session).map(|known| known.peer.clone()) else {
            return;
        };
        let me = &ctx.me;
        let heads: Vec<wire::RemoteHeads> = std::mem::take(&mut peer.gossip_due)
            .into_iter()
            .filter_map(|storage| {
                if storage == me.storage {
                    let (heads, timestamp_ms) = (self.history.heads().clone(), now.wall_ms);
                    return Some(wire::RemoteHeads { storage, heads, timestamp_ms });
                }
                self.gossip.get(&storage).cloned()
            })
            .filter(|entry| !entry.heads.is_empty())
            .collect();
        if heads.is_empty() {
            return;
        }
        let mut frame = Vec::new();
        let message = wire::Message::RemoteHeadsChanged {
            sender: me.peer.clone(),
            target,
            document: self.id.clone(),
            heads,
        };
        wire::encode(&message, &mut frame);
        ctx.send(session, frame);
    }
}
