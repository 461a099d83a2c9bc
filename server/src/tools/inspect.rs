//! `tributary inspect`: what a running region has of one document, on a terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use model::DocumentUrl;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::Failure;
use crate::page::duration;
use crate::status::DocumentStatus;
use crate::tools::ask::{Asked, Unanswered, bytes};

/// A map or list shows so many of its entries unless all are asked for.
const CHILDREN_MAX: usize = 40;
/// A text so many characters.
const CHARS_MAX: usize = 160;
/// So many writers have a column of their own in the graph; the others share the last.
const LANES_MAX: usize = 8;

/// Which document, and how much of it.
///
/// Exit codes: 0 it was printed; 1 there is no such document, or the region could not be asked; 2 the
/// id or the URL makes no sense.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The document: a bare id, or an automerge: URL
    #[arg(value_name = "ID")]
    id: String,
    /// Where the region listens, as it said when it started
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4450")]
    url: String,
    /// How many rows of the history are shown
    #[arg(long, value_name = "ROWS", default_value_t = 15)]
    history: usize,
    /// Shows all of the value, however long it is
    #[arg(long)]
    full: bool,
    /// Prints what the region said, as one JSON object: status, history, value
    #[arg(long)]
    json: bool,
}

/// What `/history` says, as far as it is shown.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Page {
    changes: Vec<Change>,
    next: Option<u32>,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
struct Change {
    hash: String,
    actor: String,
    by_server: bool,
    seq: u64,
    time: i64,
    message: Option<String>,
    operations: u64,
    dependencies: Vec<String>,
}

/// Asks for a document, and prints what there is of it.
///
/// # Errors
/// When the id is none, the region cannot be asked, or it has no such document.
pub fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let wrong = |error: Unanswered| match error {
        Unanswered::Url(text) => Failure::Usage(text),
        Unanswered::Unreached(text) => Failure::Found(text),
        Unanswered::Refused { status: 404, .. } => Failure::Found(format!(
            "region at {} has no document {}. If it is new, or was made in another region, it may not \
             have come yet; 'curl {}/v1/documents' lists what there is",
            args.url, args.id, args.url
        )),
        Unanswered::Refused { status, detail } => {
            Failure::Found(format!("{} answers {status}: {detail}", args.url))
        }
    };
    let named: DocumentUrl = args.id.trim().parse().map_err(|error| {
        Failure::Usage(format!(
            "'{}' is not the id or automerge: URL of a document: {error}",
            args.id
        ))
    })?;
    let asked = Asked::parse(&args.url).map_err(wrong)?;
    let path = format!("/v1/documents/{}", named.id);
    let status: DocumentStatus = asked.json(&format!("{path}/status")).map_err(wrong)?;
    let history: Page = asked.json(&format!("{path}/history")).map_err(wrong)?;
    let value: Value = asked.json(&format!("{path}?form=typed")).map_err(wrong)?;
    let text = if args.json {
        let all = serde_json::json!({ "status": status, "history": history, "value": value });
        format!("{all:#}\n")
    } else {
        let mut text = facts(&status, asked.url());
        text.push_str(&graph(&history, &status.heads, args.history));
        text.push_str("\nValue\n");
        let limit = if args.full { usize::MAX } else { 1 };
        tree(&value, 1, limit, &mut text);
        text
    };
    // Whoever reads this may have read enough.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

fn facts(status: &DocumentStatus, url: &str) -> String {
    let mut text = format!("{}\n", status.url);
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<12} {value}");
    };
    row("region", url);
    for (n, head) in status.heads.iter().enumerate() {
        row(if n == 0 { "heads" } else { "" }, head);
    }
    row("changes", &status.changes.to_string());
    row("stored", &bytes(status.bytes));
    row("came here", &moment(status.created / 1_000));
    let changed = status.changed.map(|ms| moment(ms / 1_000));
    row("last change", changed.as_deref().unwrap_or("longer ago than changes are kept one by one"));
    let _ = writeln!(text, "\nConnected here: {}", count(status.peers_total, "session"));
    let width = status.peers.iter().map(|peer| peer.peer.chars().count()).max().unwrap_or(0);
    for peer in &status.peers {
        let level = if peer.level { "level" } else { "not level yet" };
        let store = peer.storage.as_ref().map(|store| format!(", store {store}"));
        let _ = writeln!(
            text,
            "  {:width$}  {level}, session {}{}",
            clean(&peer.peer),
            peer.session,
            clean(&store.unwrap_or_default())
        );
    }
    let left = status.peers_total.saturating_sub(status.peers.len() as u64);
    if left > 0 {
        let _ = writeln!(text, "  and {left} more");
    }
    text
}

/// A run of changes of one writer that nobody else built into: one row.
struct Run<'a> {
    first: &'a Change,
    last: &'a Change,
    changes: usize,
    operations: u64,
}

