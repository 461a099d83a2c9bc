//! Regions that mean harm, or have gone wrong, against a real process that has clients and a friend.
//!
//! Each plays its part on a socket of its own, with the frames of `crates/mesh`. Its link is closed with
//! a reason that both sides get to know and that is counted; clients notice nothing; and nothing is in
//! the store that was not what it said it was.

#[path = "support/regions.rs"]
#[allow(dead_code, reason = "not every test file uses all of it")]
mod regions;
mod support;
#[path = "support/tls.rs"]
#[allow(dead_code, reason = "here nobody listens in")]
mod tls;

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT};
use history::chunk::read_change;
use hmac::{Hmac, Mac as _};
use mesh::codec::{Encoder, Group};
use mesh::frame::{Ends, Frame, Row};
use mesh::handshake::{Agreed, Handshake, Key, Me, VERSION};
use mesh::{Entry, Item, Lane, LogId, Mark, Origin};
use model::{DocumentId, RegionName, StorageId};
use regions::{KEY, Other, Region, World, http, until};
use sha2::Sha256;
use support::Client;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{
    Error, HandshakeError, Message, WebSocket, accept_hdr, client,
};
use tributary_tests::{PATIENCE, run};

const PROTOCOL: &str = "tributary-mesh.3";
const SUB_PROTOCOL: &str = "sec-websocket-protocol";
/// What clients may have to wait for one round trip through two regions, on a busy machine.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(5);

/// One that is not what it should be.
struct Case {
    /// Its region, unless it takes another's name.
    name: &'static str,
    /// Plays its part; gives the reason that it is told.
    play: fn(&Stage<'_>) -> String,
    /// What is in that reason, and in one line of the process's log with the name of the case.
    reason: &'static [&'static str],
    /// The figure that counts it.
    counted: &'static str,
}

/// Before it belongs to a link.
const STRANGERS: &[Case] = &[
    Case {
        name: "with another key",
        play: |stage| {
            let key = key("a secret that no other region has");
            let handshake = Handshake::dial(&me("stranger"), &key, Lane::Live, stage.nonce);
            stage.shake(handshake).expect_err("it is not to be let in")
        },
        reason: &["the keys of the mesh differ"],
        counted: r#"mesh_refused_total{reason="handshake"}"#,
    },
    Case {
        name: "of our own name",
        // An honest one would go away by itself when it hears the name.
        play: |stage| stage.claims("eu"),
        reason: &["the region name eu is taken"],
        counted: r#"mesh_refused_total{reason="handshake"}"#,
    },
    Case {
        name: "of another version, as its sub-protocol says",
        play: |stage| match stage.connect("tributary-mesh.99") {
            Err(Error::Http(answer)) => {
                String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned()
            }
            other => panic!("{other:?}"),
        },
        reason: &[PROTOCOL, "tributary-mesh.99"],
        counted: r#"mesh_refused_total{reason="version"}"#,
    },
    Case {
        name: "of another version, as its first frame says",
        play: |stage| {
            let mut hello = Handshake::dial(&me("old"), &key(KEY), Lane::Live, stage.nonce).first();
            hello.as_mut().expect("who dials begins")[0] = 99;
            stage.says_at_once(hello)
        },
        reason: &["version 99", "version 3"],
        counted: r#"mesh_refused_total{reason="handshake"}"#,
    },
    Case {
        name: "that talks nonsense",
        play: |stage| stage.says_at_once(Some(vec![VERSION, 77, 1, 2, 3])),
        reason: &["not a handshake"],
        counted: r#"mesh_refused_total{reason="handshake"}"#,
    },
    Case {
        name: "that never says hello",
        play: |stage| stage.says_at_once(None),
        reason: &["no proof of the key within 5 s"],
        counted: r#"mesh_refused_total{reason="slow"}"#,
    },
];

