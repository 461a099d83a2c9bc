use super::*;

fn me(region: &str, epoch: u64) -> Me {
    Me {
        region: RegionName::new(region).unwrap(),
        epoch,
        storage: StorageId::new(&format!("the store of {region}")).unwrap(),
    }
}

fn key() -> Key {
    "  sixteen bytes or more\n".parse().unwrap()
}

fn dialler() -> Handshake {
    Handshake::dial(&me("here", 1), &key(), Lane::Bulk, [7; 32])
}

fn acceptor(key: &Key) -> Handshake {
    Handshake::accept(&me("there", 2), key, [9; 32])
}

type Outcome = Result<Option<Agreed>, HandshakeError>;

/// Carries frames between the two until one has what it wants, or something is wrong.
fn meet(dialler: &mut Handshake, acceptor: &mut Handshake) -> (Outcome, Outcome, Vec<Vec<u8>>) {
    let (mut said, mut frame) = (Vec::new(), dialler.first());
    let (mut by_dialler, mut by_acceptor) = (Ok(None), Ok(None));
    let mut to_acceptor = true;
    while let Some(bytes) = frame.take() {
        let side = if to_acceptor { &mut *acceptor } else { &mut *dialler };
        let heard = side.handle(&bytes);
        said.push(bytes);
        let outcome = heard.map(|step| {
            frame = step.send;
            step.agreed
        });
        if !matches!(outcome, Ok(None)) {
            *(if to_acceptor { &mut by_acceptor } else { &mut by_dialler }) = outcome;
        }
        to_acceptor = !to_acceptor;
    }
    (by_dialler, by_acceptor, said)
}

#[test]
fn two_regions_with_the_same_key_learn_who_the_other_one_is() {
    let (here, there, said) = meet(&mut dialler(), &mut acceptor(&key()));
    let there_is = |me: Me| Agreed {
        region: me.region,
        epoch: me.epoch,
        storage: me.storage,
        lane: Lane::Bulk,
    };
    assert_eq!(here, Ok(Some(there_is(me("there", 2)))));
    assert_eq!(there, Ok(Some(there_is(me("here", 1)))));
    assert!(said.iter().all(|frame| frame.len() <= FRAME_BYTES_MAX));
}

#[test]
fn who_does_not_know_the_key_learns_no_name() {
    let wrong = "another key of a mesh".parse().unwrap();
    let (here, there, said) = meet(&mut dialler(), &mut acceptor(&wrong));
    assert_eq!((here, there), (Ok(None), Err(HandshakeError::WrongKey)));
    for name in ["here", "there"] {
        let frames = said.iter();
        let said = frames.filter(|frame| frame.windows(name.len()).any(|at| at == name.as_bytes()));
        assert_eq!(said.count(), 0, "{name} was said");
    }
}

#[test]
fn an_acceptor_that_does_not_know_the_key_is_found_out_as_well() {
    let mut dialler = dialler();
    let challenge = [&[VERSION, CHALLENGE][..], &[9; 32]].concat();
    dialler.handle(&challenge).unwrap();
    let welcome = [&[VERSION, WELCOME][..], &[0; 32], &[0; 40]].concat();
    assert_eq!(dialler.handle(&welcome), Err(HandshakeError::WrongKey));
}

#[test]
fn another_version_is_named_with_ours() {
    let mut hello = dialler().first().unwrap();
    hello[0] = 9;
    let error = acceptor(&key()).handle(&hello).unwrap_err();
    assert_eq!(error, HandshakeError::Version { ours: VERSION, theirs: 9 });
    assert!(error.to_string().contains("version 9") && error.to_string().contains("version 3"));
    assert_eq!(
        dialler().handle(&[9]),
        Err(HandshakeError::Version { ours: VERSION, theirs: 9 }),
        "whatever a later version says"
    );
}

