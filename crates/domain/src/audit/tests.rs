//! Every check, by one harm done to the rows of a sound store: the breach that is found, and no other.

mod bookings;
mod claims;
mod journals;

use super::*;
use crate::account::{Account, EntryKind, PointsKind};
use crate::ids::{CommandId, ConcertId};
use crate::reservation::ReservationStatus;
use crate::seat::{SeatKey, SeatState};
use chrono::{DateTime, TimeDelta};
use uuid::Uuid;

const LIMIT: u32 = 2;
const REPLIES: u64 = 9;

const ANN: UserId = UserId(Uuid::from_u128(0xA1));
const BEN: UserId = UserId(Uuid::from_u128(0xA2));
const CONCERT: ConcertId = ConcertId(Uuid::from_u128(0xC0));
const DATE: DateId = DateId(Uuid::from_u128(0xD0));
/// Ann bought seat 1, and bought seat 2 and gave it back; Ben holds seat 3, and held seat 4 until it was over.
const BOUGHT: ReservationId = ReservationId(Uuid::from_u128(0x51));
const RETURNED: ReservationId = ReservationId(Uuid::from_u128(0x52));
const HELD: ReservationId = ReservationId(Uuid::from_u128(0x53));
const OVER: ReservationId = ReservationId(Uuid::from_u128(0x54));
const PAID: PaymentId = PaymentId(Uuid::from_u128(0x61));
const REFUNDED: PaymentId = PaymentId(Uuid::from_u128(0x62));
const UNKNOWN: Uuid = Uuid::from_u128(0xFFFF);

fn at(s: i64) -> Timestamp {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(1_000 + s)
}

fn entry_id(n: u128) -> EntryId {
    EntryId(Uuid::from_u128(0x70 + n))
}

fn of_user(user: UserId, row: OfUser) -> Row {
    Row::OfUser(user, row)
}

fn claim(user: UserId, command: u128, effect: Effect) -> Claim {
    Claim { user, command: CommandId(Uuid::from_u128(command)), effect }
}

fn made(user: UserId, status: ReservationStatus, seat: u32, payment: Option<PaymentId>) -> ReservationMade {
    let expires_at = if seat == 4 { at(0) } else { at(60) };
    let (seats, held_for) = (vec![seat], vec![(seat, 100)]);
    ReservationMade { user, concert: CONCERT, date: DATE, status, expires_at, payment, seat_count: 1, seats, held_for }
}

fn naming(number: u32, held_until: Option<Timestamp>) -> OfReservation {
    OfReservation::Seat(SeatNaming { seat: SeatKey { date: DATE, number }, held_until })
}

/// Ann charged 200, paid 100 twice, spent 5 of 10 granted points on the second payment, and has its 95 back.
fn sound() -> Vec<Row> {
    let entry = |seq, kind, amount, balance| of_user(ANN, OfUser::Entry { seq, kind, amount, balance });
    let points = |seq, kind, points, balance| of_user(ANN, OfUser::Points { seq, kind, points, balance });
    let account = |user, balance, entries, points, points_entries| {
        of_user(user, OfUser::Account(Account { user, balance, points, entries, points_entries }))
    };
    let mut rows = vec![
        account(ANN, 100, 4, 10, 5),
        entry(1, EntryKind::Charge, 200, 200),
        entry(2, EntryKind::Payment, -100, 100),
        entry(3, EntryKind::Payment, -95, 5),
        entry(4, EntryKind::Refund, 95, 100),
        points(1, PointsKind::Grant, 10, 10),
        points(2, PointsKind::Spend, -5, 5),
        points(3, PointsKind::Grant, 9, 14),
        points(4, PointsKind::Restore, 5, 19),
        points(5, PointsKind::TakeBack, -9, 10),
        account(BEN, 0, 0, 0, 0),
    ];
    let first = PaymentMade { user: ANN, reservation: BOUGHT, amount: 100, points_spent: 0, points_granted: 10, refund: None };
    let refund = Some(Refunded { amount: 95, points_restored: 5, points_taken_back: 9 });
    let second = PaymentMade { user: ANN, reservation: RETURNED, amount: 95, points_spent: 5, points_granted: 9, refund };
    let moved = |kind, amount| OfPayment::Entry { user: ANN, kind, amount };
    let moved_points = |kind, points| OfPayment::Points { user: ANN, kind, points };
    let claimed = |command, effect, reservation| OfPayment::Claim { claim: claim(ANN, command, effect), reservation: Some(reservation) };
    let of_payments = [
        (PAID, OfPayment::Payment(first)),
        (PAID, moved(EntryKind::Payment, -100)),
        (PAID, moved_points(PointsKind::Grant, 10)),
        (PAID, claimed(2, Effect::Paid, BOUGHT)),
        (REFUNDED, OfPayment::Payment(second)),
        (REFUNDED, moved(EntryKind::Payment, -95)),
        (REFUNDED, moved(EntryKind::Refund, 95)),
        (REFUNDED, moved_points(PointsKind::Spend, -5)),
        (REFUNDED, moved_points(PointsKind::Grant, 9)),
        (REFUNDED, moved_points(PointsKind::Restore, 5)),
        (REFUNDED, moved_points(PointsKind::TakeBack, -9)),
        (REFUNDED, claimed(3, Effect::Paid, RETURNED)),
        (REFUNDED, claimed(4, Effect::Refunded, RETURNED)),
    ];
    rows.extend(of_payments.map(|(payment, row)| Row::OfPayment(payment, row)));
    let paid = |payment, amount, points_spent, refunded| {
        OfReservation::Payment(PaidFor { payment, user: ANN, concert: CONCERT, amount, points_spent, refunded })
    };
    let of_reservations = [
        (BOUGHT, OfReservation::Reservation(made(ANN, ReservationStatus::Confirmed, 1, Some(PAID)))),
        (BOUGHT, paid(PAID, 100, 0, false)),
        (BOUGHT, naming(1, None)),
        (BOUGHT, OfReservation::Claim(claim(ANN, 5, Effect::Held))),
        (BOUGHT, OfReservation::Claim(claim(ANN, 6, Effect::Extended))),
        (BOUGHT, OfReservation::Claim(claim(ANN, 7, Effect::Extended))),
        (RETURNED, OfReservation::Reservation(made(ANN, ReservationStatus::Cancelled, 2, Some(REFUNDED)))),
        (RETURNED, paid(REFUNDED, 95, 5, true)),
        (HELD, OfReservation::Reservation(made(BEN, ReservationStatus::Held, 3, None))),
        (HELD, naming(3, Some(at(60)))),
        (OVER, OfReservation::Reservation(made(BEN, ReservationStatus::Held, 4, None))),
        (OVER, naming(4, Some(at(0)))),
    ];
    rows.extend(of_reservations.map(|(reservation, row)| Row::OfReservation(reservation, row)));
    let reserved = |user, status, expires_at| OfDate::Reservation { user, status, expires_at, seat_count: 1 };
    let of_date = [
        OfDate::Date { seats_total: 5 },
        OfDate::Seat(SeatState::Sold { reservation: BOUGHT }),
        OfDate::Seat(SeatState::Available),
        OfDate::Seat(SeatState::Held { reservation: HELD, until: at(60) }),
        OfDate::Seat(SeatState::Held { reservation: OVER, until: at(0) }),
        OfDate::Seat(SeatState::Available),
        reserved(ANN, ReservationStatus::Confirmed, at(60)),
        reserved(BEN, ReservationStatus::Held, at(60)),
        reserved(BEN, ReservationStatus::Held, at(0)),
    ];
    rows.extend(of_date.map(|row| Row::OfDate(DATE, row)));
    for (n, amount) in [(1, 200), (2, -100), (3, -95), (4, 95)] {
        rows.push(Row::OfEntry(entry_id(n), OfEntry::Entry { user: ANN, seq: n as i64, amount }));
    }
    let charged = OfEntry::Claim { claim: claim(ANN, 1, Effect::Entered), user: Some(ANN), seq: Some(1), amount: Some(200) };
    rows.insert(rows.len() - 3, Row::OfEntry(entry_id(1), charged));
    rows
}

