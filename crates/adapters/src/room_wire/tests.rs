//! Stored records stay readable for ever: each kind of input beside its bytes.

use super::*;
use boxoffice_domain::waiting::{Health, Lane, LaneTerms, PlaceClaim, RoomTerms, Stock};
use boxoffice_domain::{Admission, AdmissionMode, PerInterval, Timestamp};
use chrono::{DateTime, TimeDelta};
use std::collections::BTreeSet;
use uuid::Uuid;

fn id<T: From<Uuid>>(n: u8) -> T {
    Uuid::from_bytes([n; 16]).into()
}

fn at(us: i64) -> Timestamp {
    DateTime::UNIX_EPOCH + TimeDelta::microseconds(us)
}

/// The number of a variant. A new variant does not compile until it has a number here, and then fails until it has bytes
/// below.
fn kind(input: &RoomInput) -> usize {
    match input {
        RoomInput::Open(_) => 0,
        RoomInput::Join { .. } => 1,
        RoomInput::Leave { .. } => 2,
        RoomInput::Finish { .. } => 3,
        RoomInput::Extend { .. } => 4,
        RoomInput::Tick(_) => 5,
        RoomInput::Admit { .. } => 6,
        RoomInput::Connect { .. } => 7,
        RoomInput::Disconnect { .. } => 8,
        RoomInput::Seen { .. } => 9,
        RoomInput::Report { .. } => 10,
        RoomInput::Restore(_) => 11,
        RoomInput::Reserve { .. } => 12,
        RoomInput::Reveal { .. } => 13,
        RoomInput::Appear { .. } => 14,
        RoomInput::Lengthen { .. } => 15,
    }
}
const KINDS: usize = 16;

fn plain() -> Admission {
    Admission { mode: AdmissionMode::Running, max_active: 100, per_interval: None, auto: false, adaptive: false }
}

fn own() -> Admission {
    Admission {
        mode: AdmissionMode::Draining,
        max_active: 300,
        per_interval: Some(PerInterval { count: 5, seconds: 60 }),
        auto: true,
        adaptive: false,
    }
}

fn terms() -> RoomTerms {
    RoomTerms {
        sale_starts_at: Some(at(1)),
        admission: own(),
        active_ttl_s: 600,
        extensions_max: 2,
        grace_s: 30,
        waiting_grace_s: 120,
        p99_target_ms: 250,
        lanes: vec![LaneTerms { name: "fans".to_owned(), share: 200 }],
        commitment: Some([0xC0; 32]),
    }
}

fn written() -> Vec<(RoomInput, &'static str)> {
    let claim = PlaceClaim { entry: id(3), user: id(2), lane: Lane(1), place: 300, active_until: Some(at(7)) };
    let bare = RoomTerms { sale_starts_at: None, admission: plain(), lanes: Vec::new(), commitment: None, ..terms() };
    vec![
        (
            RoomInput::Open(terms()),
            "010100010202ac0201053c0100d804021e78fa01010466616e73c80101c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0",
        ),
        (RoomInput::Open(bare), "010100000064000000d804021e78fa010000"),
        (
            RoomInput::Join { user: id(2), entry: id(3), lane: Lane(4) },
            "0101011002020202020202020202020202020202100303030303030303030303030303030304",
        ),
        (RoomInput::Leave { entry: id(3) }, "0101021003030303030303030303030303030303"),
        (RoomInput::Finish { user: id(2), paid_at: at(-2) }, "010103100202020202020202020202020202020203"),
        (RoomInput::Extend { entry: id(3) }, "0101041003030303030303030303030303030303"),
        (RoomInput::Tick(Stock { obtainable: 300, linked: true }), "010105ac0201"),
        (
            RoomInput::Admit { admission: Admission { mode: AdmissionMode::Paused, adaptive: true, ..plain() }, version: 9 },
            "010106016400000112",
        ),
        (
            RoomInput::Connect { instance: id(5), entries: vec![id(3), id(4)] },
            "01010710050505050505050505050505050505050210030303030303030303030303030303031004040404040404040404040404040404",
        ),
        (
            RoomInput::Disconnect { instance: id(5), entries: vec![id(3)] },
            "0101081005050505050505050505050505050505011003030303030303030303030303030303",
        ),
        (RoomInput::Seen { entries: vec![id(3)] }, "010109011003030303030303030303030303030303"),
        (
            RoomInput::Report { instance: id(5), health: Some(Health { p99_ms: 300, errors_permille: 7, samples: 70_000 }) },
            "01010a100505050505050505050505050505050501ac0207f0a204",
        ),
        (RoomInput::Report { instance: id(5), health: None }, "01010a100505050505050505050505050505050500"),
        (RoomInput::Restore(claim), "01010b1003030303030303030303030303030303100202020202020202020202020202020201ac02010e"),
        (
            RoomInput::Restore(PlaceClaim { active_until: None, place: 0, ..claim }),
            "01010b10030303030303030303030303030303031002020202020202020202020202020202010000",
        ),
        (RoomInput::Reserve { to: 70_000 }, "01010cf0a204"),
        (
            RoomInput::Reveal { seed: [0x5E; 32], beacon: Some("b".to_owned()) },
            "01010d5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e010162",
        ),
        (RoomInput::Reveal { seed: [0x5E; 32], beacon: None }, "01010d5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e00"),
        (RoomInput::Appear { instance: id(5) }, "01010e1005050505050505050505050505050505"),
        (RoomInput::Lengthen { entry: id(3), until: at(7) }, "01010f10030303030303030303030303030303030e"),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

#[test]
fn every_kind_keeps_its_bytes_and_is_read_back() {
    let mut kinds = BTreeSet::new();
    for (input, wanted) in written() {
        kinds.insert(kind(&input));
        let inputs = std::slice::from_ref(&input);
        assert_eq!(hex(&encode(inputs).expect("bytes")), wanted, "{input:?}");
        assert_eq!(decode(&bytes(wanted)).expect("inputs"), inputs, "{wanted}");
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), (0..KINDS).collect::<Vec<_>>(), "none is left out");
}

#[test]
fn several_inputs_are_encoded_one_after_the_other() {
    let all: Vec<RoomInput> = written().into_iter().map(|(input, _)| input).collect();
    assert_eq!(decode(&encode(&all).expect("bytes")).expect("inputs"), all);
    assert_eq!(decode(&encode(&[]).expect("bytes")).expect("inputs"), []);
}

#[test]
fn malformed_records_are_refused() {
    let good = encode(&[RoomInput::Leave { entry: id(3) }]).expect("bytes");
    let mut longer = good.clone();
    longer.push(0);
    let mut newer = good.clone();
    newer[0] = VERSION + 1;
    let unknown = [VERSION, 1, KINDS as u8];
    for bad in [&[], &good[..good.len() - 1], &longer, &newer, &unknown, &[VERSION]] {
        assert!(matches!(decode(bad), Err(RoomLogError::Broken(_))), "{}", hex(bad));
    }
}
