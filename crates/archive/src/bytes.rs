//! Jobs and answers as bytes, between a server and its workers: the same program at both ends, so
//! there are no versions. Numbers are little-endian, lists and texts begin with their length.
//!
//! Nothing that is read is trusted: a length is compared with the bytes that are there before
//! anything is allocated for it.

mod questions;

use std::io::{self, Read, Write};

use model::{ChangeHash, Heads};

use crate::job::{
    Answer, Compacted, ExpandLimits, Expanded, Failure, Job, Limit, Progress, Reason, Stage,
    Verdict, Verified,
};

/// The longest frame, either way.
pub(crate) const FRAME_BYTES_MAX: u64 = 1 << 30;

/// What a worker is told first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) memory_bytes_max: u64,
    pub(crate) stack_bytes: u64,
    pub(crate) job_seconds_max: u32,
    pub(crate) niceness: u8,
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Progress(Progress),
    Done { memory: Memory, outcome: Result<Answer, Failure> },
}

/// The address space of a worker in bytes; 0 where the system does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Before its first job.
    pub(crate) bytes_base: u64,
    /// The most so far.
    pub(crate) bytes_peak: u64,
}

/// The bytes are no such message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAMessage;

pub(crate) fn write_frame(output: &mut impl Write, body: &[u8]) -> io::Result<()> {
    let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a frame is too long");
    let length = u32::try_from(body.len()).map_err(too_long)?;
    output.write_all(&length.to_le_bytes())?;
    output.write_all(body)?;
    output.flush()
}

/// The next frame; none when the input ends between two.
pub(crate) fn read_frame(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    let mut got = 0;
    while got < length.len() {
        match input.read(&mut length[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = u64::from(u32::from_le_bytes(length));
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
    }
    // Not allocated ahead: the length is only a claim until the bytes have come.
    let mut body = Vec::new();
    input.take(length).read_to_end(&mut body)?;
    if (body.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(body))
}

/// A value that crosses the pipe.
pub(crate) trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage>;

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    fn from_bytes(mut bytes: &[u8]) -> Result<Self, NotAMessage> {
        let value = Self::take(&mut bytes)?;
        if bytes.is_empty() { Ok(value) } else { Err(NotAMessage) }
    }
}

impl Job {
    /// The job with only the first `changes` of its changes, or of its candidates if it is to judge.
    pub(crate) fn prefix_to_bytes(&self, changes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Expand { chunks, limits } => {
                out.push(0);
                put_bytes(chunks, &mut out);
                limits.put(&mut out);
            }
            Self::Compact { snapshot, changes: all } => {
                out.push(1);
                snapshot.put(&mut out);
                put_list(&all[..changes.min(all.len())], &mut out);
            }
            Self::Judge { snapshot, changes: all, candidates } => {
                out.push(2);
                snapshot.put(&mut out);
                put_list(all, &mut out);
                put_list(&candidates[..changes.min(candidates.len())], &mut out);
            }
            Self::Verify { snapshot, changes: all } => {
                out.push(3);
                snapshot.put(&mut out);
                put_list(&all[..changes.min(all.len())], &mut out);
            }
            Self::Ask { snapshot, changes: all, question } => {
                out.push(4);
                snapshot.put(&mut out);
                put_list(&all[..changes.min(all.len())], &mut out);
                question.put(&mut out);
            }
        }
        out
    }
}

impl Wire for Job {
    fn put(&self, out: &mut Vec<u8>) {
        out.append(&mut self.prefix_to_bytes(usize::MAX));
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        Ok(match u8::take(input)? {
            0 => Self::Expand { chunks: Wire::take(input)?, limits: Wire::take(input)? },
            1 => Self::Compact { snapshot: Wire::take(input)?, changes: take_list(input)? },
            2 => Self::Judge {
                snapshot: Wire::take(input)?,
                changes: take_list(input)?,
                candidates: take_list(input)?,
            },
            3 => Self::Verify { snapshot: Wire::take(input)?, changes: take_list(input)? },
            4 => Self::Ask {
                snapshot: Wire::take(input)?,
                changes: take_list(input)?,
                question: Wire::take(input)?,
            },
            _ => return Err(NotAMessage),
        })
    }
}

