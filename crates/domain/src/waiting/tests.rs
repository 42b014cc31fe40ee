//! The waiting room's tests, all through [`Room::apply`]: what each input does, and random days of every kind of input.

mod days;
mod draw;
mod lanes;
mod loss;
mod order;
mod presence;
mod replication;
mod rigging;
mod set_back;
mod turn;

use super::*;
use crate::admission::{INTERVAL_S_MAX, PerInterval};
use crate::draw::Hash32;
use crate::ids::InstanceId;
use crate::{Admission, AdmissionMode, ConcertId, QueueEntryId, Timestamp, UserId};
use chrono::{DateTime, TimeDelta};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

const TTL_S: u32 = 60;
const GRACE_S: u32 = 20;
const WAITING_GRACE_S: u32 = 1_800;
const PLENTY: Stock = Stock { obtainable: 1_000, linked: true };
const NOTHING: Stock = Stock { obtainable: 0, linked: true };
const SEED: Hash32 = [7; 32];

fn at(ms: i64) -> Timestamp {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(ms)
}

fn user(n: u128) -> UserId {
    Uuid::from_u128(0xA000_0000 + n).into()
}

fn entry(n: u128) -> QueueEntryId {
    Uuid::from_u128(0xE000_0000 + n).into()
}

fn instance(n: u128) -> InstanceId {
    Uuid::from_u128(0x1000_0000 + n).into()
}

fn concert() -> ConcertId {
    Uuid::from_u128(0xC0).into()
}

fn admission(max_active: u32, per_interval: Option<(u32, u32)>) -> Admission {
    let per_interval = per_interval.map(|(count, seconds)| PerInterval { count, seconds });
    Admission { mode: AdmissionMode::Running, max_active, per_interval, auto: false, adaptive: false }
}

fn terms(admission: Admission) -> RoomTerms {
    RoomTerms {
        sale_starts_at: None,
        admission,
        active_ttl_s: TTL_S,
        extensions_max: 2,
        grace_s: GRACE_S,
        waiting_grace_s: WAITING_GRACE_S,
        p99_target_ms: 250,
        lanes: Vec::new(),
        commitment: None,
    }
}

/// Terms with a draw of [`SEED`] at `start`.
fn drawn(admission: Admission, start: i64) -> RoomTerms {
    RoomTerms { sale_starts_at: Some(at(start)), commitment: Some(crate::draw::commitment(&SEED)), ..terms(admission) }
}

fn lane(name: &str, share: u16) -> LaneTerms {
    LaneTerms { name: name.to_owned(), share }
}

/// As a log keeps it.
fn by_log(room: &Room) -> Room {
    let bytes = postcard::to_allocvec(&room.state()).unwrap();
    postcard::from_bytes::<RoomState>(&bytes).unwrap().into()
}

/// A room, and all the changes that it has reported.
struct RoomCase {
    room: Room,
    changes: Vec<RoomChange>,
}

impl RoomCase {
    fn new(terms: RoomTerms) -> Self {
        Self { room: Room::new(concert(), terms), changes: Vec::new() }
    }

    /// With entries 1 to `people` of users 1 to `people`, who came in that order.
    fn with(terms: RoomTerms, people: u128) -> Self {
        let mut case = Self::new(terms);
        (1..=people).for_each(|n| assert!(case.join(n, n, 0).new));
        case
    }

    fn apply(&mut self, ms: i64, input: RoomInput) -> RoomOutput {
        self.room.apply(at(ms), &input, &mut self.changes)
    }

    fn join(&mut self, of: u128, fresh: u128, ms: i64) -> Entered {
        self.join_lane(of, fresh, 0, ms)
    }

    fn join_lane(&mut self, of: u128, fresh: u128, lane: u8, ms: i64) -> Entered {
        match self.apply(ms, RoomInput::Join { user: user(of), entry: entry(fresh), lane: Lane(lane) }) {
            RoomOutput::Entered(entered) => entered,
            other => panic!("{other:?}"),
        }
    }

    fn leave(&mut self, n: u128, ms: i64) {
        self.apply(ms, RoomInput::Leave { entry: entry(n) });
    }

    fn finish(&mut self, n: u128, paid_at: i64, ms: i64) {
        self.apply(ms, RoomInput::Finish { user: user(n), paid_at: at(paid_at) });
    }

    fn extend(&mut self, n: u128, ms: i64) -> Extended {
        let until = self.room.place(entry(n), at(ms)).and_then(|place| place.active_until);
        self.extend_from(n, until.unwrap_or_default(), ms)
    }

    fn extend_from(&mut self, n: u128, until: Timestamp, ms: i64) -> Extended {
        match self.apply(ms, RoomInput::Lengthen { entry: entry(n), until }) {
            RoomOutput::Extended(extended) => extended,
            other => panic!("{other:?}"),
        }
    }

