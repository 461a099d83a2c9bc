//! The judge that counts: Automerge. Applies, saves, loads and reads, in many causal orders.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, Automerge, Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, Value};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A panic of Automerge 0.12 that honest changes lead to: two clients set the same element of a text,
/// a third deletes what one of them set, and whoever has both asks for patches.
pub const OWN_PANIC: &str = "exposed value must record the value it replaces";

/// What Automerge makes of these changes: `Ok` when all is well, else what went wrong.
pub fn survives(changes: &[Change], seed: u64, orders: usize) -> Result<(), String> {
    silence_panics();
    let mut random = SmallRng::seed_from_u64(seed);
    for order in 0..orders {
        let changes = match order {
            0 => changes.to_vec(),
            _ => shuffled(changes, &mut random),
        };
        let batch = match order {
            0 => 1,
            1 => changes.len(),
            _ => random.random_range(1..=changes.len()),
        };
        // Automerge unwinds through its own data, which is dropped right here.
        catch_unwind(AssertUnwindSafe(|| live_through(&changes, batch)))
            .unwrap_or_else(|panic| Err(format!("panic: {}", text_of(&*panic))))?;
    }
    Ok(())
}

fn live_through(changes: &[Change], batch: usize) -> Result<(), String> {
    let mut doc = AutoCommit::new();
    for (at, some) in changes.chunks(batch).enumerate() {
        // With and without somebody listening for patches: two ways through the code.
        if at % 2 == 0 {
            doc.update_diff_cursor();
        } else {
            doc.reset_diff_cursor();
        }
        doc.apply_changes(some.to_vec()).map_err(|error| format!("apply: {error}"))?;
        let _ = doc.diff_incremental();
    }
    let expected: BTreeSet<ChangeHash> = changes.iter().map(Change::hash).collect();
    same(&expected, &mut doc, "applied")?;
    let mut loaded = load(&doc.save())?;
    same(&expected, &mut loaded, "loaded")?;
    doc.hydrate(ROOT, None).map_err(|error| format!("hydrate: {error}"))?;
    let (applied, loaded_view) = (view(&doc, &ROOT, 0)?, view(&loaded, &ROOT, 0)?);
    if applied != loaded_view {
        return Err(format!("reads differently after loading: {applied} {loaded_view}"));
    }
    // An honest edit must still be possible, and survive the same.
    loaded.put(ROOT, "edited after", true).map_err(|error| format!("edit: {error}"))?;
    loaded.commit();
    load(&loaded.save())?;
    let mut document = doc.save();
    let last = loaded.get_last_local_change().ok_or("no local change")?;
    document.extend_from_slice(last.raw_bytes());
    load(&document).map(drop)
}

fn load(bytes: &[u8]) -> Result<AutoCommit, String> {
    AutoCommit::load(bytes).map_err(|error| format!("load: {error}"))
}

fn same(expected: &BTreeSet<ChangeHash>, doc: &mut AutoCommit, when: &str) -> Result<(), String> {
    let got: BTreeSet<ChangeHash> = doc.get_changes(&[]).iter().map(Change::hash).collect();
    if *expected == got { Ok(()) } else { Err(format!("other hashes when {when}")) }
}

/// All that can be read, as text.
fn view(doc: &AutoCommit, object: &ObjId, depth: usize) -> Result<String, String> {
    let read = |error: automerge::AutomergeError| format!("read: {error}");
    let kind = doc.object_type(object).map_err(read)?;
    let mut seen = String::new();
    if kind == ObjType::Text {
        seen += &format!("{:?} {:?}", doc.text(object), doc.marks(object));
        seen += &format!("{:?}", doc.spans(object).map_err(read)?.collect::<Vec<_>>());
    }
    let props: Vec<automerge::Prop> = match kind {
        ObjType::Map | ObjType::Table => doc.keys(object).map(automerge::Prop::from).collect(),
        _ => (0..doc.length(object)).map(automerge::Prop::from).collect(),
    };
    for prop in props {
        for (value, id) in doc.get_all(object, prop).map_err(read)? {
            seen += &match value {
                // Automerge shows a table and then does not know it.
                Value::Object(kind) if kind != ObjType::Table && depth < 40 => {
                    view(doc, &id, depth + 1)?
                }
                other => format!("{other:?}@{id:?},"),
            };
        }
    }
    Ok(seen)
}

/// The changes in another causal order.
pub fn shuffled(changes: &[Change], random: &mut SmallRng) -> Vec<Change> {
    let all: BTreeSet<ChangeHash> = changes.iter().map(Change::hash).collect();
    let mut left: Vec<&Change> = changes.iter().collect();
    let (mut done, mut order) = (BTreeSet::new(), Vec::new());
    while !left.is_empty() {
        let ready = |change: &&&Change| {
            change.deps().iter().all(|dep| done.contains(dep) || !all.contains(dep))
        };
        let ready: Vec<usize> =
            left.iter().enumerate().filter(|(_, c)| ready(c)).map(|(at, _)| at).collect();
        let change = left.swap_remove(ready[random.random_range(0..ready.len())]);
        done.insert(change.hash());
        order.push(change.clone());
    }
    order
}

/// The whole document with these changes, for making more.
pub fn document(changes: &[Change]) -> Automerge {
    let mut doc = Automerge::new();
    doc.apply_changes(changes.to_vec()).unwrap();
    doc
}

/// What a panic said.
pub fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Panics inside Automerge are results here, and not printed. Those of the tests themselves still print.
pub fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let file = info.location().map_or("", |location| location.file());
            if !["automerge-", "hexane-", "/core/src/", "/alloc/src/"]
                .iter()
                .any(|f| file.contains(f))
            {
                usual(info);
            }
        }));
    });
}