/// With the key, and a link.
const LIARS: &[Case] = &[
    Case {
        name: "us",
        // There is one of this name, and this is another process.
        play: |stage| stage.enter("us").told(),
        reason: &["the region name us is taken"],
        counted: r#"link_closes_total{region="us",reason="taken"}"#,
    },
    Case {
        name: "boaster",
        play: |stage| {
            let mut peer = stage.enter("boaster");
            let log = LogId { origin: peer.ends.receiver.clone(), stream: 3 };
            let row = Row { log, sequence: 1_000_000, digest: Some([9; 16]) };
            peer.opens_with(vec![row]);
            peer.told()
        },
        reason: &["claims to hold entries of eu/", "never written"],
        counted: r#"link_closes_total{region="boaster",reason="false_vector"}"#,
    },
    Case {
        name: "gappy",
        play: |stage| {
            let mut peer = stage.enter("gappy");
            peer.opens_with(Vec::new());
            let entries = stage.entries(6);
            peer.sends(1, &entries[..2]);
            peer.sends(5, &entries[4..]);
            peer.told()
        },
        reason: &["are missing", "3 was to come, 5 came"],
        counted: r#"link_closes_total{region="gappy",reason="gap"}"#,
    },
    Case {
        name: "mumbler",
        play: |stage| {
            let mut peer = stage.enter("mumbler");
            peer.opens_with(Vec::new());
            peer.says(vec![0, 0xff, 0xff, 0xff]);
            peer.told()
        },
        reason: &["a frame cannot be read"],
        counted: r#"link_closes_total{region="mumbler",reason="undecodable"}"#,
    },
    Case {
        name: "garbler",
        // Once is an accident, and asked for again.
        play: |stage| {
            let mut peer = stage.enter("garbler");
            peer.opens_with(Vec::new());
            let mut batch = peer.batch(1, &stage.entries(2));
            garble(&mut batch);
            peer.say(&Frame::Entries(batch));
            peer.is_asked_again();
            let mut batch = peer.batch(1, &stage.entries(2));
            garble(&mut batch);
            peer.say(&Frame::Entries(batch));
            peer.told()
        },
        reason: &["a batch cannot be read"],
        counted: r#"link_closes_total{region="garbler",reason="batch"}"#,
    },
    Case {
        name: "forger",
        // All is in order but one change, which is not what its hash says.
        play: |stage| {
            let mut peer = stage.enter("forger");
            peer.opens_with(Vec::new());
            peer.sends(1, &stage.entries(1));
            peer.say(&Frame::Entries(vec![0, 1, 0]));
            peer.is_asked_again();
            let entries = stage.entries(3);
            let Item::Change(last) = &entries[2].item else { unreachable!("all are changes") };
            // The checksum in front of the chunk; a batch that is sent whole has it as it is.
            let checksum = &last.bytes()[4..8];
            let mut batch = peer.batch(2, &entries[1..]);
            let found = batch.windows(4).position(|bytes| bytes == checksum);
            batch[found.expect("what does not compress is not compressed")] ^= 1;
            peer.say(&Frame::Entries(batch));
            peer.told()
        },
        reason: &["a batch cannot be read", "a change in a batch is not valid"],
        counted: r#"link_closes_total{region="forger",reason="batch"}"#,
    },
    Case {
        name: "spendthrift",
        play: |stage| {
            let mut peer = stage.enter("spendthrift");
            peer.opens_with(Vec::new());
            peer.say(&Frame::Credit { bytes: u64::MAX / 2 });
            peer.told()
        },
        reason: &["more credit was given than there is"],
        counted: r#"link_closes_total{region="spendthrift",reason="endless_credit"}"#,
    },
    Case {
        name: "flooder",
        // A tebibyte is on its way, it says.
        play: |stage| {
            let mut peer = stage.enter("flooder");
            peer.opens_with(Vec::new());
            let batch = peer.batch(1, &stage.entries(1));
            let cost = [0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
            peer.say(&Frame::Entries([&batch[..2], &cost, &batch[4..]].concat()));
            peer.told()
        },
        reason: &["more was sent than there is credit for"],
        counted: r#"link_closes_total{region="flooder",reason="credit_exceeded"}"#,
    },
    Case {
        name: "gossip",
        play: |stage| {
            let mut peer = stage.enter("gossip");
            peer.opens_with(Vec::new());
            let stream = stage.document.stream();
            let log = LogId { origin: Origin { region: region("us"), epoch: 7 }, stream };
            let groups = [Group { log, first: 1, entries: stage.entries(1) }];
            let batch = peer.encoder.encode(&groups).bytes;
            peer.say(&Frame::Entries(batch));
            peer.told()
        },
        reason: &["which was not asked for"],
        counted: r#"link_closes_total{region="gossip",reason="unasked"}"#,
    },
    Case {
        name: "jumper",
        play: |stage| {
            let mut peer = stage.enter("jumper");
            peer.opens_with(Vec::new());
            let log = peer.log(&stage.document);
            peer.say(&Frame::Skip { log, to: Mark { sequence: u64::MAX, digest: [0; 16] } });
            peer.told()
        },
        reason: &["a skip is out of place"],
        counted: r#"link_closes_total{region="jumper",reason="out_of_place"}"#,
    },
    Case {
        name: "writer",
        play: |stage| {
            let mut peer = stage.enter("writer");
            peer.opens_with(Vec::new());
            peer.socket.send(Message::text("hello")).expect("it can be said");
            peer.told()
        },
        reason: &["a text frame"],
        counted: r#"link_closes_total{region="writer",reason="text"}"#,
    },
    Case {
        name: "sleeper",
        // Says what it holds, and then nothing, for ever; it does not read either.
        play: |stage| {
            let mut peer = stage.enter("sleeper");
            peer.opens_with(Vec::new());
            stage.world.region("eu").says(&["sleeper", "nothing was heard"]);
            peer.told()
        },
        reason: &["nothing was heard for too long"],
        counted: r#"link_closes_total{region="sleeper",reason="silent"}"#,
    },
];

#[test]
fn a_region_that_means_harm_is_closed_with_a_reason_and_clients_notice_nothing() {
    let (impostor, heard) = impostor();
    let mut world = World::unlinked();
    let others = [Other::dials("us"), Other::dialled("sa", &impostor)];
    world.add(Region::start("eu", KEY, &others, ""));
    let us = Region::start("us", KEY, &world.wires_to("us", &["eu"]), "");
    world.add(us);
    until("the regions to be linked", || world.region("us").reaches("eu"));

    // An honest one, on the same stage: whatever the others are refused for, it is not how they speak.
    let honest = Stage { world: &world, document: document(200), nonce: [200; 32] };
    let mut friend = honest.enter("ap");
    friend.opens_with(Vec::new());
    friend.sends(1, &honest.entries(3));
    let log = friend.log(&honest.document);
    friend.hears("that all is held", |frame| match frame {
        Frame::Holds(rows) => rows.iter().any(|row| row.log == log && row.sequence == 3),
        _ => false,
    });

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients = scope.spawn(|| clients_that_write(&world, &over));
        let cases = STRANGERS.iter().chain(LIARS);
        let playing: Vec<_> = (1..)
            .zip(cases)
            .map(|(n, case)| {
                let stage = Stage { world: &world, document: document(n), nonce: [n; 32] };
                (case, scope.spawn(move || (case.play)(&stage)))
            })
            .collect();
        let ended: Vec<_> = playing.into_iter().map(|(case, it)| (case, it.join())).collect();
        // Whatever comes of them, the clients are to end as well.
        over.store(true, Ordering::Relaxed);
        for (case, told) in ended {
            let told = told.unwrap_or_else(|_| panic!("'{}' fails", case.name));
            for part in case.reason {
                assert!(told.contains(part), "'{}' is told: {told}", case.name);
            }
        }
        let (rounds, slowest) = clients.join().expect("clients notice nothing");
        assert!(rounds > 20 && slowest < ROUND_TRIP_MAX, "{rounds} rounds, slowest {slowest:?}");
    });

    // Reasons are in the log, and counted: each as often as it happened.
    let eu = world.region("eu");
    for case in STRANGERS {
        eu.says(&[&["a region was refused"], case.reason].concat());
    }
    for case in LIARS {
        let region = format!("region={}", case.name);
        eu.says(&[&["we closed", region.as_str()], case.reason].concat());
    }
    let mut counts = BTreeMap::<_, u64>::new();
    for case in STRANGERS.iter().chain(LIARS) {
        *counts.entry(case.counted).or_default() += 1;
    }
    let figures = http(eu.address(), "/metrics");
    for (counted, count) in counts {
        let line = format!("tributary_{counted} {count}");
        assert!(figures.lines().any(|found| found == line), "no '{line}' in\n{figures}");
    }

    // One that was dialled, and has another name than it should: the same, for each lane.
    let reason = "the region there is called 'mars', not 'sa'";
    assert_eq!(heard.recv_timeout(PATIENCE).expect("it is dialled"), reason);
    eu.says(&["not reached", "region=sa", reason]);
    let counted = r#"tributary_link_closes_total{region="sa",reason="name"} "#;
    assert!(figures.contains(counted), "{figures}");

    // The honest link stood all the while, and carries on.
    let closes = eu.link("us").expect("there is one")["closes"].clone();
    assert_eq!(closes, serde_json::json!({ "taken": 1 }));
    assert!(eu.reaches("us") && world.region("us").reaches("eu"));

    // What came before a lie was true, and is there; what came with it is not.
    let kept = |n: u8| {
        let mut reader = Client::join(eu.server(), "late", &document(n));
        reader.pull();
        reader.doc.get_changes(&[]).len()
    };
    assert_eq!(kept(200), 3, "of the honest region");
    for (n, case) in (1..).zip(STRANGERS.iter().chain(LIARS)) {
        let true_ones = match case.name {
            "gappy" => 2,
            "forger" => 1,
            _ => 0,
        };
        assert_eq!(kept(n), true_ones, "changes of '{}'", case.name);
    }
    let data = eu.data().to_owned();
    world.region_mut("eu").stop();
    let output = run(&["verify", "--data", data.to_str().expect("a path of ours")], &[]);
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("all is well"), "{said}");
    assert!(!said.contains("set aside"), "{said}");
}

