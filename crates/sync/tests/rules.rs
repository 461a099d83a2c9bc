//! The rules that a convergence test cannot see, because what they save is a message, a round trip,
//! or a client that would wait for ever: each by what it must send, and how often. The last test
//! leaves the rules out one by one and sees that some test notices.

use automerge::sync::{Message as CrateMessage, State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, Automerge, ROOT};
use history::directory::Directory;
use history::graph::Position;
use history::{Chunk, History, Limits, Offer, read_chunks};
use model::{ChangeHash, Heads};
use tributary_sync::planted::{Bug, plant};
use tributary_sync::{Answer, Flags, Have, Message, Reply, Standing, Urgency};

struct Client {
    doc: AutoCommit,
    state: State,
}

impl Client {
    fn new(name: u8) -> Self {
        let doc = AutoCommit::new().with_actor(ActorId::from([name; 16]));
        Self { doc, state: State::new() }
    }

    fn type_once(&mut self, value: i64) {
        self.doc.put(ROOT, "key", value).unwrap();
        self.doc.commit();
    }

    fn say(&mut self) -> Option<Vec<u8>> {
        self.doc.sync().generate_sync_message(&mut self.state).map(CrateMessage::encode)
    }

    fn hear(&mut self, bytes: &[u8]) {
        let message = CrateMessage::decode(bytes).unwrap();
        self.doc.sync().receive_sync_message(&mut self.state, message).unwrap();
    }

    fn heads(&mut self) -> Heads {
        self.doc.get_heads().iter().map(|hash| ChangeHash(hash.0)).collect()
    }
}

fn server() -> History {
    let mut history = History::default();
    history.install_directory(Directory::default());
    history
}

/// Offers the changes of a message to the history, and tells the standing. Nothing is committed.
fn take(history: &mut History, standing: &mut Standing, bytes: &[u8]) -> Message {
    let message = Message::decode(bytes).unwrap();
    let mut handed = Vec::new();
    for item in &message.items {
        for chunk in read_chunks(&bytes[item.clone()], &Limits::default()).unwrap() {
            let changes = match chunk {
                Chunk::Change(change) => vec![change],
                Chunk::Document(bytes) | Chunk::Bundle(bytes) => Automerge::load(&bytes)
                    .unwrap()
                    .get_changes(&[])
                    .iter()
                    .map(|change| history::read_change(change.raw_bytes()).unwrap())
                    .collect(),
            };
            for change in changes {
                history.offer(change, history::Door::Client, &mut |_, offer| match offer {
                    Offer::Appended(position) | Offer::Known(position) => handed.push(position),
                    other => panic!("{other:?}"),
                });
            }
        }
    }
    standing.receive(&message, &handed, history);
    message
}

fn bytes_of(history: &History, answer: &Answer) -> Vec<u8> {
    let positions = answer.changes.positions();
    let chunks: Vec<&[u8]> =
        positions.iter().map(|at| history.resident(*at).unwrap().bytes()).collect();
    answer.reply.encode(chunks.into_iter())
}

fn commit(history: &mut History) {
    history.settle(history.len());
}

/// A server and a client that are level on a document of `edits` changes by that client.
fn level(edits: i64) -> (History, Standing, Client) {
    let (mut history, mut standing, mut client) = (server(), Standing::default(), Client::new(1));
    (0..edits).for_each(|value| client.type_once(value));
    for _ in 0..10 {
        if let Some(bytes) = client.say() {
            take(&mut history, &mut standing, &bytes);
        }
        commit(&mut history);
        if let Some(answer) = standing.answer(&history) {
            client.hear(&bytes_of(&history, &answer));
        }
    }
    assert_eq!(history.heads(), &client.heads());
    assert_eq!((client.say(), standing.answer(&history)), (None, None));
    (history, standing, client)
}

/// A message as a client might craft it.
fn message(heads: &Heads, need: Vec<ChangeHash>, have: Option<Have>, flags: Flags) -> Vec<u8> {
    Reply { heads: heads.clone(), need, have, flags }.encode([].into_iter())
}