    fn ticked(&mut self, ms: i64, stock: Stock) -> Ticked {
        match self.apply(ms, RoomInput::Tick(stock)) {
            RoomOutput::Ticked(ticked) => ticked,
            other => panic!("{other:?}"),
        }
    }

    /// Ticks and returns the promoted entries.
    fn tick(&mut self, ms: i64, stock: Stock) -> Vec<QueueEntryId> {
        let before = self.changes.len();
        let ticked = self.ticked(ms, stock);
        let promoted: Vec<_> = self.changes[before..]
            .iter()
            .filter(|change| change.was == Some(QueueStatus::Waiting) && change.status == QueueStatus::Active)
            .collect();
        assert_eq!(promoted.len() as u64, ticked.promoted);
        promoted.into_iter().map(|change| change.entry).collect()
    }

    fn admit(&mut self, admission: Admission, ms: i64) {
        let version = self.room.admission_version().unwrap_or(0) + 1;
        self.apply(ms, RoomInput::Admit { admission, version });
    }

    fn connect(&mut self, of: u128, entries: &[u128], ms: i64) {
        self.apply(ms, RoomInput::Connect { instance: instance(of), entries: entries.iter().map(|n| entry(*n)).collect() });
    }

    fn disconnect(&mut self, of: u128, entries: &[u128], ms: i64) {
        self.apply(ms, RoomInput::Disconnect { instance: instance(of), entries: entries.iter().map(|n| entry(*n)).collect() });
    }

    fn appear(&mut self, of: u128, ms: i64) {
        self.apply(ms, RoomInput::Appear { instance: instance(of) });
    }

    fn reveal(&mut self, beacon: Option<&str>, ms: i64) {
        self.apply(ms, RoomInput::Reveal { seed: SEED, beacon: beacon.map(str::to_owned) });
    }

    fn restore(&mut self, claim: PlaceClaim, ms: i64) -> Option<Place> {
        let (is_known, may) = (self.room.place(claim.entry, at(ms)).is_some(), self.room.may_restore(&claim, at(ms)));
        match self.apply(ms, RoomInput::Restore(claim)) {
            RoomOutput::Place(place) => {
                assert!(is_known || may || place.is_none(), "it came back although it should not: {claim:?}");
                place
            }
            other => panic!("{other:?}"),
        }
    }

    fn place(&self, n: u128, ms: i64) -> Place {
        self.room.place(entry(n), at(ms)).unwrap()
    }

    fn status(&self, n: u128, ms: i64) -> (QueueStatus, Option<u64>) {
        let place = self.place(n, ms);
        (place.status, place.ahead)
    }
}

/// The claim of a token that is signed now.
fn claim(place: &Place) -> PlaceClaim {
    let Place { entry, user, lane, arrival, active_until, .. } = *place;
    PlaceClaim { entry, user, lane, place: arrival, active_until }
}

/// What a user does in a random day, and what an instance reports.
#[derive(Clone, Debug)]
enum Step {
    Pass(i64),
    /// Of the clock, and a tick.
    SetBack(i64),
    Join(u128, u8),
    Leave(u128),
    Finish(u128, i64),
    Extend(u128),
    Tick(Stock),
    Admit(Admission, i64),
    Open {
        lanes: Vec<LaneTerms>,
        start: Option<i64>,
    },
    Appear(u128),
    Connect(u128, Vec<u128>),
    Disconnect(u128, Vec<u128>),
    Seen(Vec<u128>),
    Report(u128, Option<Health>),
    Restore {
        of: u128,
        lane: u8,
        ahead_of_last: i64,
        turn_s: Option<i64>,
    },
    Reserve(u64),
    Reveal {
        right: bool,
        beacon: bool,
    },
}

const USERS: u128 = 14;

fn stock() -> impl Strategy<Value = Stock> {
    (prop_oneof![1 => 0u64..4, 4 => 4u64..30], any::<bool>()).prop_map(|(obtainable, linked)| Stock { obtainable, linked })
}

fn any_admission() -> impl Strategy<Value = Admission> {
    let mode = prop_oneof![4 => Just(AdmissionMode::Running), 1 => Just(AdmissionMode::Paused), 1 => Just(AdmissionMode::Draining)];
    (mode, 1u32..7, prop::option::of((1u32..5, 1u32..5)), any::<bool>(), any::<bool>())
        .prop_map(|(mode, max_active, rate, auto, adaptive)| Admission { mode, auto, adaptive, ..self::admission(max_active, rate) })
}