impl Wire for Settings {
    fn put(&self, out: &mut Vec<u8>) {
        self.memory_bytes_max.put(out);
        self.stack_bytes.put(out);
        self.job_seconds_max.put(out);
        self.niceness.put(out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        Ok(Self {
            memory_bytes_max: Wire::take(input)?,
            stack_bytes: Wire::take(input)?,
            job_seconds_max: Wire::take(input)?,
            niceness: Wire::take(input)?,
        })
    }
}

impl Wire for ExpandLimits {
    fn put(&self, out: &mut Vec<u8>) {
        self.changes_max.put(out);
        self.operations_max.put(out);
        self.change_bytes_max.put(out);
        self.total_bytes_max.put(out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        Ok(Self {
            changes_max: Wire::take(input)?,
            operations_max: Wire::take(input)?,
            change_bytes_max: Wire::take(input)?,
            total_bytes_max: Wire::take(input)?,
        })
    }
}

impl Wire for Said {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Progress(progress) => {
                out.push(0);
                progress.put(out);
            }
            Self::Done { memory, outcome } => {
                out.push(1);
                memory.bytes_base.put(out);
                memory.bytes_peak.put(out);
                match outcome {
                    Ok(answer) => answer.put(out),
                    Err(failure) => failure.put(out),
                }
            }
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        match u8::take(input)? {
            0 => Ok(Self::Progress(Wire::take(input)?)),
            1 => {
                let memory =
                    Memory { bytes_base: Wire::take(input)?, bytes_peak: Wire::take(input)? };
                // Answers and failures share one row of tags: see below.
                let outcome = match input.first() {
                    Some(0..=4) => Ok(Answer::take(input)?),
                    _ => Err(Failure::take(input)?),
                };
                Ok(Self::Done { memory, outcome })
            }
            _ => Err(NotAMessage),
        }
    }
}

impl Wire for Progress {
    fn put(&self, out: &mut Vec<u8>) {
        self.stage.put(out);
        self.from.put(out);
        self.to.put(out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        Ok(Self { stage: Wire::take(input)?, from: Wire::take(input)?, to: Wire::take(input)? })
    }
}

impl Wire for Answer {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Expanded(Expanded { snapshot, changes, heads, orphans }) => {
                out.push(0);
                put_bytes(snapshot, out);
                put_list(changes, out);
                put_list(heads.as_slice(), out);
                put_list(orphans, out);
            }
            Self::Compacted(Compacted { snapshot, heads, changes }) => {
                out.push(1);
                put_bytes(snapshot, out);
                put_list(heads.as_slice(), out);
                changes.put(out);
            }
            Self::Judged(verdicts) => {
                out.push(2);
                put_list(verdicts, out);
            }
            Self::Verified(Verified { heads, changes }) => {
                out.push(3);
                put_list(heads.as_slice(), out);
                changes.put(out);
            }
            Self::Told(told) => {
                out.push(4);
                told.put(out);
            }
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        Ok(match u8::take(input)? {
            0 => Self::Expanded(Expanded {
                snapshot: Wire::take(input)?,
                changes: take_list(input)?,
                heads: Heads::from(take_list::<ChangeHash>(input)?),
                orphans: take_list(input)?,
            }),
            1 => Self::Compacted(Compacted {
                snapshot: Wire::take(input)?,
                heads: Heads::from(take_list::<ChangeHash>(input)?),
                changes: Wire::take(input)?,
            }),
            2 => Self::Judged(take_list(input)?),
            3 => Self::Verified(Verified {
                heads: Heads::from(take_list::<ChangeHash>(input)?),
                changes: Wire::take(input)?,
            }),
            4 => Self::Told(Wire::take(input)?),
            _ => return Err(NotAMessage),
        })
    }
}

impl Wire for Failure {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Snapshot { reason } => {
                out.push(16);
                reason.put(out);
            }
            Self::Change { index, hash, reason } => {
                out.push(17);
                index.put(out);
                hash.put(out);
                reason.put(out);
            }
            Self::Chunk { at_bytes, reason } => {
                out.push(18);
                at_bytes.put(out);
                reason.put(out);
            }
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        Ok(match u8::take(input)? {
            16 => Self::Snapshot { reason: Wire::take(input)? },
            17 => Self::Change {
                index: Wire::take(input)?,
                hash: Wire::take(input)?,
                reason: Wire::take(input)?,
            },
            18 => Self::Chunk { at_bytes: Wire::take(input)?, reason: Wire::take(input)? },
            _ => return Err(NotAMessage),
        })
    }
}

