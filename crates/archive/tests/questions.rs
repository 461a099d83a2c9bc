//! What a document tells of itself, and changes made out of patches.

mod common;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ObjType, ROOT, ReadDoc, ScalarValue};
use common::*;
use model::{ActorId, ChangeHash, Heads};
use serde_json::{Value as Json, json};
use tributary_archive::{Answer, Declined, Edit, Form, Job, Made, Question, Signature, Told, run};

fn ask(doc: &mut AutoCommit, question: Question) -> Told {
    let job = Job::Ask { snapshot: Some(doc.save()), changes: vec![], question };
    match run(job, &mut |_| {}) {
        Ok(Answer::Told(told)) => told,
        other => panic!("{other:?}"),
    }
}

fn asked(doc: &mut AutoCommit, question: Question) -> Json {
    match ask(doc, question) {
        Told::Bytes(bytes) => serde_json::from_slice(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn as_json(doc: &mut AutoCommit, form: Form) -> Json {
    asked(doc, Question::Json { heads: None, pointer: String::new(), form })
}

fn by(n: u8) -> Signature {
    Signature { actor: ActorId::new(&[n; 16]).unwrap(), time_seconds: 7, message: None }
}

fn edited(doc: &mut AutoCommit, heads: Option<Heads>, edit: Edit, form: Form) -> Told {
    let told = ask(doc, Question::Edit { heads, edit, form, by: by(9) });
    if let Told::Edited(Some(Made { hash, change })) = &told {
        let change = Change::from_bytes(change.clone()).unwrap();
        assert_eq!(change.hash().0, hash.0);
        doc.apply_changes([change]).unwrap();
    }
    told
}

fn patched(doc: &mut AutoCommit, patch: Json) -> Told {
    edited(doc, None, Edit::JsonPatch(patch.to_string().into_bytes()), Form::Plain)
}

fn merged(doc: &mut AutoCommit, patch: Json) -> Told {
    edited(doc, None, Edit::MergePatch(patch.to_string().into_bytes()), Form::Plain)
}

fn created(json: &Json, form: Form) -> AutoCommit {
    let mut doc = AutoCommit::new();
    let edit = Edit::Create(json.to_string().into_bytes());
    assert!(matches!(edited(&mut doc, None, edit, form), Told::Edited(Some(_))));
    doc
}

fn many_types() -> AutoCommit {
    let mut doc = AutoCommit::new().with_actor(actor(1));
    doc.put(ROOT, "counter", ScalarValue::counter(3)).unwrap();
    doc.put(ROOT, "date", ScalarValue::Timestamp(1_700_000_000_123)).unwrap();
    doc.put(ROOT, "bytes", vec![1_u8, 2, 255]).unwrap();
    doc.put(ROOT, "string", "scalar").unwrap();
    doc.put(ROOT, "float", 2.0).unwrap();
    doc.put(ROOT, "nan", f64::NAN).unwrap();
    doc.put(ROOT, "uint", 5_u64).unwrap();
    doc.put(ROOT, "$odd", ScalarValue::Null).unwrap();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, "a😀b").unwrap();
    // AutoCommit counts code points, and we UTF-16.
    doc.mark(&text, Mark::new("bold".into(), true, 1, 3), ExpandMark::After).unwrap();
    let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
    doc.insert(&list, 0, 1).unwrap();
    doc.insert_object(&list, 1, ObjType::Map).unwrap();
    doc.commit();
    doc
}

#[test]
fn plain_json_says_what_comes_closest_and_typed_json_says_everything() {
    let mut doc = many_types();
    let plain = as_json(&mut doc, Form::Plain);
    let expected = json!({
        "counter": 3, "date": "2023-11-14T22:13:20.123Z", "bytes": "AQL/", "string": "scalar",
        "float": 2.0, "nan": null, "uint": 5, "$odd": null, "text": "a😀b", "list": [1, {}],
    });
    assert_eq!(plain, expected);
    let typed = as_json(&mut doc, Form::Typed);
    let marks = json!([{ "name": "bold", "value": true, "start": 1, "end": 4 }]);
    let expected = json!({
        "counter": { "$counter": 3 }, "date": { "$timestamp": 1_700_000_000_123_i64 },
        "bytes": { "$bytes": "AQL/" }, "string": { "$string": "scalar" }, "float": 2.0,
        "nan": { "$float": "NaN" }, "uint": { "$uint": 5 }, "$$odd": null,
        "text": { "$text": "a😀b", "$marks": marks }, "list": [1, {}],
    });
    assert_eq!(typed, expected);
}

#[test]
fn a_document_made_from_typed_json_has_the_same_typed_json() {
    let typed = as_json(&mut many_types(), Form::Typed);
    assert_eq!(as_json(&mut created(&typed, Form::Typed), Form::Typed), typed);
}

#[test]
fn an_empty_object_makes_a_document_of_one_empty_change() {
    let mut doc = created(&json!({}), Form::Plain);
    assert_eq!((doc.get_heads().len(), as_json(&mut doc, Form::Plain)), (1, json!({})));
}

#[test]
fn a_part_is_named_by_a_pointer_and_what_is_not_there_is_said() {
    let mut doc = created(&json!({ "a/b": [{ "x": "text" }] }), Form::Plain);
    let mut at = |pointer: &str| {
        let pointer = pointer.to_owned();
        ask(&mut doc, Question::Json { heads: None, pointer, form: Form::Plain })
    };
    assert_eq!(at("/a~1b/0"), Told::Bytes(br#"{"x":"text"}"#.to_vec()));
    assert_eq!(at("/a~1b/1"), Told::Declined(Declined::NoSuchPlace("/a~1b/1".into())));
    assert_eq!(at("/a~1b/0/x/0"), Told::Declined(Declined::NoSuchPlace("/a~1b/0/x/0".into())));
    assert_eq!(at("a"), Told::Declined(Declined::NotAPointer("a".into())));
    let text = |pointer: &str| Question::Text { heads: None, pointer: pointer.into() };
    assert_eq!(ask(&mut doc, text("/a~1b/0/x")), Told::Bytes(b"text".to_vec()));
    assert_eq!(ask(&mut doc, text("")), Told::Declined(Declined::NotText(String::new())));
}

#[test]
fn the_past_is_read_as_it_was() {
    let mut doc = created(&json!({ "n": 1, "text": "one" }), Form::Plain);
    let before = heads(&mut doc);
    merged(&mut doc, json!({ "n": 2, "text": "one two" }));
    let then =
        Question::Json { heads: Some(before.clone()), pointer: "".into(), form: Form::Plain };
    assert_eq!(asked(&mut doc, then), json!({ "n": 1, "text": "one" }));
    let Told::Bytes(file) = ask(&mut doc, Question::File { heads: before.clone() }) else {
        panic!()
    };
    let mut past = AutoCommit::load(&file).unwrap();
    assert_eq!(heads(&mut past), before);
    let stranger = Heads::from(vec![ChangeHash([1; 32])]);
    let told = ask(&mut doc, Question::File { heads: stranger });
    assert_eq!(told, Told::Declined(Declined::NoSuchHead(ChangeHash([1; 32]))));
}

#[test]
fn every_operation_of_a_json_patch_does_what_its_standard_says() {
    let start = json!({ "a": 1, "list": ["x", "y"], "map": { "k": "v" }, "text": "hello" });
    let mut doc = created(&start, Form::Plain);
    let patch = json!([
        { "op": "test", "path": "/a", "value": 1.0 },
        { "op": "add", "path": "/list/1", "value": "between" },
        { "op": "add", "path": "/list/-", "value": { "last": true } },
        { "op": "remove", "path": "/list/0" },
        { "op": "replace", "path": "/a", "value": [1, 2] },
        { "op": "copy", "from": "/map", "path": "/copied" },
        { "op": "move", "from": "/map/k", "path": "/moved" },
        { "op": "add", "path": "/new~1key", "value": null },
    ]);
    assert!(matches!(patched(&mut doc, patch), Told::Edited(Some(_))));
    let expected = json!({
        "a": [1, 2], "list": ["between", "y", { "last": true }], "map": {}, "text": "hello",
        "copied": { "k": "v" }, "moved": "v", "new/key": null,
    });
    assert_eq!(as_json(&mut doc, Form::Plain), expected);
}

#[test]
fn a_patch_that_cannot_be_applied_changes_nothing_and_says_why() {
    let mut doc = created(&json!({ "a": 1, "list": [1], "text": "t" }), Form::Plain);
    let before = heads(&mut doc);
    let place = |place: &str| Declined::NoSuchPlace(place.into());
    for (operation, why) in [
        (json!({ "op": "test", "path": "/a", "value": 2 }), Declined::TestFailed("/a".into())),
        (json!({ "op": "remove", "path": "/b" }), place("/b")),
        (json!({ "op": "replace", "path": "/list/1", "value": 1 }), place("/list/1")),
        (json!({ "op": "add", "path": "/list/2", "value": 1 }), place("/list/2")),
        (json!({ "op": "add", "path": "/b/c", "value": 1 }), place("/b")),
        (json!({ "op": "add", "path": "/a/c", "value": 1 }), place("/a/c")),
    ] {
        let patch = json!([{ "op": "add", "path": "/x", "value": 1 }, operation]);
        assert_eq!(patched(&mut doc, patch), Told::Declined(why));
    }
    for operation in [
        json!({ "op": "replace", "path": "", "value": [] }),
        json!({ "op": "remove", "path": "" }),
        json!({ "op": "add", "path": "/text/0", "value": "x" }),
        json!({ "op": "move", "from": "/list", "path": "/list/0" }),
    ] {
        let told = patched(&mut doc, json!([operation]));
        assert!(matches!(told, Told::Declined(Declined::CannotApply(_))), "{told:?}");
    }
    let told = patched(&mut doc, json!([{ "op": "grow", "path": "/a" }]));
    assert!(matches!(told, Told::Declined(Declined::NotJson(_))), "{told:?}");
    assert_eq!(heads(&mut doc), before);
}

#[test]
fn a_text_that_is_replaced_is_spliced_so_that_what_others_type_stays() {
    let mut doc = created(&json!({ "text": "The 😀 quick fox" }), Form::Plain);
    let mut other = doc.fork().with_actor(actor(3));
    let (_, text) = other.get(ROOT, "text").unwrap().unwrap();
    let end = other.length(&text);
    other.splice_text(&text, end, 0, " jumps").unwrap();
    patched(&mut doc, json!([{ "op": "replace", "path": "/text", "value": "The 😀 brown fox" }]));
    doc.merge(&mut other).unwrap();
    assert_eq!(as_json(&mut doc, Form::Plain), json!({ "text": "The 😀 brown fox jumps" }));
    let (_, same) = doc.get(ROOT, "text").unwrap().unwrap();
    assert_eq!(same, text);
}

#[test]
fn a_merge_patch_merges_objects_and_removes_what_is_null() {
    let mut doc = created(&json!({ "a": { "b": 1, "c": "text" }, "d": [1, 2] }), Form::Plain);
    let patch = json!({ "a": { "b": null, "c": "texts" }, "d": [2], "e": { "f": null, "g": 1 } });
    merged(&mut doc, patch);
    let expected = json!({ "a": { "c": "texts" }, "d": [2], "e": { "g": 1 } });
    assert_eq!(as_json(&mut doc, Form::Plain), expected);
}

#[test]
fn what_is_written_back_as_it_was_read_is_no_change_in_either_form() {
    let mut doc = many_types();
    for form in [Form::Plain, Form::Typed] {
        let json = as_json(&mut doc, form);
        let replace = json!([{ "op": "replace", "path": "", "value": json }]).to_string();
        let told = edited(&mut doc, None, Edit::JsonPatch(replace.into_bytes()), form);
        assert_eq!(told, Told::Edited(None));
    }
}

#[test]
fn plain_json_over_a_value_with_a_type_keeps_the_type() {
    let mut doc = many_types();
    let mut other = doc.fork().with_actor(actor(4));
    other.increment(ROOT, "counter", 10).unwrap();
    merged(
        &mut doc,
        json!({ "counter": 5, "date": "2024-01-01T00:00:00.000Z", "bytes": "AA==", "float": 3 }),
    );
    doc.merge(&mut other).unwrap();
    let typed = as_json(&mut doc, Form::Typed);
    assert_eq!(typed["counter"], json!({ "$counter": 15 }), "both have counted");
    assert_eq!(typed["date"], json!({ "$timestamp": 1_704_067_200_000_i64 }));
    assert_eq!(typed["bytes"], json!({ "$bytes": "AA==" }));
    assert_eq!(typed["float"], json!(3.0));
}

#[test]
fn items_of_a_list_that_did_not_change_are_not_touched() {
    let mut doc = created(&json!({ "l": [{ "n": 1 }, { "n": 2 }, { "n": 3 }] }), Form::Plain);
    let (_, list) = doc.get(ROOT, "l").unwrap().unwrap();
    let ids = |doc: &AutoCommit| -> Vec<_> {
        doc.list_range(&list, ..).map(|item| item.id().to_string()).collect()
    };
    let before = ids(&doc);
    merged(&mut doc, json!({ "l": [{ "n": 1 }, { "n": 3 }] }));
    assert_eq!(ids(&doc).len(), 2);
    assert_eq!(ids(&doc)[0], before[0]);
    merged(&mut doc, json!({ "l": [{ "n": 0 }, { "n": 1 }, { "n": 3 }] }));
    assert_eq!(ids(&doc)[1..], [before[0].clone(), before[2].clone()]);
    assert_eq!(
        as_json(&mut doc, Form::Plain),
        json!({ "l": [{ "n": 0 }, { "n": 1 }, { "n": 3 }] })
    );
}

#[test]
fn an_edit_of_the_past_is_concurrent_to_what_came_after_it() {
    let mut doc = created(&json!({ "a": 1, "b": 1 }), Form::Plain);
    let before = heads(&mut doc);
    merged(&mut doc, json!({ "a": 2 }));
    // The same actor has written since, and must not have two changes with one number.
    let edit = Edit::MergePatch(br#"{"a":3,"b":3}"#.to_vec());
    let told = edited(&mut doc, Some(before.clone()), edit, Form::Plain);
    let Told::Edited(Some(made)) = told else { panic!("{told:?}") };
    let change = Change::from_bytes(made.change).unwrap();
    let deps: Heads = change.deps().iter().map(|hash| ChangeHash(hash.0)).collect();
    assert_eq!(deps, before);
    assert_eq!(doc.get_heads().len(), 2);

    let question = Question::Conflicts { heads: None, form: Form::Plain };
    let conflicts = asked(&mut doc, question);
    let places = conflicts.as_array().unwrap();
    assert_eq!(places.len(), 1, "{conflicts}");
    assert_eq!((&places[0]["path"], &places[0]["within"]), (&json!("/a"), &json!([])));
    let values = places[0]["values"].as_array().unwrap();
    let mut all: Vec<i64> = values.iter().map(|value| value["value"].as_i64().unwrap()).collect();
    assert_eq!(values[1]["winner"], json!(true));
    assert_eq!(as_json(&mut doc, Form::Plain)["a"], values[1]["value"]);
    all.sort_unstable();
    assert_eq!(all, [2, 3]);
    let change = values.iter().find(|value| value["value"] == json!(3)).unwrap();
    assert_eq!(change["change"], json!(made.hash.to_string()));
    let then = Question::Conflicts { heads: Some(before), form: Form::Plain };
    assert_eq!(asked(&mut doc, then), json!([]));
}

#[test]
fn conflicts_inside_of_a_value_that_lost_are_found_too() {
    let mut one = AutoCommit::new().with_actor(actor(1));
    let mut two = AutoCommit::new().with_actor(actor(2));
    let mut inner = Vec::new();
    for doc in [&mut one, &mut two] {
        let map = doc.put_object(ROOT, "map", ObjType::Map).unwrap();
        inner.push(map);
    }
    let mut three = one.fork().with_actor(actor(3));
    one.put(&inner[0], "k", 1).unwrap();
    three.put(&inner[0], "k", 2).unwrap();
    one.merge(&mut three).unwrap();
    one.merge(&mut two).unwrap();
    let conflicts = asked(&mut one, Question::Conflicts { heads: None, form: Form::Plain });
    let paths: Vec<_> = conflicts.as_array().unwrap().iter().map(|c| &c["path"]).collect();
    assert_eq!(paths, [&json!("/map"), &json!("/map/k")]);
    assert_eq!(conflicts[1]["within"].as_array().unwrap().len(), 1);
}

#[test]
fn a_diff_says_what_a_client_would_be_told() {
    let mut doc = created(&json!({ "text": "a😀c", "n": 1, "list": [1] }), Form::Plain);
    let from = heads(&mut doc);
    merged(&mut doc, json!({ "text": "a😀xc", "n": null, "m": { "k": true }, "list": [1, 2] }));
    let to = heads(&mut doc);
    let diff = |from: &Heads, to: &Heads| {
        let (from, to) = (from.clone(), to.clone());
        Question::Diff { from, to, form: Form::Plain }
    };
    let patches = asked(&mut doc, diff(&from, &to));
    let has = |patch: Json| patches.as_array().unwrap().contains(&patch);
    assert!(has(json!({ "action": "splice", "path": ["text", 3], "value": "x" })), "{patches}");
    assert!(has(json!({ "action": "del", "path": ["n"] })), "{patches}");
    assert!(has(json!({ "action": "put", "path": ["m"], "value": {} })), "{patches}");
    assert!(has(json!({ "action": "put", "path": ["m", "k"], "value": true })), "{patches}");
    assert!(has(json!({ "action": "insert", "path": ["list", 1], "values": [2] })), "{patches}");
    assert_eq!(asked(&mut doc, diff(&to, &to)), json!([]));
    assert!(!asked(&mut doc, diff(&to, &from)).as_array().unwrap().is_empty());
}

#[test]
fn raw_changes_and_what_they_say_are_told() {
    let mut doc = created(&json!({ "n": 1 }), Form::Plain);
    let since = heads(&mut doc);
    let mut fork = doc.fork();
    let edit = Edit::MergePatch(br#"{"n":2}"#.to_vec());
    let by = Signature { message: Some("because".into()), ..by(9) };
    let question = Question::Edit { heads: None, edit, form: Form::Plain, by };
    let Told::Edited(Some(made)) = ask(&mut doc, question) else { panic!("no change") };
    doc.apply_changes([Change::from_bytes(made.change.clone()).unwrap()]).unwrap();
    let Told::Bytes(changes) = ask(&mut doc, Question::Changes { since }) else { panic!() };
    assert_eq!(changes, made.change);
    fork.load_incremental(&changes).unwrap();
    assert_eq!(fork.get_heads(), doc.get_heads());
    let history = asked(&mut doc, Question::History { hashes: vec![made.hash] });
    assert_eq!(history, json!([{ "time": 7, "message": "because", "author": null }]));
}

#[test]
fn honest_documents_are_told_in_both_forms_now_and_then() {
    for seed in 0..20 {
        let mut doc = honest_document(seed, 3, 60);
        let all: Vec<ChangeHash> =
            doc.get_changes(&[]).iter().map(|change| ChangeHash(change.hash().0)).collect();
        let middle = Heads::from(vec![all[all.len() / 2]]);
        for form in [Form::Plain, Form::Typed] {
            let now = as_json(&mut doc, form);
            assert!(now.get("count").is_some(), "seed {seed}");
            let past = Some(middle.clone());
            let then = asked(&mut doc, Question::Json { heads: past, pointer: "".into(), form });
            let Told::Bytes(file) = ask(&mut doc, Question::File { heads: middle.clone() }) else {
                panic!("seed {seed}")
            };
            assert_eq!(then, as_json(&mut AutoCommit::load(&file).unwrap(), form), "seed {seed}");
            asked(&mut doc, Question::Conflicts { heads: None, form });
            let to = heads(&mut doc);
            asked(&mut doc, Question::Diff { from: middle.clone(), to, form });
        }
    }
}
