//! Idempotency: one effect a key, every repeat the first answer.

use super::world::{HOLD_TTL_S, IDEMPOTENCY_TTL_S, World, hold, user};
use crate::decide::{Decision, Outcome, Reply};
use crate::{Actor, Command, Fingerprint, Rejection, Request};
use chrono::TimeDelta;

fn charge(amount: i64) -> Command {
    Command::ChargeWallet { user: user(1), amount }
}

fn one(world: &mut World, request: Request) -> Reply {
    world.run(vec![request]).remove(0)
}

#[test]
fn replay_repeats_the_first_answer_without_an_effect() {
    let mut world = World::new(1);
    let request = world.keyed(user(1), "k", 1, charge(100));
    let first = one(&mut world, request);
    assert!(!first.replayed);
    world.charge(user(1), 7);
    world.advance(IDEMPOTENCY_TTL_S - 1);
    let before = world.clone();
    let repeat = world.keyed(user(1), "k", 1, charge(100));
    let again = one(&mut world, repeat);
    assert_eq!(again, Reply { replayed: true, ..first.clone() }, "its instant and its balance too");
    assert_eq!((&world.entries, &world.replies, world.balance(user(1))), (&before.entries, &before.replies, 107));
}

#[test]
fn refusals_are_replayed_like_success() {
    let mut world = World::new(1);
    let spend = Command::UseWallet { user: user(1), amount: 5, memo: None };
    let request = world.keyed(user(1), "k", 1, spend.clone());
    let first = one(&mut world, request);
    assert_eq!(first.decision, Decision::Refused(Rejection::InsufficientBalance));
    world.charge(user(1), 100);
    let repeat = world.keyed(user(1), "k", 1, spend);
    assert_eq!(one(&mut world, repeat), Reply { replayed: true, ..first });
    assert_eq!(world.balance(user(1)), 100);
}

#[test]
fn duplicates_inside_a_batch_get_one_effect() {
    let mut world = World::new(1);
    let requests: Vec<_> = (0..100).map(|_| world.keyed(user(1), "k", 1, charge(3))).collect();
    let replies = world.run(requests);
    assert_eq!(replies.iter().filter(|reply| !reply.replayed).count(), 1);
    assert!(!replies[0].replayed, "the first is the one");
    assert!(replies.iter().all(|reply| reply.decision == replies[0].decision));
    assert_eq!((world.balance(user(1)), world.entries.len(), world.replies.len()), (3, 1, 1));
}

#[test]
fn key_used_with_another_request_is_refused_and_keeps_its_answer() {
    let mut world = World::new(1);
    let first = world.keyed(user(1), "k", 1, charge(3));
    let other = world.keyed(user(1), "k", 2, charge(4));
    let repeat = world.keyed(user(1), "k", 1, charge(3));
    let replies = world.run(vec![first, other.clone(), repeat]);
    assert_eq!(replies[1].decision, Decision::Refused(Rejection::IdempotencyKeyReused));
    assert!(!replies[1].replayed);
    assert!(replies[2].replayed);
    assert_eq!(replies[2].decision, replies[0].decision);
    assert_eq!(one(&mut world, other).decision, Decision::Refused(Rejection::IdempotencyKeyReused), "stored ones too");
    assert_eq!(world.balance(user(1)), 3);
}

#[test]
fn equal_keys_of_two_users_are_two_commands() {
    let mut world = World::new(1);
    let requests =
        vec![world.keyed(user(1), "k", 1, charge(3)), world.keyed(user(2), "k", 1, Command::ChargeWallet { user: user(2), amount: 5 })];
    assert!(world.run(requests).iter().all(|reply| !reply.replayed));
    assert_eq!((world.balance(user(1)), world.balance(user(2))), (3, 5));
}

#[test]
fn another_users_command_id_replays_nothing() {
    let mut world = World::new(1);
    let mine = world.keyed(user(1), "k", 1, charge(3));
    let command_id = mine.command_id;
    one(&mut world, mine);
    let theirs = world.keyed(user(2), "other", 1, Command::UseWallet { user: user(2), amount: 1, memo: None });
    let reply = one(&mut world, Request { command_id, ..theirs });
    assert_eq!((reply.decision, reply.replayed), (Decision::Refused(Rejection::InsufficientBalance), false));
}