/// People in both regions who write and read each other, until told; gives how often and how slowly.
fn clients_that_write(world: &World, over: &AtomicBool) -> (i64, Duration) {
    let shared = document(100);
    let places = [("writer", "eu"), ("near", "eu"), ("far", "us")];
    let mut clients = places.map(|(name, region)| {
        let mut client = Client::join(world.region(region).server(), name, &shared);
        client.pull();
        client
    });
    let (mut rounds, mut slowest) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        rounds += 1;
        let started = Instant::now();
        let [writer, near, far] = &mut clients;
        writer.put("n", rounds);
        writer.acknowledged();
        near.reads("n", rounds);
        far.reads("n", rounds);
        far.put("back", rounds);
        far.acknowledged();
        writer.reads("back", rounds);
        slowest = slowest.max(started.elapsed());
    }
    (rounds, slowest)
}

/// Listens as a region that has the key and another name than it is dialled by; gives its URL, and what
/// it is told.
fn impostor() -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}", listener.local_addr().expect("it listens"));
    let (tell, heard) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for (n, stream) in (0..).zip(listener.incoming()) {
            let Ok(stream) = stream else { return };
            let protocol = HeaderValue::from_static(PROTOCOL);
            #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
            let agree = |_: &Request, mut answer: Response| {
                answer.headers_mut().insert(SUB_PROTOCOL, protocol);
                Ok(answer)
            };
            let Ok(mut socket) = accept_hdr(stream, agree) else { continue };
            let mut handshake = Handshake::accept(&me("mars"), &key(KEY), [n; 32]);
            let told = loop {
                match socket.read() {
                    Ok(Message::Binary(frame)) => {
                        let step = handshake.handle(&frame).expect("who dials is honest");
                        let answer = step.send.expect("it is not told our name's reply");
                        socket.send(Message::binary(answer)).expect("it can be said");
                    }
                    Ok(Message::Close(Some(said))) => break said.reason.to_string(),
                    Ok(_) => {}
                    Err(error) => break error.to_string(),
                }
            };
            if tell.send(told).is_err() {
                return;
            }
        }
    });
    (url, heard)
}

