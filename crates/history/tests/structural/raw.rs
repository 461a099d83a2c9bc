//! A change whose every byte is written by hand. Tests of other crates use this file, too.

use sha2::{Digest, Sha256};

/// A change whose every column is written by hand.
#[derive(Clone)]
pub struct Raw {
    pub deps: Vec<[u8; 32]>,
    pub actor: Vec<u8>,
    pub seq: u64,
    pub start: u64,
    pub others: Vec<Vec<u8>>,
    /// Number and bytes, as listed.
    pub columns: Vec<(u64, Vec<u8>)>,
    pub extra: Vec<u8>,
}

impl Raw {
    /// One that puts 5 at the key `x` of the root, in canonical form.
    pub fn put(actor: &[u8], seq: u64, start: u64, mut deps: Vec<[u8; 32]>) -> Self {
        deps.sort();
        let columns = [
            (21, vec![0x7f, 1, b'x']),
            (52, vec![1]),
            (66, vec![0x7f, 1]),
            (86, vec![0x7f, 0x14]),
            (87, vec![5]),
            (112, vec![0x7f, 0]),
        ];
        let (actor, columns) = (actor.to_vec(), columns.to_vec());
        Self { deps, actor, seq, start, others: Vec::new(), columns, extra: Vec::new() }
    }

    /// With a flag on its value that only marks have. Automerge would leave it out, and keeps it.
    pub fn with_expand(self) -> Self {
        self.column(148, &[0, 1])
    }

    /// With its action written as a run of one. Automerge applies it, and what it saves after that
    /// does not load.
    pub fn with_run_of_one(self) -> Self {
        self.column(66, &[1, 1])
    }

    /// With a byte more than needed in the length of its value. As bad.
    pub fn with_padded_number(self) -> Self {
        self.column(86, &[0x7f, 0x94, 0])
    }

    /// With a column replaced, or added at its place.
    pub fn column(mut self, number: u64, bytes: &[u8]) -> Self {
        self.columns.retain(|(other, _)| *other != number);
        self.columns.push((number, bytes.to_vec()));
        self.columns.sort();
        self
    }

    pub fn others(mut self, others: &[&[u8]]) -> Self {
        self.others = others.iter().map(|other| other.to_vec()).collect();
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        number(&mut body, self.deps.len() as u64);
        self.deps.iter().for_each(|dep| body.extend(dep));
        prefixed(&mut body, &self.actor);
        number(&mut body, self.seq);
        number(&mut body, self.start);
        body.extend([0, 0]);
        number(&mut body, self.others.len() as u64);
        self.others.iter().for_each(|other| prefixed(&mut body, other));
        number(&mut body, self.columns.len() as u64);
        for (column, bytes) in &self.columns {
            number(&mut body, *column);
            number(&mut body, bytes.len() as u64);
        }
        self.columns.iter().for_each(|(_, bytes)| body.extend(bytes));
        body.extend(&self.extra);
        chunk(&body)
    }
}

/// A change chunk around a body.
fn chunk(body: &[u8]) -> Vec<u8> {
    let mut head = vec![1];
    number(&mut head, body.len() as u64);
    let hash = Sha256::new().chain_update(&head).chain_update(body).finalize();
    [&[0x85, 0x6f, 0x4a, 0x83], &hash[..4], &head, body].concat()
}

fn prefixed(bytes: &mut Vec<u8>, text: &[u8]) {
    number(bytes, text.len() as u64);
    bytes.extend(text);
}

fn number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}
