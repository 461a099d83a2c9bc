//! Jobs done by a worker process, and what kills it.

mod common;

use std::path::PathBuf;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ROOT};
use common::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tributary_archive::{
    Answer, Culprit, Failure, How, Job, Progress, Reason, Stage, Worker, WorkerConfig, WorkerError,
};

fn config() -> WorkerConfig {
    WorkerConfig {
        program: PathBuf::from(env!("CARGO_BIN_EXE_tributary-archive-worker")),
        args: Vec::new(),
        memory_bytes_max: 512 << 20,
        stack_bytes: 16 << 20,
        job_seconds_max: 60,
        niceness: 1,
    }
}

fn worker() -> Worker {
    Worker::spawn(&config()).unwrap()
}

fn is_usable(worker: &mut Worker) {
    let mut doc = typed(20);
    let job = Job::Verify { snapshot: None, changes: raw(&mut doc) };
    match worker.ask(&job) {
        Ok(Answer::Verified(verified)) => assert_eq!(verified.heads, heads(&mut doc)),
        other => panic!("{other:?}"),
    }
}

/// Forty honest changes with a bad one among them, at 23.
fn with(craft: fn(&mut AutoCommit, u8) -> Change) -> Vec<Vec<u8>> {
    let mut doc = typed(39);
    let mut changes = raw(&mut doc);
    let mut early = AutoCommit::load(&changes[..23].concat()).unwrap();
    changes.insert(23, craft(&mut early, 200).raw_bytes().to_vec());
    changes
}

#[test]
fn a_worker_answers_as_the_job_done_in_place_does() {
    let mut worker = worker();
    let mut doc = honest_document(1, 4, 60);
    let (snapshot, changes) = (doc.save(), raw(&mut doc));
    let bad = edit_of_a_missing_object(&mut doc, 200).raw_bytes().to_vec();
    let jobs = [
        Job::Expand { chunks: snapshot.clone(), limits: Default::default() },
        Job::Expand { chunks: changes[2..].concat(), limits: Default::default() },
        Job::Expand { chunks: snapshot[..99].to_vec(), limits: Default::default() },
        Job::Compact { snapshot: None, changes: changes.clone() },
        Job::Compact { snapshot: Some(snapshot.clone()), changes: vec![bad.clone()] },
        Job::Verify { snapshot: Some(snapshot), changes: changes.clone() },
        Job::Judge { snapshot: None, changes, candidates: vec![bad] },
    ];
    for job in jobs {
        let here = tributary_archive::run(job.clone(), &mut |_| {});
        match (worker.ask(&job), here) {
            (Ok(there), Ok(here)) => assert_eq!(there, here),
            (Err(WorkerError::Job(there)), Err(here)) => assert_eq!(there, here),
            (there, here) => panic!("{there:?} and {here:?}"),
        }
    }
    assert!(worker.spent().memory_bytes_peak > 0 || !cfg!(target_os = "linux"));
}

