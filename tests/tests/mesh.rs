//! Several regions as real processes, with wires between them that a test can cut, stall and heal.
//!
//! The same with stock JavaScript clients is in `interop/stories/regions*.test.js`.

#[path = "support/regions.rs"]
mod regions;
mod support;
#[path = "support/tls.rs"]
mod tls;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use model::DocumentId;
use regions::{KEY, Other, Region, World, http, until, until_within};
use serde_json::Value;
use support::Client;
use tls::Authority;
use tributary_tests::run;

/// A half-open link is to be found within this.
const SILENCE_MAX: Duration = Duration::from_secs(10);
const THREE: [&str; 3] = ["eu", "us", "ap"];

fn document(n: u8) -> DocumentId {
    DocumentId::from_bytes(&[n; 16]).expect("16 bytes")
}

/// A client in a region, with everything that is there.
fn client(world: &World, region: &str, n: u8) -> Client {
    let mut client = Client::join(world.region(region).server(), "client", &document(n));
    client.pull();
    client
}

/// Writes through one region, and waits until the others have it: that the links work.
fn crosses(world: &World, from: &str, to: &[&str], n: u8) {
    let mut writer = client(world, from, n);
    writer.put("crosses", 1);
    writer.acknowledged();
    for region in to {
        client(world, region, n).reads("crosses", 1);
    }
}

#[test]
fn what_is_written_in_any_region_is_read_in_every_other() {
    let world = World::start(&THREE);
    let mut clients = THREE.map(|region| client(&world, region, 1));
    for (n, key) in (0..).zip(THREE) {
        clients[n as usize].put(key, n);
    }
    // A client that is not read from does not answer when it is asked for what it has written.
    for client in &mut clients {
        client.acknowledged();
    }
    for client in &mut clients {
        for (n, key) in (0..).zip(THREE) {
            client.reads(key, n);
        }
    }
    world.level();
    let text = http(world.region("eu").address(), "/metrics");
    assert!(text.contains("tributary_link_up{region=\"us\"} 1"), "{text}");
}

#[test]
fn a_region_that_is_cut_off_goes_on_and_all_agree_when_it_is_back() {
    let world = World::start(&THREE);
    let mut clients = THREE.map(|region| client(&world, region, 1));
    world.cut_off("eu");
    until("both sides to notice", || {
        !world.region("eu").reaches("us") && !world.region("us").reaches("eu")
    });
    for n in 0..50 {
        for (client, region) in clients.iter_mut().zip(THREE) {
            client.put(&format!("{region} {n}"), n);
            client.acknowledged();
        }
    }
    // The two that still see each other go on as if nothing were.
    clients[1].reads("ap 49", 49);
    clients[2].reads("us 49", 49);
    assert_eq!(clients[1].get("eu 0"), None);
    world.heal("eu");
    for client in &mut clients {
        for region in THREE {
            client.reads(&format!("{region} 49"), 49);
        }
    }
    world.linked();
    world.level();
}

