//! Random walks: several users on few seats, in batches of any size, while time moves. After every batch the
//! invariants hold; a refusal changes nothing; and one batch answers what its commands answer one by one.

use super::world::{HOLD_TTL_S, World, at, date, user};
use crate::decide::{Decision, Outcome, Reply};
use crate::{Actor, Command, Request, UserId};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};

const USERS: u128 = 3;
const SEATS: u32 = 7;
const KEYS: u8 = 24;

/// A command before its targets are known: they are chosen among what exists when its batch is made.
#[derive(Clone, Debug)]
struct Preference {
    user: u128,
    /// Which idempotency key; beyond [`KEYS`] none.
    key: u8,
    body: u8,
    what: What,
    target: prop::sample::Index,
    /// Whether it is the target's owner who asks.
    own: bool,
}

#[derive(Clone, Debug)]
enum What {
    Charge(i64),
    Use(i64),
    Hold { date: u128, seats: BTreeSet<u32> },
    Best { choices: Vec<BTreeSet<u32>>, last: bool },
    Extend,
    Release { system: bool },
    Expire,
    Pay { points: i64 },
    Refund,
}

fn what() -> impl Strategy<Value = What> {
    let seats = || prop::collection::btree_set(1..=SEATS + 1, 1..4);
    prop_oneof![
        3 => (-1i64..6_000).prop_map(What::Charge),
        1 => (0i64..900).prop_map(What::Use),
        6 => (1u128..=3, seats()).prop_map(|(date, seats)| What::Hold { date: if date == 3 { 1 } else { date }, seats }),
        2 => (prop::collection::vec(prop::collection::btree_set(1..=SEATS, 2), 0..4), any::<bool>())
            .prop_map(|(choices, last)| What::Best { choices, last }),
        2 => Just(What::Extend),
        2 => any::<bool>().prop_map(|system| What::Release { system }),
        2 => Just(What::Expire),
        5 => prop_oneof![4 => Just(0i64), 1 => -1i64..60, 1 => 0i64..700].prop_map(|points| What::Pay { points }),
        4 => Just(What::Refund),
    ]
}

fn preference() -> impl Strategy<Value = Preference> {
    let body = prop_oneof![9 => Just(0u8), 1 => Just(1u8)];
    (0..USERS, 0..2 * KEYS, body, what(), any::<prop::sample::Index>(), prop::bool::weighted(0.9))
        .prop_map(|(user, key, body, what, target, own)| Preference { user, key, body, what, target, own })
}

/// Seconds that pass, then a batch.
type Walk = Vec<(i64, Vec<Preference>)>;

fn walk() -> impl Strategy<Value = Walk> {
    let step = prop_oneof![4 => 0i64..3, 3 => 0i64..HOLD_TTL_S, 1 => Just(HOLD_TTL_S), 1 => 0i64..15_000];
    prop::collection::vec((step, prop::collection::vec(preference(), 1..12)), 1..25)
}

/// Makes requests of a batch's preferences. A target is anything there is, or that an earlier preference of the batch may make.
fn requests(world: &mut World, preferences: &[Preference]) -> Vec<Request> {
    let mut reservations: Vec<_> = world.reservations.values().map(|row| (row.id, row.user)).collect();
    let mut payments: Vec<_> = world.payments.values().map(|row| (row.id, row.user)).collect();
    let mut batch = Vec::with_capacity(preferences.len());
    for preference in preferences {
        let mut asking = user(preference.user);
        let mut aim = |owner: UserId| {
            if preference.own {
                asking = owner;
            }
        };
        let mut reservation = || {
            // Recent ones, mostly: old ones have all ended.
            let recent = &reservations[reservations.len().saturating_sub(6)..];
            let (id, owner) = *recent.get(preference.target.index(recent.len().max(1)))?;
            aim(owner);
            Some(id)
        };
        let command = match &preference.what {
            What::Charge(amount) => Command::ChargeWallet { user: asking, amount: *amount },
            What::Use(amount) => Command::UseWallet { user: asking, amount: *amount, memo: None },
            What::Hold { date: of, seats } => {
                let choices = vec![seats.iter().copied().collect()];
                Command::HoldSeats { user: asking, date: date(*of), count: seats.len() as u32, choices, best: false, last: false }
            }
            What::Best { choices, last } => {
                let choices = choices.iter().map(|choice| choice.iter().copied().collect()).collect();
                Command::HoldSeats { user: asking, date: date(1), count: 2, choices, best: true, last: *last }
            }
            What::Extend => match reservation() {
                Some(reservation) => Command::ExtendHold { user: asking, reservation },
                None => continue,
            },
            What::Release { .. } => match reservation() {
                Some(reservation) => Command::ReleaseHold { reservation },
                None => continue,
            },
            What::Expire => match reservation() {
                Some(reservation) => Command::ExpireHold { reservation },
                None => continue,
            },
            What::Pay { points } => match reservation() {
                Some(reservation) => Command::Pay { user: asking, reservation, points: *points },
                None => continue,
            },
            What::Refund => {
                let recent = &payments[payments.len().saturating_sub(4)..];
                let Some(&(payment, owner)) = recent.get(preference.target.index(recent.len().max(1))) else { continue };
                aim(owner);
                Command::Refund { user: asking, payment }
            }
        };
        let system = matches!(preference.what, What::Expire | What::Release { system: true });
        let request = if system {
            world.request(Actor::System, command)
        } else if preference.key < KEYS {
            world.keyed(asking, &preference.key.to_string(), preference.body, command)
        } else {
            world.request(Actor::User(asking), command)
        };
        match &request.command {
            Command::HoldSeats { user, .. } => reservations.push((request.fresh.subject.into(), *user)),
            Command::Pay { user, .. } => payments.push((request.fresh.subject.into(), *user)),
            _ => {}
        }
        batch.push(request);
    }
    batch
}

