//! How a run goes: things go wrong, then nothing does, and then everything has to come right.

use std::collections::BTreeSet;
use std::time::Duration;

use automerge::ChangeHash;

use crate::client::Client;
use crate::judge::Law;
use crate::world::{Due, World};

/// How long after healing everybody has to have the same.
const CONVERGED_WITHIN: Duration = Duration::from_secs(60);
/// The same where there are several regions: what a restored or new one lacks is found by the audit,
/// which looks every 30 seconds and again when it has repaired something.
const REGIONS_CONVERGED_WITHIN: Duration = Duration::from_secs(120);
/// By then an audit has looked at every link, and again.
const AUDITED_WITHIN: Duration = Duration::from_secs(75);
/// How long after that the last frame may go out: uploads that wait for a slow archive are
/// acknowledged one by one, though nothing in them is news any more.
const SILENT_WITHIN: Duration = Duration::from_secs(8);
/// How long it has to stay silent.
const SILENT_FOR: Duration = Duration::from_secs(15);
/// How many frames may pass from healing to silence, per client and document: what was on its way,
/// some rounds of asking for what is missing, and news of what other stores hold. Two that answer
/// each other for ever pass this within a second.
const FRAMES_PER_TALK_MAX: u64 = 100;
/// How many frames and bytes may pass between two regions in the silence: heartbeats on two lanes,
/// and a question now and then whether all is well.
const FRAMES_PER_SILENT_PAIR_MAX: u64 = 60;
const BYTES_PER_SILENT_PAIR_MAX: u64 = 4096;
/// How many bytes a vector may take when all is well.
const VECTOR_BYTES_MAX: usize = 1024;

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
        for node in 0..self.nodes.len() {
            let index = self.clients.len();
            let mut newcomer = Client::new(index, node, &mut self.rng);
            (0..self.documents.len()).for_each(|document| newcomer.hold(document));
            self.clients.push(newcomer);
            self.due(Duration::from_secs(1), Due::Dials { client: index });
        }
        self.comes_right();
        self.last_judgement();
    }

    /// Read-only clients take nothing in, so they never have the same as the others. That is no
    /// reason to go on talking to them.
    fn readers_are_left_alone(&mut self) {
        if !self.clients.iter().any(|client| client.read_only) {
            return;
        }
        let within =
            if self.regions.is_some() { REGIONS_CONVERGED_WITHIN } else { CONVERGED_WITHIN };
        self.run_until(self.now + within);
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
        let within = match self.regions {
            Some(_) => REGIONS_CONVERGED_WITHIN,
            None => CONVERGED_WITHIN,
        };
        if self.judge.deaths {
            // A branch that lost in more than one place is copied as its parts come, and not everywhere
            // alike; the audit sees to it that each region has each copy, and their own forks.
            self.run_until(healed + AUDITED_WITHIN);
        }
        while let Err(why) = self.converged() {
            if self.judge.violation.is_some() {
                return;
            }
            if self.now > healed + within {
                return self.broken(Law::HealedConverges, why);
            }
            self.run_until(self.now + Duration::from_millis(250));
            self.judge_answers();
        }
        let converged = self.now;
        self.trace.note(converged, "converged", &[], &[], String::new);
        self.run_until(converged + SILENT_WITHIN);
        let said = self.regions.as_ref().map(|regions| (regions.frames, regions.bytes));
        self.run_until(converged + SILENT_FOR);
        self.judge_answers();
        if let Some((frames, bytes)) = said {
            self.regions_are_silent(converged + SILENT_WITHIN, frames, bytes);
        }
        if self.last_frame_at > converged + SILENT_WITHIN {
            let after = self.last_frame_at - converged;
            let what = format!("a frame {after:?} after everybody had the same");
            self.broken(Law::ConvergedIsSilent, what);
        }
        let talks = (self.clients.len() * self.documents.len()) as u64;
        let said = self.frames - frames;
        // What other regions have comes in pieces, as links come up one after the other.
        let regions = if self.regions.is_some() { 4 } else { 1 };
        if said > 100 + talks * FRAMES_PER_TALK_MAX * regions {
            let what = format!("{said} frames for {talks} conversations to come to an end");
            self.broken(Law::ConvergedIsSilent, what);
        }
    }

    /// Nothing passes between regions but heartbeats, and the question whether all is well.
    fn regions_are_silent(&mut self, since: Duration, frames: u64, bytes: u64) {
        let Some(regions) = &self.regions else { return };
        let pairs = (self.nodes.len() * (self.nodes.len() - 1) / 2) as u64;
        let (frames, bytes) = (regions.frames - frames, regions.bytes - bytes);
        if regions.last_news_at > since {
            let after = regions.last_news_at - since;
            let what = format!("a link and a shard had news {after:?} after everybody was silent");
            self.broken(Law::ConvergedIsSilent, what);
        } else if frames > pairs * FRAMES_PER_SILENT_PAIR_MAX
            || bytes > pairs * BYTES_PER_SILENT_PAIR_MAX
        {
            let what = format!("{frames} frames, {bytes} bytes between {pairs} pairs of regions");
            self.broken(Law::ConvergedIsSilent, what);
        }
    }

    /// Whether all regions serve the same and hold the same dead, conflict copies included.
    fn regions_agree(&mut self) -> Result<BTreeSet<ChangeHash>, String> {
        if self.regions.is_none() {
            return Ok(BTreeSet::new());
        }
        self.links_are_whole()?;
        let mut all = None;
        for node in 0..self.nodes.len() {
            let disk = self.nodes[node].disk.clone();
            let outcome = self.judge.outcome(&disk);
            let before = all.get_or_insert_with(|| outcome.clone());
            if *before != outcome {
                let id = (before.keys().chain(outcome.keys()))
                    .find(|id| before.get(id) != outcome.get(id))
                    .expect("they differ in some document");
                return Err(format!(
                    "document {id}: region {node} has {:?}, region 0 {:?}",
                    outcome.get(id),
                    before.get(id)
                ));
            }
        }
        self.judge.logs_are_level()?;
        Ok(all.into_iter().flatten().flat_map(|(_, standing)| standing.dead).collect())
    }

    /// Whether all clients and all disks have the same heads of every document. A client that holds
    /// what is dead has something else, and is left alone with it.
    fn converged(&mut self) -> Result<(), String> {
        let dead = self.regions_agree()?;
        for (document, id) in self.documents.clone().iter().enumerate() {
            let mut all: Option<Vec<ChangeHash>> = None;
            for client in &self.clients {
                let index = client.index;
                if client.forked || client.lost {
                    continue;
                }
                let held = client.documents.get(&document);
                let Some((held, talk)) = held.and_then(|held| Some((held, held.talk.as_ref()?)))
                else {
                    return Err(format!("client {index} has not opened document {document}"));
                };
                if !talk.answered || !self.is_connected(client) {
                    return Err(format!("client {index} is not connected, or was not answered"));
                }
                let left_behind = self.judge.forgotten_deaths
                    && held.knows_more(|hash| self.judge.is_anywhere(id, hash));
                if held.holds_any(&dead) || left_behind {
                    continue;
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

    /// However often regions were started: what the last process of each wrote, and no more, was named
    /// when all of them started once again.
    fn vectors_are_small(&mut self) {
        let Some(regions) = &self.regions else { return };
        let Some((ends, bytes)) = regions.vectors.iter().max_by_key(|(_, bytes)| **bytes) else {
            return;
        };
        let (ends, bytes) = (*ends, *bytes);
        self.tally.insert("bytes of the largest vector", bytes as u64);
        if bytes >= VECTOR_BYTES_MAX {
            let what = format!("the vector from {} to {} takes {bytes} bytes", ends.0, ends.1);
            self.broken(Law::VectorsStaySmall, what);
        }
    }

    fn last_judgement(&mut self) {
        if self.judge.violation.is_some() {
            return;
        }
        self.vectors_are_small();
        for node in 0..self.nodes.len() {
            let image = self.nodes[node].disk.snapshot();
            self.judge.crashed(node, &image, true);
            let newcomer = &self.clients[self.clients.len() - self.nodes.len() + node];
            for (document, id) in self.documents.iter().enumerate() {
                if let Some(held) = newcomer.documents.get(&document) {
                    self.judge.still_served(node, id, &held.doc);
                }
            }
        }
    }
}