/// Where a case plays.
struct Stage<'a> {
    world: &'a World,
    /// A document that nobody else writes.
    document: DocumentId,
    nonce: [u8; 32],
}

impl Stage<'_> {
    /// A socket to the mesh of the process.
    fn connect(&self, protocol: &'static str) -> Result<WebSocket<TcpStream>, Error> {
        let url = format!("ws://{}/mesh", self.world.region("eu").address());
        let end = Instant::now() + PATIENCE;
        loop {
            let address = self.world.region("eu").address();
            let stream = TcpStream::connect(address).expect("the process listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is not zero");
            stream.set_nodelay(true).expect("sockets have this option");
            let mut request = url.as_str().into_client_request().expect("a URL");
            request.headers_mut().insert(SUB_PROTOCOL, HeaderValue::from_static(protocol));
            match client(request, stream) {
                Ok((socket, _)) => return Ok(socket),
                // Others prove themselves at the moment, and there is room for few.
                Err(HandshakeError::Failure(Error::Http(answer)))
                    if answer.status() == 503 && Instant::now() < end =>
                {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(HandshakeError::Failure(error)) => return Err(error),
                Err(HandshakeError::Interrupted(_)) => panic!("the process does not answer"),
            }
        }
    }

    /// Goes through the handshake; or gives the reason for which it is refused.
    fn shake(&self, mut handshake: Handshake) -> Result<(WebSocket<TcpStream>, Agreed), String> {
        let mut socket = self.connect(PROTOCOL).expect("the version is right");
        let first = handshake.first().expect("who dials begins");
        socket.send(Message::binary(first)).expect("it can be said");
        loop {
            let frame = heard(&mut socket)?;
            let step = handshake.handle(&frame).expect("the process is honest");
            if let Some(answer) = step.send {
                socket.send(Message::binary(answer)).expect("it can be said");
            }
            if let Some(agreed) = step.agreed {
                return Ok((socket, agreed));
            }
        }
    }

    /// Proves the key and says a name that no honest region would say here, all by hand; gives the
    /// reason for which it is refused.
    fn claims(&self, name: &str) -> String {
        let mut socket = self.connect(PROTOCOL).expect("the version is right");
        let (live, role) = (0, b"tributary mesh dialler".as_slice());
        let version = [VERSION, live];
        let say = |socket: &mut WebSocket<TcpStream>, kind, parts: &[&[u8]]| {
            let frame = [&[VERSION, kind], parts.concat().as_slice()].concat();
            socket.send(Message::binary(frame)).expect("it can be said");
            heard(socket)
        };
        let challenge = say(&mut socket, 1, &[&[live], &self.nonce]).expect("a challenge");
        let nonces: [&[u8]; 3] = [&version, &self.nonce, &challenge[2..]];
        let proof = code(KEY.as_bytes(), &[&[role], &nonces[..]].concat());
        say(&mut socket, 3, &[&proof]).expect("a welcome");
        let socket_key =
            code(KEY.as_bytes(), &[&[b"tributary mesh socket".as_slice()], &nonces[..]].concat());
        let short = |text: &[u8]| [&[text.len() as u8], text].concat();
        let name =
            [short(name.as_bytes()), 1_u64.to_le_bytes().to_vec(), short(b"a store")].concat();
        let signed = code(&socket_key, &[role, &name]);
        say(&mut socket, 5, &[&short(&name), &signed]).expect_err("it is not to be let in")
    }

    /// Says one thing instead of a hello, or nothing; gives the reason for which it is refused.
    fn says_at_once(&self, said: Option<Vec<u8>>) -> String {
        let mut socket = self.connect(PROTOCOL).expect("the version is right");
        if let Some(said) = said {
            socket.send(Message::binary(said)).expect("it can be said");
        }
        heard(&mut socket).expect_err("it is not to be let in")
    }

    /// Comes in with the right key.
    fn enter(&self, name: &str) -> Peer {
        let me = me(name);
        let handshake = Handshake::dial(&me, &key(KEY), Lane::Live, self.nonce);
        let (socket, agreed) = self.shake(handshake).expect("it has the key");
        let sender = Origin { region: me.region, epoch: me.epoch };
        let receiver = Origin { region: agreed.region, epoch: agreed.epoch };
        Peer { socket, ends: Ends { sender, receiver }, encoder: Encoder::new() }
    }

    /// Changes of one actor in the document, one after the other, of which nothing compresses.
    fn entries(&self, count: i64) -> Vec<Entry> {
        let mut doc = AutoCommit::new().with_actor(ActorId::from(&self.nonce[..16]));
        (0..count)
            .map(|n| {
                doc.put(ROOT, "n", noise(n as u64, 64)).expect("maps take bytes");
                last_change(&mut doc, &self.document)
            })
            .collect()
    }
}