#[test]
fn the_first_message_is_answered_even_when_there_is_nothing_to_say() {
    let (history, _, mut client) = level(3);
    client.state = State::new();
    let mut standing = Standing::default();
    let first = client.say().unwrap();
    let read = Message::decode(&first).unwrap();
    standing.receive(&read, &[], &history);
    assert_eq!(standing.urgency(&history), Urgency::News);
    let answer = standing.answer(&history).expect("a first reply");
    assert_eq!(answer.changes.count(), 0);
    client.hear(&bytes_of(&history, &answer));
    // Having heard from us, the client sends its next edit with the edit in it.
    client.type_once(99);
    let next = Message::decode(&client.say().unwrap()).unwrap();
    assert_eq!(next.items.len(), 1);
}

#[test]
fn nothing_is_said_before_what_was_handed_in_is_durable() {
    let (mut history, mut standing, mut client) = level(3);
    client.type_once(99);
    take(&mut history, &mut standing, &client.say().unwrap());
    assert_eq!(standing.urgency(&history), Urgency::Nothing);
    assert_eq!(standing.answer(&history), None);
    commit(&mut history);
    assert_eq!(standing.urgency(&history), Urgency::Acknowledge);
    let answer = standing.answer(&history).unwrap();
    assert_eq!(&answer.reply.heads, history.heads());
}

#[test]
fn no_head_is_named_before_its_change_can_follow() {
    let (mut history, _, mut client) = level(3);
    let durable = client.heads();
    client.type_once(99);
    let mut theirs = Standing::default();
    take(&mut history, &mut theirs, &client.say().unwrap());
    let mut newcomer = Standing::default();
    let opening = message(&Heads::none(), vec![], Some(Have::nothing()), Flags::default());
    newcomer.receive(&Message::decode(&opening).unwrap(), &[], &history);
    let answer = newcomer.answer(&history).expect("a first reply");
    assert_eq!((&answer.reply.heads, answer.changes.count()), (&durable, 3));
    commit(&mut history);
    let answer = newcomer.answer(&history).expect("news");
    assert_eq!((&answer.reply.heads, answer.changes.count()), (&client.heads(), 1));
}

/// Clients compare heads as lists, so a list in another order is news for ever.
#[test]
fn heads_go_out_in_ascending_order() {
    let mut history = server();
    let apart = |name| {
        let mut client = Client::new(name);
        client.type_once(1);
        client.doc.get_last_local_change().unwrap().raw_bytes().to_vec()
    };
    for name in 1..=6 {
        let change = history::read_change(&apart(name)).unwrap();
        history.offer(change, history::Door::Client, &mut |_, _| {});
    }
    commit(&mut history);
    let mut standing = Standing::default();
    let opening = message(&Heads::none(), vec![], Some(Have::nothing()), Flags::default());
    standing.receive(&Message::decode(&opening).unwrap(), &[], &history);
    let answer = bytes_of(&history, &standing.answer(&history).unwrap());
    let heads = CrateMessage::decode(&answer).unwrap().heads;
    assert_eq!(heads.len(), 6);
    assert!(heads.is_sorted());
}

#[test]
fn any_number_of_uploads_makes_one_acknowledgement() {
    let (mut history, mut standing, mut client) = level(3);
    for value in 0..50 {
        client.type_once(value);
        take(&mut history, &mut standing, &client.say().unwrap());
    }
    commit(&mut history);
    let answer = standing.answer(&history).unwrap();
    assert_eq!(answer.changes.count(), 0, "nobody is sent what it handed in");
    client.hear(&bytes_of(&history, &answer));
    assert_eq!((client.say(), standing.answer(&history)), (None, None));
}

#[test]
fn a_client_that_shows_our_heads_is_told_nothing() {
    let (history, mut standing, mut client) = level(3);
    let shown = message(&client.heads(), vec![], None, Flags::default());
    standing.receive(&Message::decode(&shown).unwrap(), &[], &history);
    assert_eq!(standing.answer(&history), None);
}

