//! Every bound of the machine, in one place.

use std::time::Duration;

/// What a node may spend, and how patient it is. The defaults are what a region runs with.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many bytes of frames one session may have on the way to its socket, per shard, before
    /// nothing more is made for it. A single frame may be larger.
    pub session_bytes_in_flight: usize,
    /// Presence is dropped for a session that has this many bytes on the way.
    pub presence_bytes_in_flight: usize,
    /// How many documents one session may have open, per shard.
    pub documents_per_session: usize,
    /// How many messages of one session on one document may wait for the archive.
    pub waiting_messages: usize,
    /// How many bytes they may have together; one message may be larger. A typist whose connection
    /// was held up sends what it has all at once, and is not to be sent away for it.
    pub waiting_bytes: usize,
    /// How many stores' heads one session may subscribe to.
    pub subscriptions_per_session: usize,
    /// The heads of how many stores are remembered per document.
    pub gossip_stores_per_document: usize,
    /// How long a session that only has an acknowledgement to get waits after the last message it
    /// got about the document. Typists are acknowledged at most this often.
    pub acknowledge_after: Duration,
    /// How long a document rests after telling its sessions the news, for each session it told.
    /// Changes that arrive meanwhile go out in one message.
    pub rest_per_session: Duration,
    /// The longest such rest.
    pub rest_max: Duration,
    /// How long new changes of documents that rest wait at most for others to share a commit with them.
    pub gather_max: Duration,
    /// How long a document has to be quiet before its newest changes are verified with the CRDT.
    pub verify_after: Duration,
    /// Verification of a document takes at most one part in this many of a core's time.
    pub verify_share: u32,
    /// With so many jobs of the archive under way no further document is verified: each of them holds
    /// what there is of a document.
    pub verify_jobs_max: usize,
    /// A tail of this many bytes, or of a quarter of the snapshot if that is more, is compacted.
    pub compact_tail_bytes: usize,
    /// How many bytes of changes behind the snapshot are kept one by one, per document, so that a
    /// client that was away gets exactly what it lacks.
    pub retain_bytes: usize,
    /// How long they are kept.
    pub retain_age: Duration,
    /// How long a document that no session has open stays in memory.
    pub idle_after: Duration,
    /// How much memory documents may take, per shard, before the logs of those at rest leave it.
    pub memory_bytes: usize,
    /// How much of it may be taken by documents for being open, whatever their logs do, before the
    /// session with the most of them is closed.
    pub open_bytes: usize,
    /// How long a client waits at most for a document that another region may have.
    pub ask_within: Duration,
    /// A repair that the other region does not go on with ends after this.
    pub repair_within: Duration,
    /// How many bytes of changes a repair sends in one message. One change may be larger.
    pub repair_part_bytes: usize,
    /// How large a snapshot may be that a repair sends. The changes in a larger one are sent one by one.
    pub repair_snapshot_bytes: usize,
    /// How many bytes of the bulk lane of a link, as its credit counts them, are taken in at once, and
    /// so go into one commit in front of the next keystroke's. One batch of entries may be larger.
    pub bulk_bytes_at_once: usize,
    /// With so many batches on the way to the store nothing of a bulk lane is taken in: what people
    /// type finds a place.
    pub bulk_batches_under_way: usize,
    /// How many entries of one origin log are kept for regions that are away. Beyond that they are
    /// brought level by the audit.
    pub log_entries_max: u64,
    /// How much one message may make us spend on reading it.
    pub chunks: history::chunk::Limits,
}

impl Limits {
    /// From how many bytes of changes beside a snapshot of a size on they are put into it.
    #[must_use]
    pub fn compact_at(compact_tail_bytes: usize, snapshot_bytes: usize) -> usize {
        compact_tail_bytes.max(snapshot_bytes / 4)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            session_bytes_in_flight: 256 << 10,
            presence_bytes_in_flight: 128 << 10,
            documents_per_session: 100_000,
            waiting_messages: 4096,
            waiting_bytes: 16 << 20,
            subscriptions_per_session: 1_000,
            gossip_stores_per_document: 1_000,
            acknowledge_after: Duration::from_millis(50),
            rest_per_session: Duration::from_micros(50),
            rest_max: Duration::from_millis(100),
            gather_max: Duration::from_millis(10),
            verify_after: Duration::from_secs(2),
            verify_share: 20,
            verify_jobs_max: 64,
            compact_tail_bytes: 64 << 10,
            retain_bytes: 1 << 20,
            retain_age: Duration::from_secs(7 * 24 * 3600),
            idle_after: Duration::from_secs(10),
            memory_bytes: 128 << 20,
            open_bytes: 128 << 20,
            ask_within: Duration::from_secs(3),
            repair_within: Duration::from_secs(30),
            repair_part_bytes: 4 << 20,
            repair_snapshot_bytes: 64 << 20,
            bulk_bytes_at_once: 64 << 10,
            bulk_batches_under_way: 1,
            log_entries_max: 1 << 20,
            chunks: history::chunk::Limits::default(),
        }
    }
}