fn runs(changes: &[Change]) -> Vec<Run<'_>> {
    let mut children: BTreeMap<&str, usize> = BTreeMap::new();
    for dependency in changes.iter().flat_map(|change| &change.dependencies) {
        *children.entry(dependency).or_default() += 1;
    }
    let mut runs: Vec<Run<'_>> = Vec::new();
    for change in changes {
        let alone = children.get(change.hash.as_str()) == Some(&1) && change.message.is_none();
        match runs.last_mut() {
            Some(run)
                if alone
                    && run.first.actor == change.actor
                    && run.first.message.is_none()
                    && run.last.dependencies == [change.hash.as_str()] =>
            {
                run.last = change;
                run.changes += 1;
                run.operations += change.operations;
            }
            _ => runs.push(Run {
                first: change,
                last: change,
                changes: 1,
                operations: change.operations,
            }),
        }
    }
    runs
}

/// The last changes, the newest first, with a column for each writer.
fn graph(page: &Page, heads: &[String], rows_max: usize) -> String {
    let all = runs(&page.changes);
    let rows = &all[..all.len().min(rows_max)];
    let mut lanes: Vec<&str> = Vec::new();
    for run in rows {
        if !lanes.contains(&run.first.actor.as_str()) && lanes.len() < LANES_MAX {
            lanes.push(&run.first.actor);
        }
    }
    let lane = |run: &Run<'_>| {
        let found = lanes.iter().position(|actor| *actor == run.first.actor);
        found.unwrap_or(LANES_MAX - 1)
    };
    let mut text = "\nHistory, the newest first, a column for each writer\n".to_owned();
    for (at, run) in rows.iter().enumerate() {
        // A lane is drawn between the first and the last row of its writer.
        let columns: String = (0..lanes.len())
            .map(|column| match column == lane(run) {
                true if run.changes > 1 => "◉ ",
                true => "● ",
                false => {
                    let above = rows[..at].iter().any(|row| lane(row) == column);
                    let below = rows[at + 1..].iter().any(|row| lane(row) == column);
                    if above && below { "│ " } else { "  " }
                }
            })
            .collect();
        let head = if heads.contains(&run.first.hash) { " head" } else { "" };
        let merges = run.last.dependencies.len();
        let merge = if merges > 1 { format!(", merges {merges}") } else { String::new() };
        let numbers = match run.changes {
            1 => format!("change {}", run.first.seq),
            _ => format!("changes {} to {}", run.last.seq, run.first.seq),
        };
        let message = run.first.message.as_ref().map(|text| format!("  \"{}\"", clean(text)));
        let _ = writeln!(
            text,
            "  {columns}{}  {}  {numbers} of {}{}, {}{merge}{head}{}",
            short(&run.first.hash),
            when(run.first.time),
            short(&run.first.actor),
            if run.first.by_server { " (this server, for REST)" } else { "" },
            count(run.operations, "operation"),
            message.unwrap_or_default()
        );
    }
    if rows.len() < all.len() || page.next.is_some() {
        text.push_str("  older ones: --history ROWS, or /v1/documents/ID/history\n");
    }
    text
}

/// A value in the typed form of `docs/rest.md`, one line for each place. `factor` multiplies the
/// bounds.
fn tree(value: &Value, depth: usize, factor: usize, out: &mut String) {
    match value {
        Value::Object(map) if kind(value).is_none() && !map.is_empty() => {
            let entries = map.iter().map(|(key, value)| {
                // A key that begins with $ has another in front of it.
                (clean(if key.starts_with("$$") { &key[1..] } else { key }), value)
            });
            branches(entries, map.len(), depth, factor, out);
        }
        Value::Array(list) if !list.is_empty() => {
            let entries = list.iter().enumerate().map(|(n, value)| (n.to_string(), value));
            branches(entries, list.len(), depth, factor, out);
        }
        leaf => {
            let _ = writeln!(out, "{:1$}{2}", "", depth * 2, self::leaf(leaf, factor));
        }
    }
}

fn branches<'a>(
    entries: impl Iterator<Item = (String, &'a Value)>,
    len: usize,
    depth: usize,
    factor: usize,
    out: &mut String,
) {
    let max = CHILDREN_MAX.saturating_mul(factor);
    for (key, value) in entries.take(max) {
        let _ = write!(out, "{:1$}{key}: ", "", depth * 2);
        match value {
            Value::Object(map) if kind(value).is_none() && !map.is_empty() => {
                let _ = writeln!(out, "map, {}", count(map.len() as u64, "key"));
                tree(value, depth + 1, factor, out);
            }
            Value::Array(list) if !list.is_empty() => {
                let _ = writeln!(out, "list, {}", count(list.len() as u64, "item"));
                tree(value, depth + 1, factor, out);
            }
            leaf => {
                let _ = writeln!(out, "{}", self::leaf(leaf, factor));
            }
        }
    }
    if len > max {
        let _ = writeln!(out, "{:1$}and {2} more: --full shows them", "", depth * 2, len - max);
    }
}