#[test]
fn a_region_knows_which_others_hold_what_was_written_through_it() {
    let world = World::start(&THREE);
    let replication = |region: &str| {
        let path = format!("/v1/documents/{}/replication", document(1));
        let answer = http(world.region(region).address(), &path);
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer has a body");
        serde_json::from_str::<Value>(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    };
    let durable = |told: &Value, other: &str| {
        let regions = told["regions"].as_array().expect("a list");
        regions.iter().find(|it| it["region"] == other).expect("a link")["durable"].clone()
    };
    let mut writer = client(&world, "eu", 1);
    writer.put("one", 1);
    writer.acknowledged();
    until("both to hold it", || {
        let told = replication("eu");
        ["us", "ap"].iter().all(|other| durable(&told, other) == true)
    });
    // What is written while one is away is durable in the other only.
    world.cut_off("ap");
    writer.put("two", 2);
    writer.acknowledged();
    until("the one that is there to hold it", || durable(&replication("eu"), "us") == true);
    let told = replication("eu");
    assert_eq!(durable(&told, "ap"), false, "{told}");
    assert_eq!(told["written_here"]["sequence"], 2, "{told}");
    // Nothing was written through this one, so it promises nothing.
    let other = replication("us");
    assert_eq!((&other["written_here"], durable(&other, "eu")), (&Value::Null, Value::Null));
    world.heal("ap");
    until("the one that was away to hold it", || durable(&replication("eu"), "ap") == true);
}

#[test]
fn what_a_killed_region_had_acknowledged_reaches_the_others_when_it_is_back() {
    let mut world = World::start(&THREE);
    world.cut_off("us");
    let mut writer = client(&world, "us", 1);
    for n in 0..20 {
        writer.put(&format!("us {n}"), n);
    }
    writer.acknowledged();
    world.region_mut("us").kill();
    world.heal("us");
    let mut other = client(&world, "eu", 1);
    other.put("eu", 7);
    other.acknowledged();
    world.region_mut("us").start_again();
    other.reads("us 19", 19);
    client(&world, "us", 1).reads("eu", 7);
    client(&world, "ap", 1).reads("us 19", 19);
    world.level();
}

#[test]
fn a_region_that_is_stopped_in_order_has_handed_over_everything() {
    let mut world = World::start(&["eu", "us"]);
    let mut writer = client(&world, "eu", 1);
    for n in 0..200 {
        writer.put(&format!("{n}"), n);
    }
    writer.acknowledged();
    world.region_mut("eu").stop();
    let mut reader = client(&world, "us", 1);
    reader.reads("199", 199);
    world.region("us").says(&["the other side closed", "stops"]);
}

#[test]
fn two_regions_whose_link_is_cut_hear_each_other_through_the_third() {
    let world = World::start(&THREE);
    let wire = world.wire("eu", "us");
    wire.cut();
    wire.reset();
    until("both to notice", || {
        !world.region("eu").reaches("us") && !world.region("us").reaches("eu")
    });
    crosses(&world, "eu", &["us"], 1);
    crosses(&world, "us", &["eu"], 2);
    wire.heal();
    world.linked();
    world.level();
}

#[test]
fn a_link_that_is_open_and_dead_is_found_within_ten_seconds_and_mended() {
    let world = World::start(&["eu", "us"]);
    world.wire("eu", "us").stall();
    for region in ["eu", "us"] {
        let other = if region == "eu" { "us" } else { "eu" };
        let gone = || !world.region(region).reaches(other);
        until_within(SILENCE_MAX, "the silence to be noticed", gone);
        world.region(region).says(&["we closed", "nothing was heard"]);
    }
    // Clients never noticed.
    crosses(&world, "eu", &[], 1);
    world.wire("eu", "us").heal();
    world.linked();
    crosses(&world, "us", &["eu"], 1);
}

#[test]
fn two_regions_that_dial_each_other_keep_one_socket_for_each_lane() {
    let mut world = World::unlinked();
    world.add(Region::start("eu", KEY, &[Other::dials("us")], ""));
    let us = Region::start("us", KEY, &world.wires_to("us", &["eu"]), "");
    // The address is known only now, so the first one starts again with it.
    let address = format!("ws://{}", us.address());
    world.add(us);
    let eu = world.region_mut("eu");
    eu.stop();
    let config = eu.path("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("url = ''", &format!("url = '{address}'"))).unwrap();
    eu.start_again();
    world.linked();
    for (region, other) in [("eu", "us"), ("us", "eu")] {
        until("one socket for each lane", || {
            let link = world.region(region).link(other).unwrap();
            link["live"]["sockets"] == 1 && link["bulk"]["sockets"] == 1
        });
    }
    crosses(&world, "eu", &["us"], 1);
    assert!(!world.region("eu").server().log().contains("WARN we closed"));
}

#[test]
fn a_region_that_only_the_other_side_has_declared_is_linked() {
    let mut world = World::unlinked();
    world.add(Region::start("eu", KEY, &[], ""));
    let wires = world.wires_to("us", &["eu"]);
    world.add(Region::start("us", KEY, &wires, ""));
    world.linked();
    crosses(&world, "eu", &["us"], 1);
    crosses(&world, "us", &["eu"], 2);
}

#[test]
fn a_region_with_another_key_is_refused_and_both_logs_say_why() {
    let world = World::start(&["eu", "us"]);
    let url = format!("ws://{}", world.region("eu").address());
    let other = "a secret that no other region has";
    let stranger = Region::start("ap", other, &[Other::dialled("eu", &url)], "");
    stranger.says(&["not reached", "key"]);
    world.region("eu").says(&["refused", "key"]);
    assert!(!stranger.reaches("eu"));
    assert!(stranger.link("eu").unwrap()["last_error"].as_str().unwrap().contains("key"));
    for log in [stranger.server().log(), world.region("eu").server().log()] {
        assert!(!log.contains(KEY) && !log.contains(other), "{log}");
    }
    crosses(&world, "eu", &["us"], 1);
}

#[test]
fn a_second_region_of_the_same_name_is_refused_and_both_logs_say_so() {
    let world = World::start(&["eu", "us"]);
    let url = format!("ws://{}", world.region("eu").address());
    let second = Region::start("us", KEY, &[Other::dialled("eu", &url)], "");
    second.says(&["us", "taken"]);
    world.region("eu").says(&["us", "taken"]);
    world.linked();
    crosses(&world, "us", &["eu"], 1);
}

#[test]
fn a_copy_of_a_regions_disk_is_refused_while_that_runs_and_takes_its_place_when_it_is_gone() {
    let mut world = World::start(&["eu", "us"]);
    let write = |region: &Region, n: u8, key: &str| {
        let mut writer = Client::join(region.server(), key, &document(n));
        writer.pull();
        writer.put(key, 1);
        writer.acknowledged();
    };
    write(world.region("us"), 1, "before");
    write(world.region("us"), 2, "before");
    world.level();
    world.region_mut("us").stop();
    let mut copy = world.region("us").copy();
    world.region_mut("us").start_again();
    world.linked();
    write(world.region("us"), 1, "after");

    // The copy has the same name, the same store and the same links.
    copy.start_again();
    copy.says(&["region=eu", "the region name us is taken"]);
    world.region("eu").says(&["we closed", "region=us", "the region name us is taken"]);
    // It is alone, and like every region that is alone it serves its clients; the other is not disturbed.
    write(&copy, 1, "in the copy");
    write(&copy, 3, "in the copy");
    write(world.region("us"), 2, "after");
    world.level();
    crosses(&world, "eu", &["us"], 4);
    assert!(!copy.reaches("eu"));
    let closes = world.region("eu").link("us").unwrap()["closes"].clone();
    assert!(closes["taken"].as_u64() >= Some(1), "{closes}");

    // Its place is free: what it lacks comes, what only it has goes, and nobody does anything for it.
    world.region_mut("us").kill();
    until("the copy to be linked", || copy.reaches("eu") && world.region("eu").reaches("us"));
    let heads = |region: &Region| {
        [1, 2, 3, 4].map(|n| {
            let mut reader = Client::join(region.server(), "reader", &document(n));
            reader.pull();
            reader.doc.get_heads()
        })
    };
    until("both to serve the same", || heads(&copy) == heads(world.region("eu")));
    for (n, key) in
        [(1, "before"), (1, "after"), (1, "in the copy"), (2, "after"), (3, "in the copy")]
    {
        for region in [&copy, world.region("eu")] {
            let mut reader = Client::join(region.server(), "reader", &document(n));
            reader.pull();
            assert_eq!(reader.get(key), Some(1), "document {n}, {key}");
        }
    }
    write(&copy, 5, "in its place");
    client(&world, "eu", 5).reads("in its place", 1);
    copy.stop();
    let output = run(&["verify", "--data", copy.data().to_str().unwrap()], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_region_that_dials_one_of_its_own_name_is_told_that_it_is_taken() {
    let first = Region::start("eu", KEY, &[], "");
    let url = format!("ws://{}", first.address());
    let second = Region::start("eu", KEY, &[Other::dialled("us", &url)], "");
    second.says(&["eu", "taken"]);
    first.says(&["refused", "eu", "taken"]);
}

#[test]
fn a_region_that_is_called_otherwise_than_expected_is_refused_and_both_logs_name_both() {
    let world = World::start(&["eu", "us"]);
    let url = format!("ws://{}", world.region("eu").address());
    let lost = Region::start("ap", KEY, &[Other::dialled("us", &url)], "");
    lost.says(&["not reached", "'eu'", "'us'"]);
    world.region("eu").says(&["'eu'", "'us'"]);
    crosses(&world, "eu", &["us"], 1);
}

#[test]
fn regions_are_linked_through_tls_with_a_certificate_authority_of_their_own() {
    let mut world = World::unlinked();
    world.add(Region::start("eu", KEY, &[Other::dials("us")], ""));
    let authority = Authority::new("trusted");
    let front = world.tls_front(&authority, "localhost", "eu");
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("ca.pem");
    authority.write(&trusted);
    let eu = [Other::dialled("eu", &format!("wss://localhost:{}", front.port()))];
    world.add(Region::start("us", KEY, &eu, &format!("mesh.ca_file = {trusted:?}")));
    world.linked();
    crosses(&world, "eu", &["us"], 1);

    // Whoever trusts somebody else, or expects another name, is not linked, and says why.
    Authority::new("stranger").write(&folder.path().join("other.pem"));
    let other = format!("mesh.ca_file = {:?}", folder.path().join("other.pem"));
    let stranger = Region::start("ap", KEY, &eu, &other);
    stranger.says(&["not reached", "no TLS", "UnknownIssuer", "mesh.ca_file"]);
    let misnamed = world.tls_front(&authority, "elsewhere.test", "eu");
    let eu = [Other::dialled("eu", &format!("wss://localhost:{}", misnamed.port()))];
    let lost = Region::start("sa", KEY, &eu, &format!("mesh.ca_file = {trusted:?}"));
    lost.says(&["not reached", "no TLS", "not valid for name"]);
}

#[test]
fn certificates_that_cannot_be_read_stop_the_start() {
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("config.toml");
    let (key, empty) = (data.path().join("key"), data.path().join("empty.pem"));
    fs::write(&key, KEY).unwrap();
    fs::write(&empty, "nothing").unwrap();
    for file in [&empty, &data.path().join("missing.pem")] {
        fs::write(&config, format!("mesh.key_file = {key:?}\nmesh.ca_file = {file:?}\n")).unwrap();
        let store = data.path().join("data");
        let (config, store) = (config.to_str().unwrap(), store.to_str().unwrap());
        let args = ["serve", "--listen", "127.0.0.1:0", "--config", config, "--data", store];
        let output = run(&args, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("mesh.ca_file"), "{said}");
    }
}

#[test]
fn another_version_of_the_protocol_is_refused_by_name() {
    let region = Region::start("eu", KEY, &[], "");
    let answer = upgrade(&region, "tributary-mesh.99");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("tributary-mesh.3") && answer.contains("tributary-mesh.99"));
    region.says(&["refused", "tributary-mesh.99"]);
}

#[test]
fn a_region_without_a_key_has_no_mesh_and_says_so() {
    let data = tempfile::tempdir().unwrap();
    let server = tributary_tests::Server::start(data.path(), &[]);
    assert!(http(server.address(), "/mesh").starts_with("HTTP/1.0 404"));
    let mesh = http(server.address(), "/v1/mesh");
    assert!(mesh.ends_with(r#""links":[],"refused":{}}"#), "{mesh}");
}

#[test]
fn only_few_connections_may_be_without_a_proof_and_none_for_long() {
    let region = Region::start("eu", KEY, &[], "");
    let ask = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(tributary_tests::PATIENCE)).unwrap();
        stream.write_all(request(&region, "tributary-mesh.3").as_bytes()).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        String::from_utf8_lossy(&head).into_owned()
    };
    let mut silent: Vec<_> =
        (0..16).map(|_| TcpStream::connect(region.address()).unwrap()).collect();
    for stream in &mut silent {
        assert_eq!(ask(stream), "HTTP/1.1 101");
    }
    let mut one_more = TcpStream::connect(region.address()).unwrap();
    assert_eq!(ask(&mut one_more), "HTTP/1.1 503");
    // Their time ends, with a reason, and there is room for others.
    for stream in &mut silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(String::from_utf8_lossy(&rest).contains("no proof of the key within 5 s"));
    }
    let mut later = TcpStream::connect(region.address()).unwrap();
    assert_eq!(ask(&mut later), "HTTP/1.1 101");
}

#[test]
fn whoever_says_much_before_the_proof_is_cut_off() {
    let region = Region::start("eu", KEY, &[], "");
    let mut stream = TcpStream::connect(region.address()).unwrap();
    stream.write_all(request(&region, "tributary-mesh.3").as_bytes()).unwrap();
    // The head of a frame of 32 MiB, and then more of it than anybody needs for a proof.
    stream.write_all(&[0x82, 0xff, 0, 0, 0, 0, 2, 0, 0, 0, 1, 2, 3, 4]).unwrap();
    let mut sent = 0;
    while sent < 32 << 20 {
        match stream.write(&[7; 4096]) {
            Ok(bytes) => sent += bytes,
            Err(_) => break,
        }
    }
    assert!(sent < 8 << 20, "{sent} bytes were taken in");
    until("the refusal to be counted", || {
        let refused = region.mesh()["refused"].clone();
        refused.as_object().is_some_and(|reasons| !reasons.is_empty())
    });
}

#[test]
fn a_region_that_was_wiped_gets_everything_back() {
    let mut world = World::start(&THREE);
    for n in 1..4 {
        crosses(&world, THREE[usize::from(n) - 1], &THREE, n);
    }
    let region = world.region_mut("eu");
    region.kill();
    fs::remove_dir_all(region.data()).unwrap();
    region.start_again();
    for n in 1..4 {
        client(&world, "eu", n).reads("crosses", 1);
    }
    crosses(&world, "eu", &["us", "ap"], 9);
    world.level();
}

#[test]
fn a_fourth_region_gets_everything_there_is() {
    let mut world = World::start(&["eu", "us"]);
    for n in 1..20 {
        crosses(&world, "eu", &[], n);
    }
    let wires = world.wires_to("sa", &["eu", "us"]);
    world.add(Region::start("sa", KEY, &wires, ""));
    for n in 1..20 {
        client(&world, "sa", n).reads("crosses", 1);
    }
    crosses(&world, "sa", &["eu", "us"], 77);
}

#[test]
fn links_without_a_key_or_with_nonsense_in_them_do_not_start() {
    let data = tempfile::tempdir().unwrap();
    let key = data.path().join("key");
    fs::write(&key, "short").unwrap();
    let missing = data.path().join("missing");
    let (key, missing) = (key.to_str().unwrap(), missing.to_str().unwrap());
    let listen = ["serve", "--listen", "127.0.0.1:0", "--data"];
    let store = data.path().join("data");
    for (args, named) in [
        (vec!["--link", "us=ws://127.0.0.1:1"], "mesh.key_file"),
        (vec!["--link", "us=ws://127.0.0.1:1", "--mesh-key-file", missing], "mesh.key_file"),
        (vec!["--link", "us=ws://127.0.0.1:1", "--mesh-key-file", key], "mesh.key_file"),
        (vec!["--link", "us=ftp://127.0.0.1:1", "--mesh-key-file", key], "link.url"),
        (vec!["--link", "local=ws://127.0.0.1:1", "--mesh-key-file", key], "link.name"),
        (vec!["--link", "us"], "--link"),
    ] {
        let mut all = listen.to_vec();
        all.push(store.to_str().unwrap());
        all.extend(args);
        let output = run(&all, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{all:?}: {said}");
        assert!(said.contains(named), "{all:?}: {said}");
    }
}

#[test]
fn the_links_command_prints_one_line_for_each_link() {
    let world = World::start(&THREE);
    let url = format!("http://{}", world.region("us").address());
    let output = run(&["links", "--url", &url], &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "region us");
    assert!(lines[1].starts_with("REGION"));
    assert!(lines[2].starts_with("ap ") && lines[3].starts_with("eu "), "{said}");
    assert!(lines[2..].iter().all(|line| line.contains(" up ")), "{said}");

    let output = run(&["links", "--url", "http://127.0.0.1:1"], &[]);
    assert_eq!(output.status.code(), Some(1));
}

/// A request for the mesh's WebSocket, in a version.
fn request(region: &Region, protocol: &str) -> String {
    format!(
        "GET /mesh HTTP/1.1\r\nHost: {}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\n\r\n",
        region.address()
    )
}

/// The answer to such a request that is refused.
fn upgrade(region: &Region, protocol: &str) -> String {
    let mut stream = TcpStream::connect(region.address()).unwrap();
    let request =
        request(region, protocol).replace("upgrade\r\nUpgrade", "upgrade, close\r\nUpgrade");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
