//! What clients do of their own accord: people who type, programs that restart.

use model::StorageId;
use wire::Message as Said;

use crate::edits;
use crate::plan::Habits;
use crate::world::{Due, World};

impl World {
    /// Something that a person, or the program around the library, does.
    pub(crate) fn client_acts(&mut self, index: usize) {
        if !self.chaos || self.clients[index].lost {
            return;
        }
        let habits = self.plan.habits.clone();
        let documents = self.plan.documents;
        let client = &mut self.clients[index];
        let wait = client.rng.around(habits.act_every);
        let document = client.rng.below(documents);
        let chance = client.rng.below(100);
        self.due(wait, Due::Acts { client: index });
        #[expect(clippy::collapsible_match, reason = "the other chances are for other things")]
        match chance {
            0..10 => {
                if !self.clients[index].documents.contains_key(&document) {
                    self.clients[index].hold(document);
                    self.client_opens(index, document);
                }
            }
            10..15 if habits.presence => {
                for _ in 0..=self.clients[index].rng.below(4) {
                    self.client_shows_presence(index, document);
                }
            }
            15..18 if habits.reopen => self.client_reopens(index, document, &habits),
            18..20 if habits.read_only => self.client_toggles(index),
            20..22 => {
                if let Some(link) = self.clients[index].link {
                    self.hang_up(link);
                }
            }
            22..25 => self.client_saves(index, document),
            25.. => self.client_edits(index, document, &habits),
            _ => {}
        }
    }

    pub(crate) fn client_edits(&mut self, index: usize, document: usize, habits: &Habits) {
        let client = &mut self.clients[index];
        let rng = &mut client.rng;
        let Some(held) = client.documents.get_mut(&document) else { return };
        // Most documents begin with what somebody else made: who finds nothing seldom starts anew.
        if held.doc.get_heads().is_empty() && !rng.percent(25) {
            return;
        }
        // Small documents keep a run short; what grows is exercised by compaction.
        let changes = if habits.bursts && rng.percent(6) { 1 + rng.below(24) } else { 1 };
        held.edit(|doc| {
            for _ in 0..changes {
                edits::edit(doc, rng, habits.marks);
            }
        });
        self.trace.note(
            self.now,
            "edits",
            &[index as u64, document as u64, changes as u64],
            &[],
            String::new,
        );
        let after = rng.millis(0, habits.debounce_ms);
        if !std::mem::replace(&mut held.speaks, true) {
            self.due(after, Due::Speaks { client: index, document });
        }
        self.count("edits");
    }

    fn client_shows_presence(&mut self, index: usize, document: usize) {
        let id = self.documents[document].clone();
        let client = &mut self.clients[index];
        let Some(server) = client.server.clone() else { return };
        if client.documents.get(&document).is_none_or(|held| held.talk.is_none()) {
            return;
        }
        client.count += 1;
        let size = 1 + client.rng.below(60);
        let message = Said::Ephemeral {
            sender: client.peer.clone(),
            target: server,
            document: id,
            session: format!("stream-{}", client.stream),
            count: client.count,
            data: vec![0x40; size].into(),
        };
        self.client_sends(index, &message);
    }

    /// Closes a document and opens it again on the same connection, with a fresh state.
    fn client_reopens(&mut self, index: usize, document: usize, habits: &Habits) {
        let client = &mut self.clients[index];
        let Some(held) = client.documents.get_mut(&document) else { return };
        if held.talk.is_none() {
            return;
        }
        held.state_saved = None;
        if habits.forget && client.rng.percent(60) {
            let to_nothing = client.rng.percent(40);
            client.roll_back(document, to_nothing);
        }
        self.count("reopened");
        self.client_opens(index, document);
    }

    fn client_toggles(&mut self, index: usize) {
        let read_only = !self.clients[index].read_only;
        self.client_becomes(index, read_only);
    }

    /// Stops or starts applying what it is sent.
    pub(crate) fn client_becomes(&mut self, index: usize, read_only: bool) {
        self.clients[index].read_only = read_only;
        for document in self.clients[index].documents.keys().copied().collect::<Vec<_>>() {
            let held = self.clients[index].documents.get_mut(&document);
            if let Some(talk) = held.and_then(|held| held.talk.as_mut()) {
                talk.state.set_read_only(read_only);
                self.client_says(index, document);
            }
        }
    }

    /// Writes the document, or what is known of the node, to the client's disk.
    pub(super) fn client_saves(&mut self, index: usize, document: usize) {
        let client = &mut self.clients[index];
        let Some(held) = client.documents.get_mut(&document) else { return };
        if client.rng.percent(50) {
            held.saved = held.doc.save();
        }
        if client.storage.is_some()
            && client.rng.percent(50)
            && let Some(talk) = &held.talk
        {
            held.state_saved = Some(talk.state.encode());
        }
    }

    /// The client's process ends and starts again from its disk.
    pub(crate) fn client_restarts(&mut self, index: usize) {
        let (forget, stale) = (self.plan.habits.forget, self.plan.habits.stale_state);
        let client = &mut self.clients[index];
        let states: Vec<_> =
            client.documents.iter().map(|(at, held)| (*at, held.state_saved.clone())).collect();
        if let Some(link) = client.link {
            self.hang_up(link);
        }
        let client = &mut self.clients[index];
        client.stream += 1;
        client.count = 0;
        for (document, state_saved) in states {
            if let Some(held) = client.documents.get_mut(&document)
                && stale
            {
                held.state_saved = state_saved;
            }
            if forget && client.rng.percent(70) {
                let to_nothing = client.rng.percent(25);
                client.roll_back(document, to_nothing);
            }
        }
        self.count("client restarts");
    }

    pub(super) fn client_subscribes(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(server) = client.server.clone() else { return };
        let mut add =
            vec![StorageId::new(&format!("store-{}", client.node)).expect("a short name")];
        add.push(StorageId::new("storage-0").expect("a short name"));
        let message = Said::RemoteSubscriptionChange {
            sender: client.peer.clone(),
            target: server,
            add,
            remove: Vec::new(),
        };
        self.client_sends(index, &message);
    }
}
