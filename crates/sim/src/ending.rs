//! How a run goes: things go wrong, then nothing does, and then everything has to come right.

use std::time::Duration;

use automerge::ChangeHash;

use crate::client::Client;
use crate::judge::Law;
use crate::world::{Due, World};

/// How long after healing everybody has to have the same.
const CONVERGED_WITHIN: Duration = Duration::from_secs(60);
/// How long after that the last frame may go out: uploads that wait for a slow archive are
/// acknowledged one by one, though nothing in them is news any more.
const SILENT_WITHIN: Duration = Duration::from_secs(8);
/// How long it has to stay silent.
const SILENT_FOR: Duration = Duration::from_secs(15);
/// How many frames may pass from healing to silence, per client and document: what was on its way,
/// some rounds of asking for what is missing, and news of what other stores hold. Two that answer
/// each other for ever pass this within a second.
const FRAMES_PER_TALK_MAX: u64 = 100;

impl World {
    /// The whole run.
    pub(crate) fn play(&mut self) {
        while self.now < self.plan.chaos && self.judge.violation.is_none() {
            self.run_until(self.now + Duration::from_secs(1));
            self.judge_answers();
        }
        self.heal();
        self.readers_are_left_alone();
        self.comes_right();
        // Whoever comes now knows nothing, and a node that starts now knows what is on its disk.
        for node in 0..self.nodes.len() {
            self.crash(node);
        }
        let index = self.clients.len();
        let mut newcomer = Client::new(index, 0, &mut self.rng);
        (0..self.documents.len()).for_each(|document| newcomer.hold(document));
        self.clients.push(newcomer);
        self.due(Duration::from_secs(1), Due::Dials { client: index });
        self.comes_right();
        self.last_judgement();
    }

    /// Read-only clients take nothing in, so they never have the same as the others. That is no
    /// reason to go on talking to them.
    fn readers_are_left_alone(&mut self) {
        if !self.clients.iter().any(|client| client.read_only) {
            return;
        }
        self.run_until(self.now + CONVERGED_WITHIN);
        if self.last_frame_at > self.now - SILENT_FOR {
            self.broken(
                Law::ConvergedIsSilent,
                "read-only clients are talked to for ever".to_owned(),
            );
        }
        for index in 0..self.clients.len() {
            self.client_becomes(index, false);
        }
    }

    /// Everybody has the same within a bound, and then falls silent.
    fn comes_right(&mut self) {
        if self.judge.violation.is_some() {
            return;
        }
        let (healed, frames) = (self.now, self.frames);
        while let Err(why) = self.converged() {
            if self.judge.violation.is_some() {
                return;
            }
            if self.now > healed + CONVERGED_WITHIN {
                return self.broken(Law::HealedConverges, why);
            }
            self.run_until(self.now + Duration::from_millis(250));
            self.judge_answers();
        }
        let converged = self.now;
        self.trace.note(converged, "converged", &[], &[], String::new);
        self.run_until(converged + SILENT_FOR);
        self.judge_answers();
        if self.last_frame_at > converged + SILENT_WITHIN {
            let after = self.last_frame_at - converged;
            let what = format!("a frame {after:?} after everybody had the same");
            self.broken(Law::ConvergedIsSilent, what);
        }
        let talks = (self.clients.len() * self.documents.len()) as u64;
        let said = self.frames - frames;
        if said > 100 + talks * FRAMES_PER_TALK_MAX {
            let what = format!("{said} frames for {talks} conversations to come to an end");
            self.broken(Law::ConvergedIsSilent, what);
        }
    }

    /// Whether all clients and all disks have the same heads of every document.
    fn converged(&mut self) -> Result<(), String> {
        for (document, id) in self.documents.clone().iter().enumerate() {
            let mut all: Option<Vec<ChangeHash>> = None;
            for client in &self.clients {
                let index = client.index;
                let held = client.documents.get(&document);
                let Some((held, talk)) = held.and_then(|held| Some((held, held.talk.as_ref()?)))
                else {
                    return Err(format!("client {index} has not opened document {document}"));
                };
                if !talk.answered || !self.is_connected(client) {
                    return Err(format!("client {index} is not connected, or was not answered"));
                }
                let heads = held.doc.get_heads();
                if heads.is_empty() && !talk.unavailable {
                    return Err(format!("client {index} was not told that {document} is nowhere"));
                }
                match &all {
                    Some(all) if *all != heads => {
                        return Err(format!(
                            "document {document}: client {index} has {heads:?}, another {all:?}"
                        ));
                    }
                    _ => all = Some(heads),
                }
            }
            for node in 0..self.nodes.len() {
                if self.nodes[node].process.is_none() {
                    return Err(format!("node {node} is down"));
                }
                let mut heads = self.judge.heads(&self.nodes[node].disk, id);
                heads.sort_unstable();
                if all.as_ref().is_some_and(|all| *all != heads) {
                    return Err(format!(
                        "document {document}: node {node} has {heads:?}, clients {all:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn is_connected(&self, client: &Client) -> bool {
        let link = client.link.and_then(|link| self.links.get(&link));
        client.server.is_some() && link.is_some_and(|link| link.node_open)
    }

    fn last_judgement(&mut self) {
        if self.judge.violation.is_some() {
            return;
        }
        for node in 0..self.nodes.len() {
            let image = self.nodes[node].disk.snapshot();
            self.judge.crashed(node, &image, true);
            let newcomer = self.clients.last().expect("there is one");
            for (document, id) in self.documents.iter().enumerate() {
                if let Some(held) = newcomer.documents.get(&document) {
                    self.judge.still_served(node, id, &held.doc);
                }
            }
        }
    }
}
