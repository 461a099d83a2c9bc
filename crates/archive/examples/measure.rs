//! Times the jobs on a typed text, and on a sequential editing trace if the path of one is given
//! (gzipped JSON: `{txns: [{patches: [[position, deleted, inserted], …]}]}`).
//!
//! `cargo run -p tributary-archive --example measure [TRACE.json.gz [TRANSACTIONS]]`

use std::error::Error;
use std::io::Read;
use std::time::Instant;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjType, ROOT};
use tributary_archive::{Answer, ExpandLimits, Job, run};

fn main() -> Result<(), Box<dyn Error>> {
    measure("typed text, 20,000 edits", typed(20_000)?)?;
    if let Some(path) = std::env::args().nth(1) {
        let transactions = std::env::args().nth(2).map_or(Ok(usize::MAX), |n| n.parse())?;
        measure("trace", traced(&std::fs::read(path)?, transactions)?)?;
    }
    Ok(())
}

fn measure(name: &str, mut doc: AutoCommit) -> Result<(), Box<dyn Error>> {
    let changes: Vec<Vec<u8>> =
        doc.get_changes(&[]).iter().map(|change| change.raw_bytes().to_vec()).collect();
    let saved = doc.save();
    println!("{name}: {} changes, {} bytes saved", changes.len(), saved.len());

    let tail = changes[changes.len() - 200..].to_vec();
    let before = Job::Compact { snapshot: None, changes: changes[..changes.len() - 200].to_vec() };
    let Answer::Compacted(before) = run(before, &mut |_| {})? else { unreachable!() };
    let last = changes[changes.len() - 1..].to_vec();
    let all_but_last =
        Job::Compact { snapshot: None, changes: changes[..changes.len() - 1].to_vec() };
    let Answer::Compacted(all_but_last) = run(all_but_last, &mut |_| {})? else { unreachable!() };

    let jobs = [
        ("expand the saved document", {
            Job::Expand { chunks: saved, limits: ExpandLimits::default() }
        }),
        ("compact every change at once", Job::Compact { snapshot: None, changes }),
        ("compact a snapshot and 200 changes", {
            Job::Compact { snapshot: Some(before.snapshot), changes: tail }
        }),
        ("judge one change on a snapshot", {
            let snapshot = Some(all_but_last.snapshot);
            Job::Judge { snapshot, changes: Vec::new(), candidates: last }
        }),
    ];
    for (what, job) in jobs {
        let began = Instant::now();
        let mut steps = Vec::new();
        run(job, &mut |progress| steps.push((progress.stage, began.elapsed().as_millis())))?;
        let total = began.elapsed().as_millis();
        println!("  {what}: {total} ms");
        steps.dedup_by_key(|step| step.0);
        for (n, (stage, from)) in steps.iter().enumerate() {
            let to = steps.get(n + 1).map_or(total, |next| next.1);
            println!("    {stage}: {} ms", to - from);
        }
    }
    Ok(())
}

fn typed(characters: usize) -> Result<AutoCommit, Box<dyn Error>> {
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text)?;
    for n in 0..characters {
        doc.splice_text(&text, n, 0, if n % 6 == 5 { " " } else { "a" })?;
        doc.commit();
    }
    Ok(doc)
}

fn traced(gzipped: &[u8], transactions: usize) -> Result<AutoCommit, Box<dyn Error>> {
    let mut json = Vec::new();
    flate2::read::GzDecoder::new(gzipped).read_to_end(&mut json)?;
    let trace: serde_json::Value = serde_json::from_slice(&json)?;
    let wrong = "not a sequential trace";
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text)?;
    for transaction in trace["txns"].as_array().ok_or(wrong)?.iter().take(transactions) {
        for patch in transaction["patches"].as_array().ok_or(wrong)? {
            let position = patch[0].as_u64().ok_or(wrong)? as usize;
            let deleted = patch[1].as_i64().ok_or(wrong)? as isize;
            doc.splice_text(&text, position, deleted, patch[2].as_str().ok_or(wrong)?)?;
        }
        doc.commit();
    }
    Ok(doc)
}
