//! The committer and the archive of a node, what it reports, and how it ends in order.

use std::time::Duration;

use node::{Event, Report};
use store::Store;

use crate::judge::Law;
use crate::plan::Fault;
use crate::planted::Planted;
use crate::world::{Due, World};

impl World {
    pub(crate) fn commit_next(&mut self, node: usize) {
        let (life, slow) = (self.nodes[node].life, self.now < self.nodes[node].slow_until);
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.committer.begin() {
            let (from, to) = self.plan.commit_ms;
            let mut reaches = self.rng.millis(from, to);
            if slow {
                reaches += self.rng.millis(200, 3000);
            }
            // In between it is on the disk and nobody has been told.
            let returns = reaches + self.rng.millis(0, to);
            self.due(reaches, Due::CommitReaches { node, life });
            self.due(returns, Due::CommitReturns { node, life });
        }
    }

    pub(crate) fn commit_reaches(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let writes = std::mem::take(&mut process.committer.writes);
        let lies = self.planted.strikes(Planted::DiskLies, &mut self.rng, 20);
        if lies {
            self.nodes[node].disk.fail_next_commit(store::Fault::Lie);
        }
        let Some(process) = &mut self.nodes[node].process else { return };
        let committed = process.store.commit(&writes);
        self.nodes[node].lying |= lies;
        match committed {
            Ok(()) => {
                self.count("commits");
                if !self.nodes[node].lying {
                    self.judge.written(node, &writes);
                }
            }
            Err(error) => {
                // The server says so and exits; nothing more is acknowledged.
                self.trace
                    .note(self.now, "commit fails", &[node as u64], &[], || error.to_string());
                self.count("failed commits");
                self.crash(node);
            }
        }
    }

    pub(crate) fn commit_returns(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else { return };
        for (shard, batch) in std::mem::take(&mut process.committer.under_way) {
            if let Some(process) = &mut self.nodes[node].process {
                process.shards[shard].under_way -= 1;
            }
            self.answer_shard(node, shard, Event::Committed { batch });
        }
        self.commit_next(node);
        self.end_drain(node);
    }

    pub(crate) fn archive_is_done(
        &mut self,
        node: usize,
        shard: usize,
        job: node::JobId,
        result: Box<node::ArchiveResult>,
        took: Duration,
    ) {
        self.answer_shard(node, shard, Event::Archived { job, result, took });
    }

    pub(super) fn reported(&mut self, node: usize, report: &Report) {
        self.trace.note(self.now, "report", &[node as u64], &[], || format!("{report:?}"));
        match report {
            Report::Refused { session, why, .. } => {
                self.count("refused");
                let link = self.nodes[node]
                    .process
                    .as_ref()
                    .and_then(|process| process.links.get(session));
                if link.is_some_and(|link| self.is_honest(*link)) && !self.plan.has(Fault::Forks) {
                    self.broken(Law::HonestChangesAreTaken, format!("refused: {why}"));
                }
            }
            // One of two histories under one actor dies, with what others built on it.
            Report::Died { .. } if self.plan.has(Fault::Forks) => self.count("died"),
            Report::Died { change, reason, .. } => {
                self.broken(
                    Law::HonestChangesAreTaken,
                    format!("{change} was set aside: {reason}"),
                );
            }
            Report::Unreadable { document, error } => {
                self.broken(Law::TheStoreIsWhole, format!("{document} cannot be read: {error}"));
            }
            Report::Copied { .. } => self.count("conflict copies"),
            // The audit will see to it once more.
            Report::NotRepaired { reason, .. }
                if self.plan.has(Fault::ArchiveAway) && reason.ends_with("it is away") =>
            {
                self.count("not repaired");
            }
            Report::NotRepaired { document, reason } => {
                self.broken(Law::RegionsUnderstand, format!("repair of {document}: {reason}"));
            }
            Report::LogTaken { log } => {
                self.broken(Law::LogsNeverChange, format!("region {node}: {log} is taken"));
            }
            Report::LogDiffers { log, region } => {
                let what = format!("region {node}: {log} is another one in {region}");
                self.broken(Law::LogsNeverChange, what);
            }
            Report::MeshUnreadable { error } => {
                self.broken(Law::TheStoreIsWhole, format!("the mesh cannot be read: {error}"));
            }
            Report::Compacted { .. } => self.count("compactions"),
            Report::Unverified { reason, .. } => {
                self.count("not verified");
                if !self.plan.has(Fault::ArchiveAway) {
                    self.broken(Law::TheStoreIsWhole, format!("not verified: {reason}"));
                }
            }
        }
    }

    /// Ends the process in order once everything that it took in is durable.
    pub(super) fn end_drain(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let done = process.draining
            && process.committer.under_way.is_empty()
            && process.committer.waiting.is_empty()
            && process.shards.iter().all(|host| {
                host.shard.is_settled() && host.inbox.is_empty() && host.answered.is_empty()
            });
        if done {
            self.crash(node);
        }
    }
}
