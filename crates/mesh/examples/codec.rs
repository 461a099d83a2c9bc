//! How many bytes a one-character change takes on a link: `cargo run -p tributary-mesh --example codec`.
//!
//! Fifty documents are typed into at once, each by its own author, with the text of real prose
//! (random words), a change a character, in the order of their making. The figures are those of whole
//! frames, without the 2 to 4 bytes that a WebSocket adds to each.

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, ObjType, ROOT};
use history::chunk::{Limits, read_change};
use model::{DocumentId, RegionName};
use tributary_mesh::codec::{Decoder, Encoder, Group};
use tributary_mesh::{Entry, Item, LogId, Origin};

const DOCUMENTS: usize = 50;
const ROUNDS: usize = 600;

fn main() {
    let entries = typing();
    let changes = entries.len();
    let raw: usize = entries.iter().map(change_bytes).sum();
    println!("{changes} changes of one character, {DOCUMENTS} documents at once");
    println!("as they are:            {:6.2} bytes each", raw as f64 / changes as f64);
    for size in [1, 4, 8, 16, 32, 128] {
        let (all, late, micros) = measure(&entries, size);
        println!(
            "in batches of {size:3}:      {all:6.2} bytes each, {late:6.2} in the second half; \
             {:.1} us to encode, {:.1} us to decode",
            micros[0], micros[1]
        );
    }
}

/// Bytes for each change, over all and over the second half; microseconds to encode and decode one.
fn measure(entries: &[Entry], size: usize) -> (f64, f64, [f64; 2]) {
    let origin = Origin { region: RegionName::new("frankfurt").expect("short"), epoch: 99 };
    let mut next = [1_u64; 16];
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(Limits::default()));
    let (mut bytes, mut late, mut late_changes) = (0, 0, 0);
    let mut spent = [std::time::Duration::ZERO; 2];
    for (number, batch) in entries.chunks(size).enumerate() {
        // As a link does it: the stretches of one log together.
        let mut groups: Vec<Group<Vec<Entry>>> = Vec::new();
        for entry in batch {
            let stream = entry.document.stream();
            match groups.iter_mut().find(|group| group.log.stream == stream) {
                Some(group) => group.entries.push(entry.clone()),
                None => groups.push(Group {
                    log: LogId { origin: origin.clone(), stream },
                    first: next[usize::from(stream)],
                    entries: vec![entry.clone()],
                }),
            }
            next[usize::from(stream)] += 1;
        }
        let start = std::time::Instant::now();
        let coded = encoder.encode(&groups);
        spent[0] += start.elapsed();
        let start = std::time::Instant::now();
        decoder.decode(&coded.bytes).expect("what was encoded is decoded");
        spent[1] += start.elapsed();
        // The byte that says what kind of frame it is.
        let frame = coded.bytes.len() + 1;
        bytes += frame;
        if number * size >= entries.len() / 2 {
            late += frame;
            late_changes += batch.len();
        }
    }
    let each = spent.map(|spent| spent.as_secs_f64() * 1e6 / entries.len() as f64);
    (bytes as f64 / entries.len() as f64, late as f64 / late_changes as f64, each)
}

fn typing() -> Vec<Entry> {
    let mut random = Random(7);
    let mut authors: Vec<_> = (0..DOCUMENTS)
        .map(|_| {
            let id = DocumentId::from_bytes(&random.bytes()).expect("sixteen bytes");
            let actor = ActorId::from(random.bytes().to_vec());
            let mut document = AutoCommit::new().with_actor(actor);
            let text = document.put_object(ROOT, "text", ObjType::Text).expect("a text");
            document.commit();
            (id, document, text, words(&mut random))
        })
        .collect();
    let mut entries = Vec::new();
    for round in 0..ROUNDS {
        for number in 0..DOCUMENTS {
            // Not always in the same order: people do not take turns.
            let at = (number + random.below(3)) % DOCUMENTS;
            let (id, document, text, prose) = &mut authors[at];
            let character = prose[round % prose.len()].to_string();
            let end = automerge::ReadDoc::length(document, &*text);
            document.splice_text(&*text, end, 0, &character).expect("typing");
            let time = 1_700_000_000 + (round as i64 * DOCUMENTS as i64 + number as i64) / 1000;
            document.commit_with(CommitOptions::default().with_time(time));
            let change = document.get_last_local_change().expect("just made").clone();
            let change = read_change(change.raw_bytes()).expect("a change");
            entries.push(Entry { document: id.clone(), item: Item::Change(change) });
        }
    }
    entries
}

fn change_bytes(entry: &Entry) -> usize {
    match &entry.item {
        Item::Change(change) => change.bytes().len(),
        Item::Dead { .. } => 0,
    }
}

fn words(random: &mut Random) -> Vec<char> {
    const WORDS: &str = "the river that runs past our old house has many names and none of them is \
        known to those who drink from it every morning before work begins again";
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut prose = Vec::new();
    while prose.len() < ROUNDS {
        prose.extend(words[random.below(words.len())].chars());
        prose.push(if random.below(9) == 0 { '.' } else { ' ' });
    }
    prose
}

/// A small generator: the figures are to be the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self) -> [u8; 16] {
        (u128::from(self.next()) << 64 | u128::from(self.next())).to_le_bytes()
    }
}