#[test]
fn a_region_with_our_name_is_refused() {
    let mut same = Handshake::accept(&me("here", 2), &key(), [9; 32]);
    let (here, _, _) = meet(&mut dialler(), &mut same);
    let region = RegionName::new("here").unwrap();
    assert_eq!(here, Err(HandshakeError::NameTaken { region }));
}

#[test]
fn a_handshake_that_was_overheard_is_worth_nothing() {
    let (_, _, said) = meet(&mut dialler(), &mut acceptor(&key()));
    let mut fresh = Handshake::accept(&me("there", 2), &key(), [10; 32]);
    fresh.handle(&said[0]).unwrap();
    assert_eq!(fresh.handle(&said[2]), Err(HandshakeError::WrongKey));

    let mut fresh = Handshake::dial(&me("here", 1), &key(), Lane::Bulk, [8; 32]);
    fresh.handle(&said[1]).unwrap();
    assert_eq!(fresh.handle(&said[3]), Err(HandshakeError::WrongKey));
}

#[test]
fn what_we_said_ourselves_is_no_answer() {
    let hello = dialler().first().unwrap();
    assert_eq!(dialler().handle(&hello), Err(HandshakeError::Malformed));
    let own_nonce = [&[VERSION, CHALLENGE][..], &[7; 32]].concat();
    assert_eq!(dialler().handle(&own_nonce), Err(HandshakeError::Malformed));

    // Our proof as a dialler, held up to us as the welcome of an acceptor.
    let mut dialler = dialler();
    let challenge = [&[VERSION, CHALLENGE][..], &[9; 32]].concat();
    let mut proof = dialler.handle(&challenge).unwrap().send.unwrap();
    proof[1] = WELCOME;
    proof.extend_from_slice(&[0; 40]);
    assert_eq!(dialler.handle(&proof), Err(HandshakeError::WrongKey));
}

#[test]
fn a_proof_for_one_lane_is_none_for_the_other() {
    let (mut dialler, mut acceptor) = (dialler(), acceptor(&key()));
    let mut hello = dialler.first().unwrap();
    assert_eq!(hello[2], 1);
    hello[2] = 0;
    let challenge = acceptor.handle(&hello).unwrap().send.unwrap();
    let proof = dialler.handle(&challenge).unwrap().send.unwrap();
    assert_eq!(acceptor.handle(&proof), Err(HandshakeError::WrongKey));
}

#[test]
fn a_flipped_bit_anywhere_ends_the_handshake() {
    let (_, _, said) = meet(&mut dialler(), &mut acceptor(&key()));
    for (at, frame) in said.iter().enumerate() {
        for bit in 0..frame.len() * 8 {
            let (mut dialler, mut acceptor) = (dialler(), acceptor(&key()));
            let mut sound = true;
            for (turn, honest) in said.iter().enumerate() {
                let mut bytes = honest.clone();
                if turn == at {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
                let side = if turn % 2 == 0 { &mut acceptor } else { &mut dialler };
                sound &= side.handle(&bytes).is_ok();
            }
            assert!(!sound, "bit {bit} of frame {at}");
        }
    }
}

#[test]
fn frames_out_of_turn_and_garbage_are_refused() {
    for frame in [&[][..], &[VERSION], &[VERSION, PROOF], &[VERSION, HELLO, 2], &[VERSION, 99]] {
        assert_eq!(acceptor(&key()).handle(frame), Err(HandshakeError::Malformed));
    }
    let mut hello = dialler().first().unwrap();
    hello.push(0);
    assert_eq!(acceptor(&key()).handle(&hello), Err(HandshakeError::Malformed));
}

#[test]
fn a_key_is_long_enough_and_never_printed() {
    assert_eq!("short\n".parse::<Key>().unwrap_err(), KeyError::TooShort { bytes: 5 });
    assert_eq!(format!("{:?}", key()), "Key");
    assert_eq!(key().salt(), "sixteen bytes or more".parse::<Key>().unwrap().salt());
    assert_ne!(key().salt(), "another key of a mesh".parse::<Key>().unwrap().salt());
}
