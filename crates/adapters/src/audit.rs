//! The rows of an audit as every database reads them: one statement a pass, and what its columns make.
//!
//! The rows of several tables come in one result, sorted by the key under which the audit compares them. They share
//! one set of columns: the key; the row's place among those of a key; four ids, a word, six numbers, an instant; a
//! reservation's snapshot, and the list of seats that it locks.

use crate::columns::{Id, Json, State, Word};
use crate::rows::{Contradiction, StateWord, narrow, seat_state_of};
use boxoffice_domain::audit::{
    Claim, Effect, OfDate, OfEntry, OfPayment, OfReservation, OfUser, PaidFor, PaymentMade, Refunded, ReservationMade, Row, SeatNaming,
};
use boxoffice_domain::money::Money;
use boxoffice_domain::{Account, CommandId, SeatKey, SeatNumber, Timestamp};
use serde::Deserialize;
use uuid::Uuid;

/// The statement of a pass: the types of the shared columns, the branches, the order.
macro_rules! pass {
    ($order:literal, $($branch:expr),+ $(,)?) => {
        concat!(
            "SELECT CAST(NULL AS uuid), 0, CAST(NULL AS uuid), CAST(NULL AS uuid), CAST(NULL AS uuid), CAST(NULL AS uuid), CAST(NULL AS text), \
             CAST(NULL AS bigint), CAST(NULL AS bigint), CAST(NULL AS bigint), CAST(NULL AS bigint), CAST(NULL AS bigint), \
             CAST(NULL AS bigint), CAST(NULL AS timestamptz), CAST(NULL AS text), CAST(NULL AS text) WHERE 1 = 0",
            $(" UNION ALL ", $branch,)+
            " ORDER BY ", $order
        )
    };
}
pub(crate) use pass;

/// By user: accounts, and both journals by number.
macro_rules! user_rows {
    () => {
        $crate::audit::pass!(
            "1, 2, 8",
            "SELECT user_id, 0, NULL, NULL, NULL, NULL, NULL, balance, entries, points, points_entries, NULL, NULL, NULL, NULL, NULL FROM accounts",
            "SELECT user_id, 1, NULL, NULL, NULL, NULL, kind, seq, amount, balance, NULL, NULL, NULL, NULL, NULL, NULL FROM entries",
            "SELECT user_id, 2, NULL, NULL, NULL, NULL, kind, seq, points, balance, NULL, NULL, NULL, NULL, NULL, NULL FROM points_entries",
        )
    };
}
pub(crate) use user_rows;

/// By payment: payments, the lines of both journals by user, and what replies claim.
macro_rules! payment_rows {
    ($claims:expr) => {
        $crate::audit::pass!(
            "1, 2, 3",
            "SELECT id, 0, user_id, reservation_id, NULL, NULL, NULL, amount, points_spent, points_granted, refund_amount, points_restored,
                    points_taken, NULL, NULL, NULL FROM payments",
            "SELECT payment_id, 1, user_id, NULL, NULL, NULL, kind, amount, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
             FROM entries WHERE payment_id IS NOT NULL",
            "SELECT payment_id, 2, user_id, NULL, NULL, NULL, kind, points, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM points_entries",
            concat!(
                "SELECT payment, 3, user_id, command_id, reservation, NULL, outcome, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM (",
                $claims,
                ") claims WHERE outcome IN ('paid', 'refunded')"
            ),
        )
    };
}
pub(crate) use payment_rows;

/// By reservation: reservations, payments, the seats that name one, and what replies claim. `seat_count` and
/// `seat_list` are how a reservation keeps its seats beside the snapshot.
macro_rules! reservation_rows {
    ($seat_count:literal, $seat_list:literal, $claims:expr) => {
        $crate::audit::pass!(
            "1, 2, 3, 8",
            concat!(
                "SELECT id, 0, user_id, concert_id, date_id, payment_id, status, ",
                $seat_count,
                ", NULL, NULL, NULL, NULL, NULL, expires_at, snapshot, ",
                $seat_list,
                " FROM reservations"
            ),
            "SELECT reservation_id, 1, user_id, concert_id, id, NULL, NULL, amount, points_spent, refund_amount, NULL, NULL, NULL, NULL, NULL, NULL
             FROM payments",
            "SELECT reservation_id, 2, date_id, NULL, NULL, NULL, NULL, number, NULL, NULL, NULL, NULL, NULL, held_until, NULL, NULL
             FROM seats WHERE reservation_id IS NOT NULL",
            concat!(
                "SELECT reservation, 3, user_id, command_id, NULL, NULL, outcome, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM (",
                $claims,
                ") claims WHERE outcome NOT IN ('entered', 'paid', 'refunded')"
            ),
        )
    };
}
pub(crate) use reservation_rows;