#[test]
fn exhausted_memory_kills_the_worker_and_nothing_else_and_the_culprit_is_found() {
    let mut worker = worker();
    let job = Job::Compact { snapshot: None, changes: with(object_in_itself) };
    let after = match worker.ask(&job) {
        Err(WorkerError::Died { after, last_words, .. }) => {
            assert!(last_words.contains("memory"), "{last_words}");
            after
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(after, Some(Progress { stage: Stage::Patch, from: 0, to: 41 }));
    is_usable(&mut worker);

    for after in [after, None] {
        match worker.find_culprit(&job, after, 20).unwrap() {
            Culprit::One { index: 23, how: How::Kills(words) } => {
                assert!(words.contains("memory"), "{words}");
            }
            other => panic!("{other:?}"),
        }
    }
    is_usable(&mut worker);
}

#[test]
fn exhausted_stack_kills_the_worker_and_nothing_else_and_the_culprit_is_found() {
    // What the depth bound lets through fits the configured stack; here there is less of it.
    let mut worker = Worker::spawn(&WorkerConfig { stack_bytes: 512 << 10, ..config() }).unwrap();
    is_usable(&mut worker);
    let changes = with(|doc, who| nested_maps(doc, who, 190));
    let job = Job::Verify { snapshot: None, changes };
    match worker.ask(&job) {
        Err(WorkerError::Died { after: Some(after), last_words, .. }) => {
            assert_eq!(after.stage, Stage::Read);
            assert!(last_words.contains("stack"), "{last_words}");
        }
        other => panic!("{other:?}"),
    }
    is_usable(&mut worker);
    let culprit = worker.find_culprit(&job, None, 20).unwrap();
    assert!(matches!(culprit, Culprit::One { index: 23, how: How::Kills(_) }), "{culprit:?}");
}

#[test]
fn ten_thousand_nested_maps_are_refused_before_anything_recurses_into_them() {
    let mut worker = worker();
    let changes = with(|doc, who| nested_maps(doc, who, 10_000));
    match worker.ask(&Job::Verify { snapshot: None, changes }) {
        Err(WorkerError::Job(Failure::Change { index: 23, reason: Reason::TooDeep, .. })) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_candidate_that_kills_is_found_among_candidates() {
    let mut worker = worker();
    let mut all = with(object_in_itself);
    let candidates = all.split_off(15);
    let job = Job::Judge { snapshot: None, changes: all, candidates };
    let Err(WorkerError::Died { after, .. }) = worker.ask(&job) else { panic!() };
    let culprit = worker.find_culprit(&job, after, 20).unwrap();
    assert!(matches!(culprit, Culprit::One { index: 8, how: How::Kills(_) }), "{culprit:?}");
}

#[test]
fn a_snapshot_or_an_upload_that_fails_is_the_base() {
    let mut worker = worker();
    let upload = with(object_in_itself).concat();
    let job = Job::Expand { chunks: upload, limits: Default::default() };
    let culprit = worker.find_culprit(&job, None, 20).unwrap();
    assert!(matches!(culprit, Culprit::Base(How::Kills(_))), "{culprit:?}");

    let mut doc = typed(3);
    let job = Job::Compact { snapshot: Some(doc.save()[..50].to_vec()), changes: raw(&mut doc) };
    let culprit = worker.find_culprit(&job, None, 20).unwrap();
    assert!(matches!(culprit, Culprit::Base(How::Refused(_))), "{culprit:?}");
}

#[test]
fn nobody_is_blamed_for_nothing_and_no_more_is_asked_than_allowed() {
    let mut worker = worker();
    let mut doc = typed(30);
    let job = Job::Verify { snapshot: None, changes: raw(&mut doc) };
    assert_eq!(worker.find_culprit(&job, None, 20).unwrap(), Culprit::None);

    let job = Job::Verify { snapshot: None, changes: with(object_in_itself) };
    match worker.find_culprit(&job, None, 3).unwrap() {
        Culprit::Within(range) => assert!(range.len() < 25 && range.contains(&23), "{range:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_document_too_big_for_the_memory_is_not_blamed_on_its_last_change() {
    let mut doc = AutoCommit::new().with_actor(actor(1));
    let mut random = SmallRng::seed_from_u64(1);
    for n in 0..24 {
        // Bytes that do not compress, so that they are as long in every copy.
        let mut bytes = vec![0_u8; 1 << 20];
        random.fill(&mut bytes[..]);
        doc.put(ROOT, format!("key {n}"), bytes).unwrap();
        doc.commit();
    }
    let job = Job::Verify { snapshot: None, changes: raw(&mut doc) };
    let mut worker =
        Worker::spawn(&WorkerConfig { memory_bytes_max: 128 << 20, ..config() }).unwrap();
    let outcome = worker.ask(&job);
    assert!(matches!(outcome, Err(WorkerError::Died { .. })), "{:?}", worker.spent());
    let culprit = worker.find_culprit(&job, None, 20).unwrap();
    assert!(matches!(culprit, Culprit::TooBig { index: 1.., how: How::Kills(_) }), "{culprit:?}");
    is_usable(&mut worker);
}

#[test]
fn a_job_over_its_time_is_killed() {
    // A program that reads and never answers.
    let silent = WorkerConfig {
        program: "sh".into(),
        args: vec!["-c".into(), "exec sleep 1000".into()],
        job_seconds_max: 1,
        ..config()
    };
    let mut worker = Worker::spawn(&silent).unwrap();
    let job = Job::Verify { snapshot: None, changes: Vec::new() };
    for _ in 0..2 {
        match worker.ask(&job) {
            Err(WorkerError::TimedOut { after: None, seconds: 1 }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn programs_that_are_no_workers_are_errors() {
    let other = |program: &str, args: &[&str]| WorkerConfig {
        program: program.into(),
        args: args.iter().map(Into::into).collect(),
        ..config()
    };
    let job = Job::Verify { snapshot: None, changes: Vec::new() };
    assert!(Worker::spawn(&other("there is no such program", &[])).is_err());

    let mut talker = Worker::spawn(&other("sh", &["-c", "echo hello; exec cat"])).unwrap();
    assert!(matches!(talker.ask(&job), Err(WorkerError::Protocol)));
    let mut echo = Worker::spawn(&other("cat", &[])).unwrap();
    assert!(matches!(echo.ask(&job), Err(WorkerError::Protocol)));
    let mut gone = Worker::spawn(&other("sh", &["-c", "echo no >&2; exit 7"])).unwrap();
    match gone.ask(&job) {
        Err(WorkerError::Died { status, last_words, after: None }) => {
            assert_eq!((status.code(), last_words.as_str()), (Some(7), "no"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_at_rest_is_started_again_by_the_next_job() {
    let mut worker = worker();
    is_usable(&mut worker);
    worker.rest();
    is_usable(&mut worker);
}

#[test]
#[cfg(target_os = "linux")]
fn a_dropped_worker_leaves_no_process_behind() {
    let mut worker = worker();
    is_usable(&mut worker);
    let pid: u32 = format!("{worker:?}")
        .split("Process(")
        .nth(1)
        .unwrap()
        .split(')')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let status = format!("/proc/{pid}/status");
    assert!(std::fs::exists(&status).unwrap());
    drop(worker);
    assert!(!std::fs::exists(&status).unwrap());
}
