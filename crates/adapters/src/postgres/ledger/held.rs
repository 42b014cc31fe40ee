//! Which rows another transaction has locked: one round trip that waits for no lock.
//!
//! Each statement locks the free rows with `SKIP LOCKED` and returns the keys of existing rows that it skipped. The
//! roll-back at the end of the same round trip releases the locks, so other transactions wait for them about as long as a
//! round trip; it runs only after a lock time-out. A row whose insert is not committed is not seen.

use super::keys::Keys;
use crate::postgres::failure::Failure;
use crate::postgres::session::{Known, Session, known};
use crate::postgres::sql::{Id, statements};
use boxoffice_domain::{DateId, Key, PaymentId, ReservationId, Roots, SeatKey, SeatNumber, UserId};
use diesel::sql_types::{Integer, Uuid as SqlUuid};
use std::collections::BTreeSet;
use uuid::Uuid;

/// The classes of roots, as the statements write them.
const PAYMENT: i32 = 1;
const RESERVATION: i32 = 2;
const SEAT: i32 = 3;
const ACCOUNT: i32 = 4;

/// The keys `k` in `$from` whose row exists and is locked by another transaction.
macro_rules! locked {
    ($columns:literal, $from:literal, $table:literal, $row:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM ",
            $from,
            " CROSS JOIN LATERAL (SELECT FROM ",
            $table,
            " WHERE ",
            $row,
            " OFFSET 0) there
              LEFT JOIN LATERAL (SELECT true AS taken FROM ",
            $table,
            " WHERE ",
            $row,
            " OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED) free ON true
              WHERE free.taken IS NULL"
        )
    };
}

/// Class, id, and a seat's number.
type RootTypes = (Integer, SqlUuid, Integer);
type RootRow = (i32, Id<Uuid>, i32);

statements! {
    HeldPayments -> RootTypes = locked!("1, k.id, 0", "unnest($1::uuid[]) k(id)", "payments", "id = k.id");
    HeldReservations -> RootTypes = locked!(
        "k.class, k.root, 0",
        "(SELECT 2 AS class, id AS root, id FROM unnest($1::uuid[]) id
          UNION ALL SELECT 1, k.id, p.reservation_id FROM unnest($2::uuid[]) k(id)
          CROSS JOIN LATERAL (SELECT reservation_id FROM payments WHERE id = k.id OFFSET 0) p) k",
        "reservations",
        "id = k.id"
    );
    HeldSeats -> RootTypes = locked!(
        "k.class, k.root, k.root_number",
        "(SELECT 3 AS class, date_id AS root, number AS root_number, date_id, number
          FROM unnest($1::uuid[], $2::integer[]) k(date_id, number)
          UNION ALL SELECT 2, k.id, 0, r.date_id, unnest(r.seats) FROM unnest($3::uuid[]) k(id)
          CROSS JOIN LATERAL (SELECT date_id, seats FROM reservations WHERE id = k.id OFFSET 0) r
          UNION ALL SELECT 1, k.id, 0, r.date_id, unnest(r.seats) FROM unnest($4::uuid[]) k(id)
          CROSS JOIN LATERAL (SELECT reservation_id FROM payments WHERE id = k.id OFFSET 0) p
          CROSS JOIN LATERAL (SELECT date_id, seats FROM reservations WHERE id = p.reservation_id OFFSET 0) r) k",
        "seats",
        "date_id = k.date_id AND number = k.number"
    );
    HeldAccounts -> RootTypes = locked!("4, k.id, 0", "unnest($1::uuid[]) k(id)", "accounts", "user_id = k.id");
    Begin = "BEGIN ISOLATION LEVEL READ COMMITTED";
    Rollback = "ROLLBACK";
}

pub(super) fn statements_of_held() -> Vec<Known> {
    vec![
        known::<Begin>(),
        known::<HeldPayments>(),
        known::<HeldReservations>(),
        known::<HeldSeats>(),
        known::<HeldAccounts>(),
        known::<Rollback>(),
    ]
}

/// The roots that cannot be locked now. The session is in no transaction afterwards.
pub(super) async fn roots(session: &Session, roots: &Roots) -> Result<BTreeSet<Key>, Failure> {
    let Keys { payments, reservations, seats, accounts, .. } = Keys::of(roots)?;
    let hangs = !payments.is_empty() || !reservations.is_empty();
    let (_, of_payments, of_reservations, of_seats, of_accounts, _) = session
        .round_trip(async {
            tokio::try_join!(
                biased;
                session.begin::<Begin>(),
                session.rows_if::<HeldPayments, RootRow>(!payments.is_empty(), (payments.clone(),)),
                session.rows_if::<HeldReservations, RootRow>(hangs, (reservations.clone(), payments.clone())),
                session.rows_if::<HeldSeats, RootRow>(hangs || !seats.0.is_empty(), (seats.0, seats.1, reservations.clone(), payments.clone())),
                session.rows_if::<HeldAccounts, RootRow>(!accounts.is_empty(), (accounts,)),
                session.run::<Rollback>(()),
            )
        })
        .await?;
    [of_payments, of_reservations, of_seats, of_accounts].into_iter().flatten().map(key).collect()
}

fn key((class, Id(id), number): RootRow) -> Result<Key, Failure> {
    let unknown = || Failure::Data("a locked row has no class".to_owned());
    Ok(match class {
        PAYMENT => Key::Payment(PaymentId(id)),
        RESERVATION => Key::Reservation(ReservationId(id)),
        SEAT => Key::Seat(SeatKey { date: DateId(id), number: SeatNumber::try_from(number).map_err(|_| unknown())? }),
        ACCOUNT => Key::Account(UserId(id)),
        _ => return Err(unknown()),
    })
}