/// By date: dates, seats, and reservations by user.
macro_rules! date_rows {
    ($seat_count:literal) => {
        $crate::audit::pass!(
            "1, 2, 3",
            "SELECT id, 0, NULL, NULL, NULL, NULL, NULL, seats_total, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM dates",
            "SELECT date_id, 1, NULL, reservation_id, NULL, NULL, state, NULL, NULL, NULL, NULL, NULL, NULL, held_until, NULL, NULL FROM seats",
            concat!(
                "SELECT date_id, 2, user_id, NULL, NULL, NULL, status, ",
                $seat_count,
                ", NULL, NULL, NULL, NULL, NULL, expires_at, NULL, NULL FROM reservations WHERE status IN ('held', 'confirmed')"
            ),
        )
    };
}
pub(crate) use date_rows;

/// By entry: entries, and what replies claim of them right after each.
macro_rules! entry_rows {
    ($claims:expr) => {
        $crate::audit::pass!(
            "1, 3, 8, 2",
            "SELECT id, 0, user_id, NULL, NULL, NULL, NULL, seq, amount, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM entries",
            concat!(
                "SELECT entry, 1, owner, user_id, command_id, NULL, outcome, seq, amount, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM (",
                $claims,
                ") claims WHERE outcome = 'entered'"
            ),
        )
    };
}
pub(crate) use entry_rows;

type Ids = Option<Id<Uuid>>;
type Number = Option<i64>;

/// The shared columns.
pub(crate) type Columns<T> = (
    Ids,
    i32,
    Ids,
    Ids,
    Ids,
    Ids,
    Option<String>,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Option<T>,
    Option<Json<HeldFor>>,
    Option<Json<Vec<SeatNumber>>>,
);

/// Of a reservation's snapshot, the seats that it was held for.
#[derive(Debug, Deserialize)]
pub(crate) struct HeldFor {
    seats: Vec<SeatHeld>,
}

#[derive(Debug, Deserialize)]
struct SeatHeld {
    number: SeatNumber,
    price: Money,
}

/// The key of a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key {
    User,
    Payment,
    Reservation,
    Date,
    Entry,
}