/// A hostile region with a socket that has proved to know the key.
struct Peer {
    socket: WebSocket<TcpStream>,
    ends: Ends,
    encoder: Encoder,
}

impl Peer {
    /// Its log for a document.
    fn log(&self, document: &DocumentId) -> LogId {
        LogId { origin: self.ends.sender.clone(), stream: document.stream() }
    }

    /// Says what it holds, and hears what the process holds: the link is up.
    fn opens_with(&mut self, rows: Vec<Row>) {
        self.say(&Frame::Vector(rows));
        self.hears("a vector", |frame| matches!(frame, Frame::Vector(_)));
    }

    fn say(&mut self, frame: &Frame) {
        self.says(frame.encode(&self.ends));
    }

    fn says(&mut self, bytes: Vec<u8>) {
        self.socket.send(Message::binary(bytes)).expect("it can be said");
    }

    fn batch(&mut self, first: u64, entries: &[Entry]) -> Vec<u8> {
        let log = self.log(&entries[0].document);
        self.encoder.encode(&[Group { log, first, entries }]).bytes
    }

    fn sends(&mut self, first: u64, entries: &[Entry]) {
        let batch = self.batch(first, entries);
        self.say(&Frame::Entries(batch));
    }

    /// The process asks for what it could not read, and gets the promise of a new beginning.
    fn is_asked_again(&mut self) {
        self.hears("to be asked again", |frame| matches!(frame, Frame::Resend { .. }));
        self.encoder.restart();
        self.say(&Frame::Anew { generation: self.encoder.generation() });
    }