#[test]
fn a_level_client_is_sent_what_is_new_and_nothing_else() {
    let (mut history, mut standing, _) = level(20);
    let mut other = Client::new(2);
    let mut theirs = Standing::default();
    take(&mut history, &mut theirs, &other.say().unwrap());
    let everything = theirs.answer(&history).unwrap();
    assert_eq!(everything.changes.count(), 20);
    other.hear(&bytes_of(&history, &everything));
    other.type_once(7);
    take(&mut history, &mut theirs, &other.say().unwrap());
    commit(&mut history);
    let news = standing.answer(&history).unwrap();
    assert_eq!(news.changes.positions(), [20]);
    let have = news.reply.have.unwrap();
    assert_eq!(
        (have.last_sync.as_slice(), have.bloom.is_empty()),
        (history.heads().as_slice(), true)
    );
}

#[test]
fn known_heads_are_answered_exactly_in_one_message_whatever_the_filter_says() {
    let (history, _, mut client) = level(60);
    let held = history.graph().hash(9);
    // A sync state that is newer than the document: its filter claims everything.
    let have = Have {
        last_sync: client.heads().as_slice().to_vec(),
        bloom: tributary_sync::Bloom::empty(),
    };
    let opening = message(&Heads::from(vec![held]), vec![], Some(have), Flags::default());
    let mut standing = Standing::default();
    standing.receive(&Message::decode(&opening).unwrap(), &[], &history);
    let answer = standing.answer(&history).unwrap();
    assert_eq!(answer.changes.positions(), (10..60).collect::<Vec<Position>>());
}

/// A peer that was level with somebody else, on heads that are unknown here.
fn opens_on_unknown_ground(history: &History, standing: &mut Standing) -> Answer {
    let unknown = ChangeHash([9; 32]);
    let bloom = tributary_sync::Bloom::of([ChangeHash([8; 32])].into_iter());
    let have = Have { last_sync: vec![ChangeHash([7; 32])], bloom };
    let opening = message(&Heads::from(vec![unknown]), vec![], Some(have), Flags::default());
    standing.receive(&Message::decode(&opening).unwrap(), &[], history);
    let answer = standing.answer(history).expect("a first reply");
    assert_eq!(answer.reply.need, [unknown]);
    answer
}

#[test]
fn on_unknown_ground_nothing_is_sent_but_what_is_new() {
    let (mut history, mut theirs, mut client) = level(5);
    let mut standing = Standing::default();
    let answer = opens_on_unknown_ground(&history, &mut standing);
    assert_eq!(answer.changes.count(), 0);
    assert_eq!(standing.answer(&history), None);
    client.type_once(99);
    take(&mut history, &mut theirs, &client.say().unwrap());
    commit(&mut history);
    assert_eq!(standing.answer(&history).unwrap().changes.positions(), [5]);
}

/// Where the crate sends one: two who answer a reset with a reset never end.
#[test]
fn unknown_heads_are_asked_for_and_never_answered_with_a_reset() {
    let (history, _, _) = level(5);
    let mut standing = Standing::default();
    let answer = opens_on_unknown_ground(&history, &mut standing);
    assert!(!Message::decode(&bytes_of(&history, &answer)).unwrap().is_reset());
    assert!(!answer.reply.flags.contains(Flags::SYNC_RESET));
    let heads = Heads::from(vec![ChangeHash([9; 32])]);
    let reset = message(&heads, vec![], Some(Have::nothing()), Flags::default());
    standing.receive(&Message::decode(&reset).unwrap(), &[], &history);
    let answer = standing.answer(&history).expect("a reset is answered");
    assert!(!Message::decode(&bytes_of(&history, &answer)).unwrap().is_reset());
}