/// The row that the columns make in the pass of `key`.
pub(crate) fn row<T: Into<Timestamp>>(key: Key, columns: Columns<T>) -> Result<Row, Contradiction> {
    let (id, rank, a, b, c, d, word, n1, n2, n3, n4, n5, n6, at, snapshot, list) = columns;
    // A reply may claim a record without naming it: no record has that id.
    let id = id.map_or(Uuid::nil(), |id| id.0);
    let at = at.map(Into::into);
    let word = word.as_deref();
    let claim = |user, command| -> Result<Claim, Contradiction> {
        let effect = Effect::ALL.into_iter().find(|effect| Some(effect.name()) == word);
        let effect = effect.ok_or_else(|| Contradiction(format!("unknown outcome {word:?} in a reply")))?;
        Ok(Claim { user: value::<Id<Uuid>>("user", user)?.0.into(), command: CommandId(value::<Id<Uuid>>("command", command)?.0), effect })
    };
    let id_of = |column: Ids| value("id", column).map(|id| id.0);
    let number = |column: Number| value("number", column);
    Ok(match (key, rank) {
        (Key::User, 0) => {
            let (balance, entries, points, points_entries) = (number(n1)?, number(n2)?, number(n3)?, number(n4)?);
            Row::OfUser(id.into(), OfUser::Account(Account { user: id.into(), balance, points, entries, points_entries }))
        }
        (Key::User, 1) => {
            let (seq, amount, balance) = (number(n1)?, number(n2)?, number(n3)?);
            Row::OfUser(id.into(), OfUser::Entry { seq, kind: state(word)?, amount, balance })
        }
        (Key::User, _) => {
            let (seq, points, balance) = (number(n1)?, number(n2)?, number(n3)?);
            Row::OfUser(id.into(), OfUser::Points { seq, kind: state(word)?, points, balance })
        }
        (Key::Payment, 0) => {
            let refund = match (n4, n5, n6) {
                (Some(amount), Some(points_restored), Some(points_taken_back)) => {
                    Some(Refunded { amount, points_restored, points_taken_back })
                }
                _ => None,
            };
            let (user, reservation) = (id_of(a)?.into(), id_of(b)?.into());
            let (amount, points_spent, points_granted) = (number(n1)?, number(n2)?, number(n3)?);
            let payment = PaymentMade { user, reservation, amount, points_spent, points_granted, refund };
            Row::OfPayment(id.into(), OfPayment::Payment(payment))
        }
        (Key::Payment, 1) => {
            Row::OfPayment(id.into(), OfPayment::Entry { user: id_of(a)?.into(), kind: state(word)?, amount: number(n1)? })
        }
        (Key::Payment, 2) => {
            Row::OfPayment(id.into(), OfPayment::Points { user: id_of(a)?.into(), kind: state(word)?, points: number(n1)? })
        }
        (Key::Payment, _) => {
            Row::OfPayment(id.into(), OfPayment::Claim { claim: claim(a, b)?, reservation: c.map(|reservation| reservation.0.into()) })
        }
        (Key::Reservation, 0) => {
            let held_for = value("snapshot", snapshot)?.0.seats;
            let held_for: Vec<_> = held_for.into_iter().map(|seat| (seat.number, seat.price)).collect();
            // A store that keeps no list of its own locks what the snapshot names.
            let seats = list.map_or_else(|| held_for.iter().map(|(number, _)| *number).collect(), |list| list.0);
            let reservation = ReservationMade {
                user: id_of(a)?.into(),
                concert: id_of(b)?.into(),
                date: id_of(c)?.into(),
                status: state(word)?,
                expires_at: value("instant", at)?,
                payment: d.map(|payment| payment.0.into()),
                seat_count: narrow("count of seats", number(n1)?)?,
                seats,
                held_for,
            };
            Row::OfReservation(id.into(), OfReservation::Reservation(reservation))
        }
        (Key::Reservation, 1) => {
            let (user, concert, payment) = (id_of(a)?.into(), id_of(b)?.into(), id_of(c)?.into());
            let paid = PaidFor { payment, user, concert, amount: number(n1)?, points_spent: number(n2)?, refunded: n3.is_some() };
            Row::OfReservation(id.into(), OfReservation::Payment(paid))
        }
        (Key::Reservation, 2) => {
            let seat = SeatKey { date: id_of(a)?.into(), number: narrow("seat number", number(n1)?)? };
            Row::OfReservation(id.into(), OfReservation::Seat(SeatNaming { seat, held_until: at }))
        }
        (Key::Reservation, _) => Row::OfReservation(id.into(), OfReservation::Claim(claim(a, b)?)),
        (Key::Date, 0) => Row::OfDate(id.into(), OfDate::Date { seats_total: number(n1)?.unsigned_abs() }),
        (Key::Date, 1) => {
            let state = seat_state_of(state::<StateWord>(word)?, b.map(|reservation| reservation.0.into()), at)?;
            Row::OfDate(id.into(), OfDate::Seat(state))
        }
        (Key::Date, _) => {
            let (user, status, expires_at) = (id_of(a)?.into(), state(word)?, value("instant", at)?);
            let seat_count = narrow("count of seats", number(n1)?)?;
            Row::OfDate(id.into(), OfDate::Reservation { user, status, expires_at, seat_count })
        }
        (Key::Entry, 0) => Row::OfEntry(id.into(), OfEntry::Entry { user: id_of(a)?.into(), seq: number(n1)?, amount: number(n2)? }),
        (Key::Entry, _) => {
            let (user, seq, amount) = (a.map(|owner| owner.0.into()), n1, n2);
            Row::OfEntry(id.into(), OfEntry::Claim { claim: claim(b, c)?, user, seq, amount })
        }
    })
}

fn value<T>(what: &str, column: Option<T>) -> Result<T, Contradiction> {
    column.ok_or_else(|| Contradiction(format!("a row of the audit has no {what}")))
}

fn state<T: Word>(word: Option<&str>) -> Result<T, Contradiction> {
    let state = State::<T>::of(value("state", word)?.as_bytes());
    state.map(|state| state.0).map_err(|error| Contradiction(error.to_string()))
}