/// Takes a walk, asserting all along it; hands out every answer.
fn take(walk: &Walk) -> Vec<Reply> {
    let mut world = World::new(SEATS);
    world.now = at(super::world::BOOKING_OPENS_S - 1);
    let mut first_answers = BTreeMap::new();
    let mut all = Vec::new();
    for (seconds, preferences) in walk {
        world.advance(*seconds);
        let batch = requests(&mut world, preferences);
        let mut one_by_one = world.clone();
        let replies = world.run(batch.clone());
        world.assert_invariants();
        for (request, reply) in batch.iter().zip(&replies) {
            assert_eq!(run_alone(&mut one_by_one, request), *reply, "one by one: {request:?}");
            assert_replay(&mut first_answers, request, reply);
        }
        assert_eq!(one_by_one, world, "one by one leads to the same rows");
        all.extend(replies);
    }
    let effects = |of: fn(&Outcome) -> bool| {
        let done = all.iter().filter(|reply| !reply.replayed && matches!(&reply.decision, Decision::Done(outcome) if of(outcome)));
        done.count()
    };
    assert_eq!(effects(|outcome| matches!(outcome, Outcome::Held { .. })), world.reservations.len(), "I3: one effect each");
    assert_eq!(effects(|outcome| matches!(outcome, Outcome::Paid { .. })), world.payments.len(), "I3: one effect each");
    let wallet_lines = world.entries.iter().filter(|entry| entry.payment.is_none()).count();
    assert_eq!(effects(|outcome| matches!(outcome, Outcome::Entered { .. })), wallet_lines, "I3: one effect each");
    all
}

/// A refusal, a replay and a retry leave every row as it was; only a first refusal leaves its own reply.
fn run_alone(world: &mut World, request: &Request) -> Reply {
    let mut before = world.clone();
    let reply = world.run(vec![request.clone()]).remove(0);
    let decided_anew = matches!(reply.decision, Decision::Done(_)) && !reply.replayed;
    if !decided_anew {
        if let Some((key, _)) = request.idempotency()
            && let Some(stored) = world.replies.get(&key)
        {
            before.replies.insert(key, stored.clone());
        }
        assert_eq!(*world, before, "{:?} changed something", reply.decision);
    }
    reply
}

/// Every replay is the first answer, and a key that has a live answer is never decided again.
fn assert_replay(first: &mut BTreeMap<crate::IdempotencyKey, (Reply, crate::Fingerprint)>, request: &Request, reply: &Reply) {
    let Some((key, fingerprint)) = request.idempotency() else {
        assert!(!reply.replayed);
        return;
    };
    if reply.replayed {
        let (kept, of) = &first[&key];
        assert_eq!((&kept.decision, kept.decided_at, *of), (&reply.decision, reply.decided_at, fingerprint), "I3: another answer");
    } else if !matches!(reply.decision, Decision::Retry | Decision::Refused(crate::Rejection::IdempotencyKeyReused)) {
        let earlier = first.insert(key, (reply.clone(), fingerprint));
        let ttl = chrono::TimeDelta::seconds(super::world::IDEMPOTENCY_TTL_S);
        assert!(earlier.is_none_or(|(kept, _)| kept.decided_at + ttl <= reply.decided_at), "I3: decided twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_along_random_walks(walk in walk()) {
        take(&walk);
    }
}

/// The walks of the property would prove nothing if they never got anywhere.
#[test]
fn random_walks_reach_every_answer() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..300 {
        let walk = walk().new_tree(&mut runner).unwrap().current();
        for reply in take(&walk) {
            let name = match reply.decision {
                Decision::Done(outcome) => serde_json::to_value(outcome).unwrap()["outcome"].to_string(),
                Decision::Refused(rejection) => serde_json::to_value(rejection).unwrap()["code"].to_string(),
                Decision::Retry => "\"retry\"".to_owned(),
            };
            *seen.entry(if reply.replayed { "\"replayed\"".to_owned() } else { name }).or_default() += 1;
        }
    }
    for name in [
        "entered",
        "held",
        "extended",
        "released",
        "expired",
        "paid",
        "refunded",
        "retry",
        "replayed",
        "not_found",
        "insufficient_balance",
        "seat_unavailable",
        "hold_expired",
        "hold_released",
        "already_paid",
        "already_refunded",
        "idempotency_key_reused",
        "seat_limit_exceeded",
        "booking_closed",
        "refund_closed",
        "amount_out_of_range",
        "insufficient_points",
        "extension_limit_exceeded",
    ] {
        assert!(seen.contains_key(&format!("\"{name}\"")), "{name} was never answered; seen: {seen:?}");
    }
}