    fn hears(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) {
        let (sender, receiver) = (self.ends.receiver.clone(), self.ends.sender.clone());
        let ends = Ends { sender, receiver };
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let bytes = heard(&mut self.socket).unwrap_or_else(|why| panic!("not {what}: {why}"));
            if wanted(&Frame::decode(&bytes, &ends).expect("the process speaks well")) {
                return;
            }
        }
        panic!("it does not hear {what}")
    }

    /// Hears out what the process has to say; gives the reason for which it closes.
    fn told(mut self) -> String {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Err(reason) = heard(&mut self.socket) {
                return reason;
            }
        }
        panic!("it is not closed")
    }
}

/// The next frame, or the reason for which the socket is closed.
fn heard(socket: &mut WebSocket<TcpStream>) -> Result<Vec<u8>, String> {
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) => return Ok(bytes.into()),
            Ok(Message::Close(Some(said))) => return Err(said.reason.to_string()),
            Ok(Message::Close(None)) => return Err("closed without a reason".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(format!("lost without a reason: {error}")),
        }
    }
}

/// Turns a bit in what is compressed.
fn garble(batch: &mut [u8]) {
    let last = batch.len() - 20;
    batch[last] ^= 0x10;
}

fn me(name: &str) -> Me {
    let storage = StorageId::new(&format!("store of {name}")).expect("a short name");
    Me { region: region(name), epoch: 4_711, storage }
}

fn region(name: &str) -> RegionName {
    RegionName::new(name).expect("a region's name")
}

fn key(secret: &str) -> Key {
    secret.parse().expect("it is long enough")
}

/// As both sides of a handshake make it.
fn code(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

fn document(n: u8) -> DocumentId {
    DocumentId::from_bytes(&[n; 16]).expect("16 bytes")
}

fn last_change(doc: &mut AutoCommit, document: &DocumentId) -> Entry {
    let change = doc.get_last_local_change().expect("something was changed");
    let change = read_change(change.raw_bytes()).expect("Automerge makes good changes");
    Entry { document: document.clone(), item: Item::Change(change) }
}

/// Bytes that do not compress, the same in every run.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}