fn any_lanes() -> impl Strategy<Value = Vec<LaneTerms>> {
    prop::sample::subsequence(vec![lane("fans", 300), lane("press", 50), lane("access", 150)], 0..=3).prop_shuffle()
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..USERS;
    let some = || prop::collection::vec(0..USERS, 0..5);
    let health = (0u32..600, 0u16..40, 0u32..3).prop_map(|(p99_ms, errors_permille, samples)| Health { p99_ms, errors_permille, samples });
    prop_oneof![
        12 => (0i64..900).prop_map(Step::Pass),
        2 => (0i64..40_000).prop_map(Step::Pass),
        1 => prop::sample::select(vec![1_500i64, 10_000, 3_600_000]).prop_map(Step::SetBack),
        15 => (who(), 0u8..5).prop_map(|(of, lane)| Step::Join(of, lane)),
        2 => who().prop_map(Step::Leave),
        2 => (who(), 0i64..3_000).prop_map(|(of, ago)| Step::Finish(of, ago)),
        2 => who().prop_map(Step::Extend),
        14 => stock().prop_map(Step::Tick),
        1 => (any_admission(), 0i64..6).prop_map(|(admission, version)| Step::Admit(admission, version)),
        1 => (any_lanes(), prop::option::of(0i64..20_000)).prop_map(|(lanes, start)| Step::Open { lanes, start }),
        2 => (1u128..4).prop_map(Step::Appear),
        4 => ((1u128..4), some()).prop_map(|(of, some)| Step::Connect(of, some)),
        4 => ((1u128..4), some()).prop_map(|(of, some)| Step::Disconnect(of, some)),
        2 => some().prop_map(Step::Seen),
        3 => ((1u128..4), prop::option::of(health)).prop_map(|(of, health)| Step::Report(of, health)),
        2 => (who(), 0u8..4, -8i64..3, prop::option::of(-10i64..100))
            .prop_map(|(of, lane, ahead_of_last, turn_s)| Step::Restore { of, lane, ahead_of_last, turn_s }),
        1 => (0u64..60).prop_map(Step::Reserve),
        2 => (prop::bool::weighted(0.8), any::<bool>()).prop_map(|(right, beacon)| Step::Reveal { right, beacon }),
    ]
}

/// The input that a step comes to; `next` numbers entries.
fn input(step: &Step, room: &Room, now: i64, next: &mut u128) -> Option<RoomInput> {
    let latest = |of: &u128| room.entry_of(user(*of));
    let all = |of: &[u128]| of.iter().filter_map(latest).collect::<Vec<_>>();
    let mut fresh = || {
        *next += 1;
        entry(*next)
    };
    Some(match step {
        Step::Pass(_) => return None,
        Step::SetBack(_) => RoomInput::Tick(PLENTY),
        Step::Join(of, lane) => RoomInput::Join { user: user(*of), entry: fresh(), lane: Lane(*lane) },
        Step::Leave(of) => RoomInput::Leave { entry: latest(of)? },
        Step::Finish(of, ago) => RoomInput::Finish { user: user(*of), paid_at: at(now - ago) },
        Step::Extend(of) => {
            let entry = latest(of)?;
            RoomInput::Lengthen { entry, until: room.place(entry, at(now)).and_then(|place| place.active_until).unwrap_or_default() }
        }
        Step::Tick(stock) => RoomInput::Tick(*stock),
        Step::Admit(admission, version) => RoomInput::Admit { admission: *admission, version: *version },
        Step::Open { lanes, start } => {
            let sale_starts_at = start.map(at).or(room.terms().sale_starts_at);
            RoomInput::Open(RoomTerms { lanes: lanes.clone(), sale_starts_at, ..room.terms().clone() })
        }
        Step::Appear(of) => RoomInput::Appear { instance: instance(*of) },
        Step::Connect(of, some) => RoomInput::Connect { instance: instance(*of), entries: all(some) },
        Step::Disconnect(of, some) => RoomInput::Disconnect { instance: instance(*of), entries: all(some) },
        Step::Seen(some) => RoomInput::Seen { entries: all(some) },
        Step::Report(of, health) => RoomInput::Report { instance: instance(*of), health: *health },
        Step::Restore { of, lane, ahead_of_last, turn_s } => RoomInput::Restore(PlaceClaim {
            entry: fresh(),
            user: user(*of),
            lane: Lane(*lane),
            place: room.last_place().saturating_add_signed(*ahead_of_last),
            active_until: turn_s.map(|s| at(now + s * 1_000)),
        }),
        Step::Reserve(more) => RoomInput::Reserve { to: room.last_place() + more },
        Step::Reveal { right, beacon } => {
            RoomInput::Reveal { seed: if *right { SEED } else { [8; 32] }, beacon: beacon.then(|| "headline".to_owned()) }
        }
    })
}

/// Terms of a random day: with or without a sale that starts later, a draw, lanes.
fn day_terms() -> impl Strategy<Value = RoomTerms> {
    (any_admission(), prop::option::of((0i64..8_000, any::<bool>())), any_lanes()).prop_map(|(admission, sale, lanes)| {
        let terms = match sale {
            Some((start, true)) => drawn(admission, start),
            Some((start, false)) => RoomTerms { sale_starts_at: Some(at(start)), ..terms(admission) },
            None => terms(admission),
        };
        RoomTerms { lanes, ..terms }
    })
}
