//! Requests, a plan and a policy, made short for tests.
//!
//! Ids ascend in the order they were made, as UUIDv7 do, and need no clock.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use boxoffice_domain::money::{Money, Points};
use boxoffice_domain::{
    Actor, Admission, AdmissionMode, Command, CommandId, ConcertPlan, DateId, DatePlan, Fingerprint, FreshIds, PaymentId, Policy, Request,
    ReservationId, SeatNumber, SeatPlan, Timestamp, UserId,
};
use chrono::TimeDelta;
use uuid::Uuid;

/// Prices of the demo hall: seats 1 to 20 and 21 to 50.
pub const PRICE_R: Money = 132_000;
pub const PRICE_S: Money = 99_000;
/// The seats of the demo hall.
pub const HALL: SeatNumber = 50;

/// A new id, greater than all before it.
pub fn fresh<T: From<Uuid>>() -> T {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&next.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(next, &random).into_uuid().into()
}

pub fn user() -> UserId {
    fresh()
}

pub fn policy() -> Policy {
    Policy {
        hold_ttl_s: 300,
        extensions_max: 1,
        max_seats_per_user: 4,
        amount_max: 10_000_000,
        balance_max: 1_000_000_000,
        reward_percent: 5,
        idempotency_ttl_s: 86_400,
    }
}

pub fn admission() -> Admission {
    Admission { mode: AdmissionMode::Running, max_active: 100, per_interval: None, auto: false, adaptive: false }
}

/// A concert with two dates that are open for booking at `now`, 50 seats each in two grades.
pub fn demo_plan(now: Timestamp) -> ConcertPlan {
    ConcertPlan {
        key: "moonlight".to_owned(),
        name: "Moonlight Tour".to_owned(),
        venue: "Olympic Hall".to_owned(),
        time_zone: "Asia/Seoul".to_owned(),
        sale_starts_at: Some(now - TimeDelta::hours(1)),
        admission: None,
        dates: vec![date_plan(now, "day-1", 30), date_plan(now, "day-2", 31)],
    }
}

/// A date of the demo hall, so many days from `now`.
pub fn date_plan(now: Timestamp, key: &str, days: i64) -> DatePlan {
    let starts_at = now + TimeDelta::days(days);
    DatePlan {
        key: key.to_owned(),
        starts_at,
        ends_at: Some(starts_at + TimeDelta::hours(3)),
        booking_opens_at: now - TimeDelta::hours(1),
        booking_closes_at: starts_at - TimeDelta::hours(1),
        refund_closes_at: starts_at - TimeDelta::days(2),
        seats: vec![seats(1, 20, "R", PRICE_R, Some("A")), seats(21, HALL, "S", PRICE_S, None)],
    }
}

pub fn seats(from: SeatNumber, to: SeatNumber, grade: &str, price: Money, section: Option<&str>) -> SeatPlan {
    let section = section.map(str::to_owned);
    SeatPlan { from, to, grade: grade.to_owned(), price, row: section.as_ref().map(|_| "1".to_owned()), section }
}

/// A request of `user` under an idempotency key; the fingerprint is that of the command.
pub fn keyed(user: UserId, key: &str, command: Command) -> Request {
    let fingerprint = Some(fingerprint(&command));
    Request { command_id: CommandId::derive(user, key), actor: Actor::User(user), fingerprint, fresh: fresh_ids(), command }
}

/// A request whose reply is neither looked up nor kept.
pub fn unkeyed(actor: Actor, command: Command) -> Request {
    Request { command_id: fresh(), actor, fingerprint: None, fresh: fresh_ids(), command }
}

/// The same request as it comes a second time: equal but for its fresh ids.
pub fn again(request: &Request) -> Request {
    Request { fresh: fresh_ids(), ..request.clone() }
}

pub fn fresh_ids() -> FreshIds {
    FreshIds { subject: fresh(), entry: fresh(), points: [fresh(), fresh()] }
}

fn fingerprint(command: &Command) -> Fingerprint {
    let mut bytes = [0; 32];
    for (salt, chunk) in bytes.chunks_mut(8).enumerate() {
        let mut hasher = DefaultHasher::new();
        (salt, format!("{command:?}")).hash(&mut hasher);
        chunk.copy_from_slice(&hasher.finish().to_be_bytes());
    }
    Fingerprint(bytes)
}

pub fn charge(user: UserId, key: &str, amount: Money) -> Request {
    keyed(user, key, Command::ChargeWallet { user, amount })
}

/// By an operator, into a user's wallet.
pub fn charge_by(operator: UserId, key: &str, user: UserId, amount: Money) -> Request {
    Request { actor: Actor::Operator(operator), ..keyed(operator, key, Command::ChargeWallet { user, amount }) }
}

pub fn spend(user: UserId, key: &str, amount: Money) -> Request {
    keyed(user, key, Command::UseWallet { user, amount, memo: Some("poster".to_owned()) })
}

pub fn hold(user: UserId, key: &str, date: DateId, numbers: &[SeatNumber]) -> Request {
    let command = Command::HoldSeats { user, date, count: numbers.len() as u32, choices: vec![numbers.to_vec()], best: false, last: false };
    keyed(user, key, command)
}

/// The first free one of `choices`, all of the same length; `last`: the store's own answer when none is.
pub fn hold_best(user: UserId, key: &str, date: DateId, choices: Vec<Vec<SeatNumber>>, last: bool) -> Request {
    let count = choices.first().map_or(0, Vec::len) as u32;
    keyed(user, key, Command::HoldSeats { user, date, count, choices, best: true, last })
}

pub fn extend(user: UserId, key: &str, reservation: ReservationId) -> Request {
    keyed(user, key, Command::ExtendHold { user, reservation })
}

pub fn release(user: UserId, reservation: ReservationId) -> Request {
    unkeyed(Actor::User(user), Command::ReleaseHold { reservation })
}

pub fn release_by_system(reservation: ReservationId) -> Request {
    unkeyed(Actor::System, Command::ReleaseHold { reservation })
}

pub fn expire(reservation: ReservationId) -> Request {
    unkeyed(Actor::System, Command::ExpireHold { reservation })
}

pub fn pay(user: UserId, key: &str, reservation: ReservationId, points: Points) -> Request {
    keyed(user, key, Command::Pay { user, reservation, points })
}

pub fn refund(user: UserId, key: &str, payment: PaymentId) -> Request {
    keyed(user, key, Command::Refund { user, payment })
}