fn asked_again(bug: Option<Bug>) -> Vec<usize> {
    let (history, mut standing, mut client) = level(5);
    plant(bug);
    let want = vec![history.graph().hash(4)];
    // A client that lost what it was sent, and says so by asking for it.
    let held = Heads::from(vec![history.graph().hash(2)]);
    let _ = client.heads();
    let answers = (0..9).map(|_| {
        let ask = message(&held, want.clone(), None, Flags::default());
        standing.receive(&Message::decode(&ask).unwrap(), &[], &history);
        standing.answer(&history).map_or(0, |answer| answer.changes.count())
    });
    let answers = answers.collect();
    plant(None);
    answers
}

#[test]
fn what_is_asked_for_again_and_again_is_sent_again_but_ever_more_rarely() {
    // The first message goes back behind what the client had, so it is opened again and sent all.
    // The next may have crossed that; the 2nd, 4th and 8th repetition are taken seriously.
    assert_eq!(asked_again(None), [2, 0, 2, 0, 2, 0, 0, 0, 2]);
    assert_eq!(asked_again(Some(Bug::IgnoreRepeatedNeed)), [2, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_client_that_comes_back_with_an_older_document_is_sent_the_rest_again() {
    let (history, mut standing, _) = level(5);
    let older = Heads::from(vec![history.graph().hash(2)]);
    let opening = message(&older, vec![], Some(Have::nothing()), Flags::default());
    // Not a reset: it asks for something.
    let mut read = Message::decode(&opening).unwrap();
    read.need = vec![history.graph().hash(4)];
    standing.receive(&read, &[], &history);
    assert_eq!(standing.answer(&history).unwrap().changes.positions(), [3, 4]);
}

fn after_a_reset(bug: Option<Bug>) -> (usize, usize) {
    let (mut history, mut standing, mut client) = level(3);
    plant(bug);
    let held = client.heads();
    let mut other = Client::new(2);
    let mut theirs = Standing::default();
    take(&mut history, &mut theirs, &other.say().unwrap());
    other.hear(&bytes_of(&history, &theirs.answer(&history).unwrap()));
    other.type_once(1);
    take(&mut history, &mut theirs, &other.say().unwrap());
    commit(&mut history);
    assert_eq!(standing.answer(&history).unwrap().changes.count(), 1);
    let reset = message(&held, vec![], Some(Have::nothing()), Flags::default());
    let mut counts = (0..2).map(|_| {
        standing.receive(&Message::decode(&reset).unwrap(), &[], &history);
        standing.answer(&history).map_or(0, |answer| answer.changes.count())
    });
    let result = (counts.next().unwrap(), counts.next().unwrap());
    plant(None);
    result
}

#[test]
fn a_reset_is_answered_with_what_the_client_lacks_once_for_the_heads_it_has() {
    assert_eq!(after_a_reset(None), (1, 0));
    assert_eq!(after_a_reset(Some(Bug::ResetResendsNothing)), (0, 0));
}

fn sent_to_a_reader_that_reset(bug: Option<Bug>) -> (usize, usize) {
    plant(bug);
    let (mut history, mut standing, mut client) = level(3);
    let read_only = message(&client.heads(), vec![], None, Flags::READ_ONLY);
    standing.receive(&Message::decode(&read_only).unwrap(), &[], &history);
    let reset = message(&client.heads(), vec![], Some(Have::nothing()), Flags::default());
    standing.receive(&Message::decode(&reset).unwrap(), &[], &history);
    let mut other = Client::new(2);
    let mut theirs = Standing::default();
    other.type_once(1);
    while let Some(bytes) = other.say() {
        take(&mut history, &mut theirs, &bytes);
        commit(&mut history);
        let Some(answer) = theirs.answer(&history) else { break };
        other.hear(&bytes_of(&history, &answer));
    }
    let as_reader = standing.answer(&history).map_or(0, |answer| answer.changes.count());
    let writer = message(&client.heads(), vec![], None, Flags::SUPPORTS_SYNC_RESET);
    standing.receive(&Message::decode(&writer).unwrap(), &[], &history);
    let as_writer = standing.answer(&history).map_or(0, |answer| answer.changes.count());
    plant(None);
    (as_reader, as_writer)
}

#[test]
fn a_reset_does_not_say_that_its_sender_may_be_sent_changes_again() {
    // What was held back comes once the client says that it writes again.
    assert_eq!(sent_to_a_reader_that_reset(None), (0, 1));
    assert_eq!(sent_to_a_reader_that_reset(Some(Bug::ResetTellsReadOnly)).0, 1);
}

#[test]
fn a_reader_is_sent_nothing_and_once_it_writes_all_that_was_held_back() {
    let (mut history, mut standing, mut client) = level(3);
    let held = client.heads();
    let reads = message(&held, vec![], None, Flags::READ_ONLY);
    standing.receive(&Message::decode(&reads).unwrap(), &[], &history);
    let mut theirs = Standing::default();
    client.state = State::new();
    for value in 0..4 {
        client.type_once(value);
        while let Some(bytes) = client.say() {
            take(&mut history, &mut theirs, &bytes);
            commit(&mut history);
            let Some(answer) = theirs.answer(&history) else { break };
            client.hear(&bytes_of(&history, &answer));
        }
        // Its heads are news to it, and presuming that it takes them in would end in a reset.
        let answer = standing.answer(&history).expect("news");
        assert_eq!(answer.changes.count(), 0);
        assert_ne!(answer.reply.have.unwrap().last_sync, history.heads().as_slice());
    }
    let writes = message(&held, vec![], None, Flags::SUPPORTS_SYNC_RESET);
    standing.receive(&Message::decode(&writes).unwrap(), &[], &history);
    assert_eq!(standing.answer(&history).unwrap().changes.positions(), [3, 4, 5, 6]);
}

#[test]
fn a_peer_whose_heads_were_refused_counts_as_holding_what_they_build_on() {
    let (mut history, _, mut client) = level(3);
    client.type_once(99);
    let refused = client.heads().as_slice()[0];
    let upload = client.say().unwrap();
    let read = Message::decode(&upload).unwrap();
    let chunks = read_chunks(&upload[read.items[0].clone()], &Limits::default()).unwrap();
    let Chunk::Change(change) = &chunks[0] else { panic!("a change") };
    history.refuse(change, history::Refusal::Crdt { hash: refused, reason: "a test".to_owned() });
    let mut standing = Standing::default();
    let opening = message(&client.heads(), vec![], Some(Have::nothing()), Flags::default());
    standing.receive(&Message::decode(&opening).unwrap(), &[], &history);
    let answer = standing.answer(&history).unwrap();
    assert_eq!((answer.changes.count(), answer.reply.need.len()), (0, 0), "it is not asked for");
    assert!(standing.is_level(&history));
}

#[test]
fn what_builds_on_a_refused_change_is_refused_and_its_maker_gets_everything_else() {
    let (mut history, _, mut client) = level(3);
    let (mut other, mut theirs) = (Client::new(2), Standing::default());
    other.type_once(1);
    while let Some(bytes) = other.say() {
        take(&mut history, &mut theirs, &bytes);
        commit(&mut history);
        let Some(answer) = theirs.answer(&history) else { break };
        other.hear(&bytes_of(&history, &answer));
    }
    let mut offers = Vec::new();
    for value in 97..100 {
        client.type_once(value);
        let change = client.doc.get_last_local_change().unwrap().raw_bytes().to_vec();
        let change = history::read_change(&change).unwrap();
        if value == 97 {
            let (hash, reason) = (change.hash(), "a test".to_owned());
            history.refuse(&change, history::Refusal::Crdt { hash, reason });
        }
        history.offer(change, history::Door::Client, &mut |_, offer| offers.push(offer));
    }
    assert!(offers.iter().all(|offer| matches!(offer, Offer::Refused(_))), "{offers:?}");
    assert!(!history.has_pending());
    let mut standing = Standing::default();
    let opening = message(&client.heads(), vec![], Some(Have::nothing()), Flags::default());
    standing.receive(&Message::decode(&opening).unwrap(), &[], &history);
    let answer = standing.answer(&history).unwrap();
    assert_eq!((answer.changes.positions(), answer.reply.need), (vec![3], vec![]));
    assert!(standing.is_level(&history));
}

#[test]
fn a_peer_that_was_told_there_is_nothing_hears_when_there_is() {
    let (mut history, mut standing) = (server(), Standing::default());
    let request = message(&Heads::none(), vec![], Some(Have::nothing()), Flags::default());
    standing.receive(&Message::decode(&request).unwrap(), &[], &history);
    standing.declined();
    assert_eq!(standing.answer(&history), None);
    let (mut client, mut theirs) = (Client::new(1), Standing::default());
    client.type_once(1);
    while let Some(bytes) = client.say() {
        take(&mut history, &mut theirs, &bytes);
        commit(&mut history);
        let Some(answer) = theirs.answer(&history) else { break };
        client.hear(&bytes_of(&history, &answer));
    }
    assert_eq!(standing.answer(&history).unwrap().changes.count(), 1);
}

#[test]
fn a_client_that_was_told_there_is_nothing_and_then_begins_is_asked_for_what_it_made() {
    let (mut history, mut standing) = (server(), Standing::default());
    let mut client = Client::new(1);
    take(&mut history, &mut standing, &client.say().unwrap());
    // `doc-unavailable` says nothing to the sync state, so the client believes that this is still
    // its first message on the way: what it makes now it names and does not send.
    standing.declined();
    client.type_once(1);
    let named = client.say().unwrap();
    assert!(Message::decode(&named).unwrap().items.is_empty());
    take(&mut history, &mut standing, &named);
    let asked = standing.answer(&history).expect("it is asked");
    client.hear(&bytes_of(&history, &asked));
    take(&mut history, &mut standing, &client.say().unwrap());
    commit(&mut history);
    assert_eq!(history.heads(), &client.heads());
}

#[test]
fn a_level_client_that_names_a_change_without_sending_it_is_asked_for_it() {
    let (history, mut standing, mut client) = level(3);
    let mut heads = client.heads().as_slice().to_vec();
    let unknown = ChangeHash([9; 32]);
    heads.push(unknown);
    let named = message(&Heads::from(heads), vec![], Some(Have::nothing()), Flags::default());
    standing.receive(&Message::decode(&named).unwrap(), &[], &history);
    let asked = standing.answer(&history).expect("it is asked");
    assert_eq!(asked.reply.need, [unknown]);
}

#[test]
fn a_document_that_is_opened_again_as_it_was_is_answered_again() {
    let (mut history, mut standing, mut client) = level(3);
    client.state = State::new();
    let opened = client.say().unwrap();
    take(&mut history, &mut standing, &opened);
    let answer = standing.answer(&history).expect("a first reply");
    assert_eq!(answer.changes.count(), 0);
    client.hear(&bytes_of(&history, &answer));
    // It knows what we hold, so it sends what it makes, and there is nothing more to say.
    assert_eq!((client.say(), standing.answer(&history)), (None, None));
    client.type_once(9);
    let typed = Message::decode(&client.say().unwrap()).unwrap();
    assert_eq!(typed.items.len(), 1);
}

fn presumed_after_a_reset(bug: Option<Bug>) -> bool {
    let (history, mut standing, mut client) = level(3);
    plant(bug);
    let reset = message(&client.heads(), vec![], Some(Have::nothing()), Flags::default());
    standing.receive(&Message::decode(&reset).unwrap(), &[], &history);
    // It says that it holds less than we think, so what we hold is common ground no more.
    let held = Heads::from(vec![history.graph().hash(1)]);
    let ask = message(&held, vec![history.graph().hash(2)], None, Flags::default());
    let _ = standing.answer(&history);
    let reset = message(&held, vec![], Some(Have::nothing()), Flags::default());
    standing.receive(&Message::decode(&reset).unwrap(), &[], &history);
    let have = standing.answer(&history).expect("a reset is answered").reply.have;
    standing.receive(&Message::decode(&ask).unwrap(), &[], &history);
    plant(None);
    have.is_some_and(|have| have.last_sync == history.heads().as_slice())
}

#[test]
fn after_a_reset_a_client_is_not_presumed_to_hold_what_it_is_sent() {
    assert!(!presumed_after_a_reset(None));
    assert!(presumed_after_a_reset(Some(Bug::TrustAfterReset)));
}

/// Whether a test fails with a bug.
fn notices(plant_it: impl FnOnce(), test: fn()) -> bool {
    plant_it();
    let failed = std::panic::catch_unwind(test).is_err();
    plant(None);
    history::planted::plant(None);
    failed
}

#[test]
fn every_rule_that_is_left_out_fails_the_test_that_is_about_it() {
    let bugs: [(Bug, fn()); 14] = [
        (Bug::AnswersEarly, nothing_is_said_before_what_was_handed_in_is_durable),
        (Bug::HeadsUnsorted, heads_go_out_in_ascending_order),
        (Bug::AlwaysAnswer, a_client_that_shows_our_heads_is_told_nothing),
        (Bug::NeverAcknowledges, any_number_of_uploads_makes_one_acknowledgement),
        (Bug::AcknowledgesAtOnce, nothing_is_said_before_what_was_handed_in_is_durable),
        (Bug::NoFirstReply, the_first_message_is_answered_even_when_there_is_nothing_to_say),
        (Bug::NamesWhatIsNotDurable, no_head_is_named_before_its_change_can_follow),
        (
            Bug::BelievesHave,
            known_heads_are_answered_exactly_in_one_message_whatever_the_filter_says,
        ),
        (Bug::SendsOnUnknownGround, on_unknown_ground_nothing_is_sent_but_what_is_new),
        (Bug::SendsReset, unknown_heads_are_asked_for_and_never_answered_with_a_reset),
        (Bug::PresumeAlways, a_reader_is_sent_nothing_and_once_it_writes_all_that_was_held_back),
        (Bug::NeverGoBack, a_client_that_comes_back_with_an_older_document_is_sent_the_rest_again),
        (Bug::SendsToReaders, a_reader_is_sent_nothing_and_once_it_writes_all_that_was_held_back),
        (
            Bug::ReadersStayBehind,
            a_reader_is_sent_nothing_and_once_it_writes_all_that_was_held_back,
        ),
    ];
    // These are put in by the tests about them, above.
    let elsewhere = [
        Bug::TrustAfterReset,
        Bug::ResetResendsNothing,
        Bug::ResetTellsReadOnly,
        Bug::IgnoreRepeatedNeed,
    ];
    for bug in Bug::ALL {
        assert!(bugs.iter().any(|(it, _)| *it == bug) || elsewhere.contains(&bug), "{bug:?}");
    }
    for (bug, test) in bugs {
        assert!(!notices(|| plant(None), test), "the test about {bug:?} fails without it");
        assert!(notices(|| plant(Some(bug)), test), "{bug:?} is not noticed");
    }
    use history::planted as in_history;
    let bugs: [(in_history::Bug, fn()); 2] = [
        (
            in_history::Bug::ForgetsRefused,
            a_peer_whose_heads_were_refused_counts_as_holding_what_they_build_on,
        ),
        (
            in_history::Bug::AwaitsRefused,
            what_builds_on_a_refused_change_is_refused_and_its_maker_gets_everything_else,
        ),
    ];
    assert_eq!(bugs.len(), in_history::Bug::ALL.len(), "every bug is in the table");
    for (bug, test) in bugs {
        assert!(notices(|| in_history::plant(Some(bug)), test), "{bug:?} is not noticed");
    }
}