/// What JSON has no word for: the name of its type, and what stands for it.
fn kind(value: &Value) -> Option<(&str, &Value)> {
    let (key, inner) = value.as_object()?.iter().find(|(key, _)| key.starts_with('$'))?;
    let map = value.as_object()?;
    // A text with marks has more than one key, and they all begin with $.
    let text = map.get("$text").map(|text| ("text with marks", text));
    text.or_else(|| (!key.starts_with("$$") && map.len() == 1).then_some((&key[1..], inner)))
}

fn leaf(value: &Value, factor: usize) -> String {
    if let Some((kind, inner)) = kind(value) {
        return match (kind, inner.as_i64()) {
            ("timestamp", Some(ms)) if ms >= 0 => {
                format!("{} ({kind})", moment(ms as u64 / 1_000))
            }
            _ => format!("{} ({kind})", leaf(inner, factor)),
        };
    }
    match value {
        Value::Object(_) => "empty map".to_owned(),
        Value::Array(_) => "empty list".to_owned(),
        Value::String(text) => {
            let max = CHARS_MAX.saturating_mul(factor);
            let chars = text.chars().count();
            // Written as in JSON, so that a terminal obeys nothing of it.
            let shown: String = text.chars().take(max).collect();
            let shown = serde_json::to_string(&shown).unwrap_or_default();
            if chars > max { format!("{shown} … ({chars} characters)") } else { shown }
        }
        other => other.to_string(),
    }
}

fn when(seconds: i64) -> String {
    let known = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
    known.map_or_else(|| "without a time       ".to_owned(), moment)
}

/// A moment, in UTC, and how long ago that is.
fn moment(seconds: u64) -> String {
    // The civil date of a day, after Howard Hinnant's description of the calendar.
    let days = (seconds / 86_400) as i64 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let ago = (UNIX_EPOCH + Duration::from_secs(seconds)).elapsed().unwrap_or_default();
    let ago = duration(ago.as_secs_f64());
    format!("{year:04}-{month:02}-{of_month:02} {h:02}:{m:02}:{s:02}Z ({ago} ago)")
}

/// The start of a hash or an actor.
fn short(text: &str) -> &str {
    text.get(..8).unwrap_or(text)
}

fn count(n: u64, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// Without what a terminal would obey.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(hash: &str, actor: &str, seq: u64, dependencies: &[&str]) -> Change {
        Change {
            hash: hash.to_owned(),
            actor: actor.to_owned(),
            seq,
            operations: 1,
            dependencies: dependencies.iter().map(|&hash| hash.to_owned()).collect(),
            ..Change::default()
        }
    }

    #[test]
    fn what_one_writes_in_a_row_is_one_row_and_forks_are_not_hidden_in_it() {
        let changes = [
            change("e", "ann", 4, &["c", "d"]),
            change("d", "bob", 1, &["b"]),
            change("c", "ann", 3, &["b"]),
            change("b", "ann", 2, &["a"]),
            change("a", "ann", 1, &[]),
        ];
        let rows: Vec<_> =
            runs(&changes).iter().map(|run| (run.first.hash.clone(), run.changes)).collect();
        let expected = [("e", 1), ("d", 1), ("c", 1), ("b", 2)];
        assert_eq!(rows, expected.map(|(hash, n)| (hash.to_owned(), n)));
        let page = Page { changes: changes.to_vec(), next: None };
        let text = graph(&page, &["e".to_owned()], 9);
        assert!(text.contains("● │ e") || text.contains("●   e"), "{text}");
        assert!(text.contains("merges 2 head") && text.contains("changes 1 to 2 of ann"), "{text}");
    }

    #[test]
    fn a_value_is_a_tree_with_the_types_that_json_has_no_word_for() {
        let value = json!({
            "a": { "b": [1, "two"], "e": {} },
            "at": { "$timestamp": 1_795_512_600_000_i64 },
            "n": { "$counter": 3 },
            "$$odd": { "$text": "x", "$marks": [] },
        });
        let mut text = String::new();
        tree(&value, 1, 1, &mut text);
        for line in [
            "  a: map, 2 keys\n    b: list, 2 items\n      0: 1\n      1: \"two\"\n    e: empty map",
            "  n: 3 (counter)",
            "  at: 2026-11-24 09:30:00Z",
            "  $odd: \"x\" (text with marks)",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_long_value_is_cut_unless_all_of_it_is_wanted_and_no_terminal_obeys_it() {
        let value = json!({ "list": vec![0; 100], "text": "\u{1b}[2J".repeat(100) });
        let mut text = String::new();
        tree(&value, 1, 1, &mut text);
        assert!(text.contains("and 60 more") && text.contains("(400 characters)"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        text.clear();
        tree(&value, 1, usize::MAX, &mut text);
        assert!(text.contains("99: 0") && !text.contains("more"), "{text}");
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        assert!(moment(0).starts_with("1970-01-01 00:00:00Z"));
        assert!(moment(951_782_400).starts_with("2000-02-29 00:00:00Z"));
        assert!(moment(1_795_512_600).starts_with("2026-11-24 09:30:00Z"));
    }
}