#[test]
fn expired_key_runs_anew() {
    let mut world = World::new(1);
    let request = world.keyed(user(1), "k", 1, charge(3));
    let key = request.idempotency().unwrap().0;
    one(&mut world, request);
    assert_eq!(world.replies[&key].expires_at, world.now + TimeDelta::seconds(IDEMPOTENCY_TTL_S));
    world.now = world.replies[&key].expires_at;
    let again = world.keyed(user(1), "k", 2, charge(4));
    let reply = one(&mut world, again);
    assert!(!reply.replayed);
    assert_eq!(world.balance(user(1)), 7, "from that instant on, even with another body");
    assert_eq!(world.replies[&key].fingerprint, Fingerprint([2; 32]), "its row is written over");
    assert_eq!(world.replies[&key].expires_at, world.now + TimeDelta::seconds(IDEMPOTENCY_TTL_S));
}

#[test]
fn replies_without_a_key_or_of_the_system_are_not_kept() {
    let mut world = World::new(2);
    let unkeyed = world.request(Actor::User(user(1)), charge(3));
    world.run(vec![unkeyed.clone(), unkeyed]);
    assert_eq!(world.balance(user(1)), 6, "nothing to tell them apart by");
    let held = world.hold(user(1), &[1]);
    world.advance(HOLD_TTL_S);
    let sweep = world.request(Actor::System, Command::ExpireHold { reservation: held.id });
    one(&mut world, Request { fingerprint: Some(Fingerprint([9; 32])), ..sweep });
    assert!(world.replies.is_empty());
}

#[test]
fn refusal_in_the_middle_harms_no_neighbour() {
    let mut world = World::new(2);
    let commands = [charge(500), Command::UseWallet { user: user(1), amount: 501, memo: None }, hold(user(1), &[1])];
    let requests: Vec<_> = commands.into_iter().enumerate().map(|(at, c)| world.keyed(user(1), &at.to_string(), 1, c)).collect();
    let replies = world.run(requests);
    assert!(matches!(replies[0].decision, Decision::Done(_)));
    assert_eq!(replies[1].decision, Decision::Refused(Rejection::InsufficientBalance));
    assert!(matches!(replies[2].decision, Decision::Done(_)));
    assert_eq!((world.balance(user(1)), world.replies.len()), (500, 3));
}

#[test]
fn later_commands_of_a_batch_see_earlier_ones() {
    let mut world = World::new(2);
    let hold = world.keyed(user(1), "hold", 1, hold(user(1), &[1]));
    let reservation = hold.fresh.subject.into();
    let charge = world.keyed(user(1), "charge", 1, charge(100));
    let pay = world.keyed(user(1), "pay", 1, Command::Pay { user: user(1), reservation, points: 0 });
    let refund = world.keyed(user(1), "refund", 1, Command::Refund { user: user(1), payment: pay.fresh.subject.into() });
    let replies = world.run(vec![hold, charge, pay, refund]);
    assert!(replies.iter().all(|reply| matches!(reply.decision, Decision::Done(_))), "{replies:?}");
    assert_eq!((world.balance(user(1)), world.points(user(1))), (100, 0));
}

/// Stores keep replies as JSON; a replay must be what was answered, to the last field.
#[test]
fn every_result_survives_json() {
    let mut world = World::new(4);
    world.policy.amount_max = i64::MAX;
    world.policy.balance_max = i64::MAX;
    world.now += TimeDelta::microseconds(1);
    let mut decisions = vec![world.decide(user(1), charge(i64::MAX))];
    let held = world.hold(user(1), &[1, 2]);
    decisions.push(world.decide(user(1), Command::ExtendHold { user: user(1), reservation: held.id }));
    decisions.push(world.decide(user(1), Command::Pay { user: user(1), reservation: held.id, points: 0 }));
    let payment = *world.payments.keys().next().unwrap();
    decisions.push(world.decide(user(1), Command::Refund { user: user(1), payment }));
    let released = world.hold(user(1), &[1]);
    decisions.push(world.decide(user(1), Command::ReleaseHold { reservation: released.id }));
    let expired = world.hold(user(1), &[1]);
    world.now = expired.expires_at;
    decisions.push(world.decide_as(Actor::System, Command::ExpireHold { reservation: expired.id }));
    decisions.push(world.decide(user(1), hold(user(1), &[1])));
    for seats in [&[1u32][..], &[9], &[2, 3, 4, 1, 5]] {
        decisions.push(world.decide(user(2), hold(user(2), seats)));
    }
    decisions.push(world.decide(user(1), charge(0)));
    let kinds: std::collections::HashSet<_> = decisions.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), 2, "successes and refusals");
    for decision in decisions {
        let result: Result<Outcome, Rejection> = match decision {
            Decision::Done(outcome) => Ok(outcome),
            Decision::Refused(rejection) => Err(rejection),
            Decision::Retry => panic!("never stored"),
        };
        let json = serde_json::to_string(&result).unwrap();
        assert_eq!(serde_json::from_str::<Result<Outcome, Rejection>>(&json).unwrap(), result, "{json}");
    }
}