impl Wire for Verdict {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Ok(()) => out.push(0),
            Err(reason) => reason.put(out),
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        match input.first() {
            Some(0) => u8::take(input).map(|_| Ok(())),
            _ => Reason::take(input).map(Err),
        }
    }
}

impl Wire for Reason {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Malformed(message) => {
                out.push(1);
                message.put(out);
            }
            Self::MissingDependency(hash) => {
                out.push(2);
                hash.put(out);
            }
            Self::Refused { stage, message } => {
                out.push(3);
                stage.put(out);
                message.put(out);
            }
            Self::Panicked { stage, message } => {
                out.push(4);
                stage.put(out);
                message.put(out);
            }
            Self::ComesBackDifferent => out.push(5),
            Self::TooDeep => out.push(6),
            Self::OverLimit(limit) => {
                out.push(7);
                limit.put(out);
            }
            Self::NoRoomToEdit => out.push(8),
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        Ok(match u8::take(input)? {
            1 => Self::Malformed(Wire::take(input)?),
            2 => Self::MissingDependency(Wire::take(input)?),
            3 => Self::Refused { stage: Wire::take(input)?, message: Wire::take(input)? },
            4 => Self::Panicked { stage: Wire::take(input)?, message: Wire::take(input)? },
            5 => Self::ComesBackDifferent,
            6 => Self::TooDeep,
            7 => Self::OverLimit(Wire::take(input)?),
            8 => Self::NoRoomToEdit,
            _ => return Err(NotAMessage),
        })
    }
}

const STAGES: [Stage; 10] = [
    Stage::Parse,
    Stage::Load,
    Stage::Apply,
    Stage::Save,
    Stage::Reload,
    Stage::Read,
    Stage::Patch,
    Stage::Edit,
    Stage::TakeApart,
    Stage::Ask,
];

const LIMITS: [Limit; 4] =
    [Limit::Changes, Limit::Operations, Limit::ChangeBytes, Limit::TotalBytes];

impl Wire for Stage {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(
            STAGES.iter().position(|stage| stage == self).expect("every stage is listed") as u8
        );
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        STAGES.get(usize::from(u8::take(input)?)).copied().ok_or(NotAMessage)
    }
}

impl Wire for Limit {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(
            LIMITS.iter().position(|limit| limit == self).expect("every limit is listed") as u8
        );
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        LIMITS.get(usize::from(u8::take(input)?)).copied().ok_or(NotAMessage)
    }
}

macro_rules! number {
    ($($number:ty),*) => {$(
        impl Wire for $number {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
                let (bytes, rest) = input.split_first_chunk().ok_or(NotAMessage)?;
                *input = rest;
                Ok(Self::from_le_bytes(*bytes))
            }
        }
    )*};
}
number!(u8, u32, u64);

impl Wire for usize {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u64).put(out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        usize::try_from(u64::take(input)?).map_err(|_| NotAMessage)
    }
}

