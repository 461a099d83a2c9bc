//! Two regions find out which documents they do not hold alike. Both audits run in this process, each
//! on a sketch of its documents; what they say to each other is counted as it is encoded.

use std::time::{Duration, Instant};

use mesh::audit::{Answer, Ask, Audit, Effect, Finding, Message, Pace, Root};
use mesh::sketch::Sketch;
use sha2::{Digest, Sha256};

use crate::report::{Measured, short};
use crate::server::own_cpu;

const SHARDS: usize = 2;

/// One region: what its shards would keep, and its side of the audit.
struct Side {
    sketches: Vec<Sketch>,
    audit: Audit,
}

impl Side {
    fn new(asks: bool, items: impl Iterator<Item = (usize, u64)>) -> Self {
        let mut sketches = vec![Sketch::default(); SHARDS];
        for (document, item) in items {
            sketches[document % SHARDS].add(item);
        }
        Self { sketches, audit: Audit::new(asks, SHARDS, Pace::default()) }
    }

    fn answer(&self, shard: usize, ask: &Ask) -> Option<Answer> {
        let sketch = &self.sketches[shard];
        match ask {
            Ask::Root { round } => {
                let root = Root { documents: sketch.count(), sum: sketch.sum() };
                Some(Answer::Root { round: *round, root })
            }
            Ask::Symbols { round, from, to } => {
                let symbols = sketch.symbols(*from..*to).to_vec();
                Some(Answer::Symbols { round: *round, symbols })
            }
            // Asked for only when a sketch does not suffice, and after it is known what differs.
            Ask::Items { .. } | Ask::Repair { .. } => None,
        }
    }
}

pub(in crate::rows) fn measure(documents: usize, differ: usize) -> Result<Measured, String> {
    // Of the documents that differ, each region has another state.
    let items = |newer: bool| {
        (0..documents).map(move |document| {
            let changed = newer && document % (documents / differ) == 0;
            (document, item(document, changed))
        })
    };
    let mut sides = [Side::new(true, items(true)), Side::new(false, items(false))];
    let (began, cpu_before) = (Instant::now(), own_cpu());
    let found = look(&mut sides)?;
    let (took, cpu) = (began.elapsed(), own_cpu() - cpu_before);
    if (found.here, found.there) != (differ, differ) {
        return Err(format!(
            "found {} and {} of {differ} documents that differ",
            found.here, found.there
        ));
    }

    let mut measured = Measured {
        result: format!("{} KB, {} round trips", short(found.bytes as f64 / 1e3), found.trips),
        cpu: format!("{} ms", short(cpu.as_secs_f64() * 1e3)),
        ..Measured::default()
    };
    measured.remark("both audits run in the load generator, without servers");
    measured.remark(format!("{} ms beside the round trips", short(took.as_secs_f64() * 1e3)));
    measured.number("bytes", found.bytes as f64);
    measured.number("round_trips", found.trips as f64);
    measured.number("ms", took.as_secs_f64() * 1e3);
    Ok(measured)
}

/// What it took to know.
#[derive(Default)]
struct Found {
    bytes: usize,
    trips: usize,
    here: usize,
    there: usize,
}

/// One look of the asker, until it knows what differs.
fn look(sides: &mut [Side; 2]) -> Result<Found, String> {
    let mut found = Found::default();
    let mut now = Duration::ZERO;
    for side in sides.iter_mut() {
        side.audit.up(now);
    }
    // The first look is a while after the link is up.
    now = sides[0].audit.poll_timeout().ok_or("the audit does not begin")?;
    sides[0].audit.tick(now);
    loop {
        let mut idle = true;
        for me in 0..2 {
            while let Some(effect) = sides[me].audit.poll_effect() {
                idle = false;
                match effect {
                    Effect::Send(message) => {
                        let mut bytes = Vec::new();
                        message.encode(&mut bytes);
                        found.bytes += bytes.len();
                        found.trips += usize::from(me == 0);
                        let message = Message::decode(&bytes).map_err(|it| format!("{it:?}"))?;
                        let heard = sides[1 - me].audit.heard(now, message);
                        heard.map_err(|wrong| format!("{wrong:?}"))?;
                    }
                    Effect::Ask(ask) => {
                        for shard in 0..SHARDS {
                            if let Some(answer) = sides[me].answer(shard, &ask) {
                                sides[me].audit.answered(now, shard, answer);
                            }
                        }
                    }
                    Effect::Found(Finding::Differs { here, there }) => {
                        return Ok(Found { here, there, ..found });
                    }
                    Effect::Found(finding) => return Err(format!("the audit says {finding:?}")),
                }
            }
        }
        if idle {
            return Err("the audit has stopped without a finding".to_owned());
        }
    }
}

/// As random as the item of a real document in one of its states.
fn item(document: usize, changed: bool) -> u64 {
    let mut hash = Sha256::new();
    hash.update((document as u64).to_le_bytes());
    hash.update([u8::from(changed)]);
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_le_bytes(*digest.first_chunk().expect("a digest is longer"))
}