fn audit(rows: Vec<Row>) -> AuditReport {
    let mut audit = Audit::new(at(0), LIMIT);
    rows.into_iter().for_each(|row| audit.take(row));
    audit.finish(REPLIES)
}

/// What is found after each row was changed by `harm`; `None` drops the row.
fn found(harm: impl Fn(Row) -> Option<Row>) -> Vec<(&'static str, String)> {
    let report = audit(sound().into_iter().filter_map(harm).collect());
    report.breaches.into_iter().map(|breach| (breach.invariant, breach.detail)).collect()
}

/// Changes the first row that `harm` takes, and only that one.
fn found_after(mut harm: impl FnMut(&mut Row) -> bool) -> Vec<(&'static str, String)> {
    let mut rows = sound();
    assert!(rows.iter_mut().any(&mut harm), "no row to harm");
    audit(rows).breaches.into_iter().map(|breach| (breach.invariant, breach.detail)).collect()
}

fn found_beside(row: Row, behind: impl Fn(&Row) -> bool) -> Vec<(&'static str, String)> {
    let mut rows = sound();
    let at = rows.iter().rposition(behind).expect("a row to stand behind");
    rows.insert(at + 1, row);
    audit(rows).breaches.into_iter().map(|breach| (breach.invariant, breach.detail)).collect()
}

fn is_of_user(row: &Row, user: UserId) -> bool {
    matches!(row, Row::OfUser(of, _) if *of == user)
}

fn one(invariant: &'static str, detail: impl Into<String>) -> Vec<(&'static str, String)> {
    vec![(invariant, detail.into())]
}

#[test]
fn a_sound_store_has_no_breach_and_is_counted() {
    let report = audit(sound());
    assert_eq!(report.breaches, []);
    let counted = [("accounts", 2), ("entries", 4), ("seats", 5), ("reservations", 4), ("payments", 2), ("replies", REPLIES)];
    assert_eq!(report.counted, counted);
    assert_eq!(report.overdue_holds, 1);
    assert_eq!(audit(Vec::new()).breaches, []);
}

#[test]
fn each_invariant_is_reported_a_bounded_number_of_times_in_order() {
    let rows = (0..60u128).map(|n| {
        let entry = OfUser::Entry { seq: 1, kind: EntryKind::Charge, amount: 1, balance: 2 };
        of_user(UserId(Uuid::from_u128(n)), entry)
    });
    let seats = (0..60u128).map(|n| Row::OfDate(DateId(Uuid::from_u128(n)), OfDate::Seat(SeatState::Available)));
    let report = audit(seats.chain(rows).collect());
    let of = |invariant| report.breaches.iter().filter(|breach| breach.invariant == invariant).count();
    assert_eq!((of("I2"), of("I6"), report.breaches.len()), (BREACHES_MAX, BREACHES_MAX, 2 * BREACHES_MAX));
    assert!(report.breaches[0].detail.contains("begins at"), "what is checked first is reported first");
    assert!(
        report.breaches.iter().rposition(|breach| breach.invariant == "I2")
            < report.breaches.iter().position(|breach| breach.invariant == "I6")
    );
}