impl Wire for ChangeHash {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        let (bytes, rest) = input.split_first_chunk().ok_or(NotAMessage)?;
        *input = rest;
        Ok(Self(*bytes))
    }
}

impl Wire for Vec<u8> {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self, out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        let length = usize::take(input)?;
        let (bytes, rest) = input.split_at_checked(length).ok_or(NotAMessage)?;
        *input = rest;
        Ok(bytes.to_vec())
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        String::from_utf8(Wire::take(input)?).map_err(|_| NotAMessage)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        match u8::take(input)? {
            0 => Ok(None),
            1 => T::take(input).map(Some),
            _ => Err(NotAMessage),
        }
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    bytes.len().put(out);
    out.extend_from_slice(bytes);
}

// Lists are functions and not an implementation for every `Vec<T>`, so that bytes stay one copy.
fn put_list<T: Wire>(items: &[T], out: &mut Vec<u8>) {
    items.len().put(out);
    for item in items {
        item.put(out);
    }
}

fn take_list<T: Wire>(input: &mut &[u8]) -> Result<Vec<T>, NotAMessage> {
    let length = usize::take(input)?;
    // Every item has at least one byte, so a longer list is a lie.
    if length > input.len() {
        return Err(NotAMessage);
    }
    let mut items = Vec::new();
    for _ in 0..length {
        items.push(T::take(input)?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use model::ActorId;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::question::{Declined, Edit, Form, Made, Question, Signature, Told};

    fn jobs() -> Vec<Job> {
        let changes = vec![vec![1, 2, 3], vec![], vec![4]];
        vec![
            Job::Expand { chunks: vec![7; 300], limits: ExpandLimits::default() },
            Job::Compact { snapshot: None, changes: changes.clone() },
            Job::Judge {
                snapshot: Some(vec![9]),
                changes: changes.clone(),
                candidates: vec![vec![5]],
            },
            Job::Verify { snapshot: Some(vec![]), changes: changes.clone() },
        ]
        .into_iter()
        .chain(questions().into_iter().map(|question| Job::Ask {
            snapshot: Some(vec![1]),
            changes: changes.clone(),
            question,
        }))
        .collect()
    }

    fn questions() -> Vec<Question> {
        let heads = Heads::from(vec![ChangeHash([7; 32])]);
        let (pointer, form) = ("/a~1b/0".to_owned(), Form::Typed);
        let by = Signature {
            actor: ActorId::new(&[5; 16]).unwrap(),
            time_seconds: -3,
            message: Some("why".to_owned()),
        };
        let edits =
            [Edit::Create(b"{}".to_vec()), Edit::JsonPatch(vec![]), Edit::MergePatch(vec![1])];
        let mut questions = vec![
            Question::Json { heads: None, pointer: pointer.clone(), form },
            Question::Text { heads: Some(heads.clone()), pointer },
            Question::File { heads: heads.clone() },
            Question::Changes { since: Heads::none() },
            Question::History { hashes: vec![ChangeHash([1; 32]); 2] },
            Question::Diff { from: Heads::none(), to: heads.clone(), form: Form::Plain },
            Question::Conflicts { heads: Some(heads.clone()), form },
        ];
        questions.extend(edits.map(|edit| Question::Edit {
            heads: Some(heads.clone()),
            edit,
            form,
            by: by.clone(),
        }));
        questions
    }

    fn sayings() -> Vec<Said> {
        let hash = ChangeHash([3; 32]);
        let heads = Heads::from(vec![hash, ChangeHash([1; 32])]);
        let mut sayings =
            vec![Said::Progress(Progress { stage: Stage::Edit, from: 3, to: usize::MAX })];
        let reasons = [
            Reason::Malformed("ä".into()),
            Reason::MissingDependency(hash),
            Reason::Refused { stage: Stage::Apply, message: String::new() },
            Reason::Panicked { stage: Stage::TakeApart, message: "out".into() },
            Reason::ComesBackDifferent,
            Reason::TooDeep,
            Reason::OverLimit(Limit::TotalBytes),
            Reason::NoRoomToEdit,
        ];
        let verdicts = [Ok(())].into_iter().chain(reasons.clone().map(Err)).collect();
        let outcomes = [
            Ok(Answer::Expanded(Expanded {
                snapshot: vec![1],
                changes: vec![vec![2], vec![]],
                heads: heads.clone(),
                orphans: vec![vec![3; 200]],
            })),
            Ok(Answer::Compacted(Compacted { snapshot: vec![], heads: heads.clone(), changes: 7 })),
            Ok(Answer::Judged(verdicts)),
            Ok(Answer::Verified(Verified { heads, changes: u64::MAX })),
            Ok(Answer::Told(Told::Bytes(vec![1, 2]))),
            Ok(Answer::Told(Told::Edited(Some(Made { hash, change: vec![4] })))),
            Ok(Answer::Told(Told::Edited(None))),
            Ok(Answer::Told(Told::Declined(Declined::NoSuchHead(hash)))),
            Ok(Answer::Told(Told::Declined(Declined::NoSuchPlace("/a".into())))),
            Ok(Answer::Told(Told::Declined(Declined::NotText("/a".into())))),
            Ok(Answer::Told(Told::Declined(Declined::NotAPointer("a".into())))),
            Ok(Answer::Told(Told::Declined(Declined::NotJson("{".into())))),
            Ok(Answer::Told(Told::Declined(Declined::TestFailed("/a".into())))),
            Ok(Answer::Told(Told::Declined(Declined::CannotApply(String::new())))),
            Err(Failure::Snapshot { reason: reasons[0].clone() }),
            Err(Failure::Change { index: 4, hash: Some(hash), reason: reasons[1].clone() }),
            Err(Failure::Chunk { at_bytes: 5, reason: reasons[4].clone() }),
        ];
        sayings.extend(outcomes.map(|outcome| Said::Done {
            memory: Memory { bytes_base: 5, bytes_peak: u64::MAX },
            outcome,
        }));
        sayings
    }

    fn comes_back<T: Wire + PartialEq + Debug>(value: T) {
        let bytes = value.to_bytes();
        for short in 0..bytes.len() {
            assert!(T::from_bytes(&bytes[..short]).is_err(), "{value:?} cut at {short}");
        }
        assert_eq!(T::from_bytes(&bytes), Ok(value));
    }

    #[test]
    fn every_message_comes_back_from_its_bytes_and_from_no_part_of_them() {
        jobs().into_iter().for_each(comes_back);
        sayings().into_iter().for_each(comes_back);
        comes_back(Settings {
            memory_bytes_max: 1,
            stack_bytes: 2,
            job_seconds_max: 3,
            niceness: 4,
        });
    }

    #[test]
    fn a_prefix_of_a_job_is_the_job_with_fewer_changes() {
        for job in jobs() {
            let cut = Job::from_bytes(&job.prefix_to_bytes(1)).unwrap();
            match (job, cut) {
                (Job::Compact { changes, .. }, Job::Compact { changes: cut, .. })
                | (Job::Verify { changes, .. }, Job::Verify { changes: cut, .. })
                | (Job::Ask { changes, .. }, Job::Ask { changes: cut, .. }) => {
                    assert_eq!(cut, changes[..1]);
                }
                (job, cut) => assert_eq!(job, cut),
            }
        }
    }

    #[test]
    fn bytes_changed_at_random_are_read_without_a_panic() {
        let mut random = SmallRng::seed_from_u64(11);
        let originals: Vec<Vec<u8>> =
            jobs().iter().map(Wire::to_bytes).chain(sayings().iter().map(Wire::to_bytes)).collect();
        for round in 0..50_000 {
            let mut bytes = originals[round % originals.len()].clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            let _ = Job::from_bytes(&bytes);
            let _ = Said::from_bytes(&bytes);
            let _ = read_frame(&mut &bytes[..]);
        }
    }
}
