//! Round trip 1: rows locked by class, then rows that are only read, then the clock.
//!
//! Each locking statement exists twice: with locks for `Guard::RowLock`, and plain for `Guard::Version`.

use super::keys::Keys;
use super::known::KnownAccounts;
use crate::postgres::failure::{Failure, PostgresError};
use crate::postgres::rows::{
    PaymentRow, PaymentTypes, ReplyRow, ReplyTypes, ReservationRow, ReservationTypes, SeatColumns, SeatTypes, occupied, payment,
    payment_columns, reservation, reservation_columns, seat, seat_columns, stored_reply,
};
use crate::postgres::session::{Known, Session, known};
use crate::postgres::sql::{Id, State, Statement, Tid, TidType, statements};
use crate::sql::catalog::{TermsRow, terms, terms_columns};
use boxoffice_domain::batch::LiveHold;
use boxoffice_domain::{
    Account, CommandId, ConcertId, DateId, IdempotencyKey, PaymentId, ReservationId, ReservationStatus, Roots, SeatKey, Timestamp, Tracked,
    UserId, WorkingSet,
};
use boxoffice_ports::Guard;
use chrono::TimeDelta;
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// The working set, and the rest that its write needs.
pub(super) struct Loaded {
    pub(super) set: WorkingSet,
    pub(super) places: Places,
    /// Keys under which a reply is stored, expired or not.
    pub(super) answered: HashSet<IdempotencyKey>,
    /// Accounts as they were read, if their next version is already written.
    pub(super) bumped: HashMap<UserId, Account>,
}

/// The places of the rows that were read.
#[derive(Default)]
pub(super) struct Places {
    pub(super) payments: HashMap<PaymentId, Tid>,
    pub(super) reservations: HashMap<ReservationId, Tid>,
    pub(super) seats: HashMap<SeatKey, Tid>,
    pub(super) accounts: HashMap<UserId, Tid>,
}

// Each statement selects `FROM` a sorted list of keys `k`, each row by its key. The only possible plan loops over the list
// and looks each key up, so the keys' order is the order in which rows are locked.

macro_rules! payments {
    ($lock:literal) => {
        concat!(
            "SELECT ",
            payment_columns!(),
            ", p.ctid FROM unnest($1::uuid[]) k(id)
             CROSS JOIN LATERAL (SELECT *, ctid FROM payments WHERE id = k.id OFFSET 0 ",
            $lock,
            ") p"
        )
    };
}

macro_rules! reservations {
    ($lock:literal) => {
        concat!(
            "SELECT ",
            reservation_columns!(),
            ", r.ctid FROM (
                 SELECT id FROM unnest($1::uuid[]) id
                 UNION SELECT p.reservation_id FROM unnest($2::uuid[]) k(id)
                 CROSS JOIN LATERAL (SELECT reservation_id FROM payments WHERE id = k.id OFFSET 0) p
                 ORDER BY 1) k
             CROSS JOIN LATERAL (SELECT *, ctid FROM reservations WHERE id = k.id OFFSET 0 ",
            $lock,
            ") r"
        )
    };
}

/// For a batch whose only seats are roots.
macro_rules! seats {
    ($lock:literal) => {
        concat!(
            "SELECT ",
            seat_columns!(),
            ", s.ctid FROM unnest($1::uuid[], $2::integer[]) k(date_id, number)
             CROSS JOIN LATERAL (SELECT *, ctid FROM seats WHERE date_id = k.date_id AND number = k.number OFFSET 0 ",
            $lock,
            ") s"
        )
    };
}

/// Seats that are roots, of reservations, and of the reservations of payments.
macro_rules! seats_of {
    ($lock:literal) => {
        concat!(
            "SELECT ",
            seat_columns!(),
            ", s.ctid FROM (
                 SELECT date_id, number FROM unnest($1::uuid[], $2::integer[]) k(date_id, number)
                 UNION SELECT r.date_id, unnest(r.seats) FROM unnest($3::uuid[]) k(id)
                 CROSS JOIN LATERAL (SELECT date_id, seats FROM reservations WHERE id = k.id OFFSET 0) r
                 UNION SELECT r.date_id, unnest(r.seats) FROM unnest($4::uuid[]) k(id)
                 CROSS JOIN LATERAL (SELECT reservation_id FROM payments WHERE id = k.id OFFSET 0) p
                 CROSS JOIN LATERAL (SELECT date_id, seats FROM reservations WHERE id = p.reservation_id OFFSET 0) r
                 ORDER BY 1, 2) k
             CROSS JOIN LATERAL (SELECT *, ctid FROM seats WHERE date_id = k.date_id AND number = k.number OFFSET 0 ",
            $lock,
            ") s"
        )
    };
}

macro_rules! accounts {
    ($lock:literal) => {
        concat!(
            "SELECT a.user_id, a.balance, a.points, a.entries, a.points_entries, a.version, a.ctid FROM unnest($1::uuid[]) k(id)
             CROSS JOIN LATERAL (SELECT *, ctid FROM accounts WHERE user_id = k.id OFFSET 0 ",
            $lock,
            ") a"
        )
    };
}

type AccountTypes = (SqlUuid, BigInt, BigInt, BigInt, BigInt, BigInt, TidType);
type AccountRow = (Id<UserId>, i64, i64, i64, i64, i64, Tid);

statements! {
    Begin = "BEGIN ISOLATION LEVEL READ COMMITTED";
    BeginSnapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ";
    LockPayments -> (PaymentTypes, TidType) = payments!("FOR NO KEY UPDATE");
    ReadPayments -> (PaymentTypes, TidType) = payments!("");
    LockReservations -> (ReservationTypes, TidType) = reservations!("FOR NO KEY UPDATE");
    ReadReservations -> (ReservationTypes, TidType) = reservations!("");
    LockSeats -> (SeatTypes, TidType) = seats!("FOR NO KEY UPDATE");
    ReadSeats -> (SeatTypes, TidType) = seats!("");
    LockSeatsOf -> (SeatTypes, TidType) = seats_of!("FOR NO KEY UPDATE");
    ReadSeatsOf -> (SeatTypes, TidType) = seats_of!("");
    /// Version 0: no command has written to them yet.
    InsertAccounts =
        "INSERT INTO accounts (user_id, balance, points, entries, points_entries, version)
         SELECT id, 0, 0, 0, 0, 0 FROM unnest($1::uuid[]) k(id) ON CONFLICT DO NOTHING";
    LockAccounts -> AccountTypes = accounts!("FOR NO KEY UPDATE");
    ReadAccounts -> AccountTypes = accounts!("");
    /// Locks and writes the next version in one statement: a hold changes nothing else of its account.
    BumpAccounts -> AccountTypes =
        "UPDATE accounts a SET version = a.version + 1 FROM unnest($1::uuid[]) k(id) WHERE a.user_id = k.id
         RETURNING a.user_id, a.balance, a.points, a.entries, a.points_entries, a.version, a.ctid";
    SelectReplies -> (SqlUuid, SqlUuid, ReplyTypes) =
        "SELECT r.user_id, r.command_id, r.fingerprint, r.body, r.decided_at, r.expires_at
         FROM unnest($1::uuid[], $2::uuid[]) k(user_id, command_id)
         CROSS JOIN LATERAL (SELECT * FROM replies WHERE user_id = k.user_id AND command_id = k.command_id OFFSET 0) r";
    SelectTerms -> (SqlUuid, (SqlUuid, Text, Text, Timestamptz, Nullable<Timestamptz>, Timestamptz, Timestamptz, Timestamptz)) = concat!(
        "SELECT d.id, ", terms_columns!(), "
         FROM (SELECT id FROM unnest($1::uuid[]) id
               UNION SELECT r.date_id FROM unnest($2::uuid[]) k(id)
               CROSS JOIN LATERAL (SELECT reservation_id FROM payments WHERE id = k.id OFFSET 0) p
               CROSS JOIN LATERAL (SELECT date_id FROM reservations WHERE id = p.reservation_id OFFSET 0) r
               UNION SELECT r.date_id FROM unnest($3::uuid[]) k(id)
               CROSS JOIN LATERAL (SELECT date_id FROM reservations WHERE id = k.id OFFSET 0) r) k
         CROSS JOIN LATERAL (SELECT * FROM dates WHERE id = k.id OFFSET 0) d
         CROSS JOIN LATERAL (SELECT * FROM concerts WHERE id = d.concert_id OFFSET 0) c"
    );
    SelectOccupied -> (SqlUuid, SqlUuid, SqlUuid, Integer, Text, Timestamptz) =
        "SELECT k.user_id, k.date_id, r.id, r.seats, r.status, r.expires_at
         FROM unnest($1::uuid[], $2::uuid[]) k(user_id, date_id)
         CROSS JOIN LATERAL (
             SELECT id, cardinality(seats) AS seats, status, expires_at FROM reservations
             WHERE user_id = k.user_id AND date_id = k.date_id AND status IN ('held', 'confirmed') OFFSET 0) r";
    SelectHolds -> (SqlUuid, SqlUuid, SqlUuid, Text, Timestamptz) =
        "SELECT k.user_id, r.id, r.concert_id, r.status, r.expires_at
         FROM unnest($1::uuid[]) k(user_id)
         CROSS JOIN LATERAL (
             SELECT id, concert_id, status, expires_at FROM reservations
             WHERE user_id = k.user_id AND status IN ('held', 'confirmed') OFFSET 0) r";
    SelectClock -> Timestamptz = "SELECT clock_timestamp()";
}

pub(super) fn statements_of_load() -> Vec<Known> {
    vec![
        known::<Begin>(),
        known::<BeginSnapshot>(),
        known::<LockPayments>(),
        known::<ReadPayments>(),
        known::<LockReservations>(),
        known::<ReadReservations>(),
        known::<LockSeats>(),
        known::<ReadSeats>(),
        known::<LockSeatsOf>(),
        known::<ReadSeatsOf>(),
        known::<InsertAccounts>(),
        known::<LockAccounts>(),
        known::<ReadAccounts>(),
        known::<BumpAccounts>(),
        known::<SelectReplies>(),
        known::<SelectTerms>(),
        known::<SelectOccupied>(),
        known::<SelectHolds>(),
        known::<SelectClock>(),
    ]
}

type KeyedReply = (Id<UserId>, Id<CommandId>, ReplyRow);
type OccupiedRow = (Id<UserId>, Id<DateId>, Id<ReservationId>, i32, State<ReservationStatus>, Timestamp);
type HoldRow = (Id<UserId>, Id<ReservationId>, Id<ConcertId>, State<ReservationStatus>, Timestamp);

/// Which form of each statement is used.
trait Mode {
    type Begin: Statement;
    type Payments: Statement<Columns = (PaymentTypes, TidType)>;
    type Reservations: Statement<Columns = (ReservationTypes, TidType)>;
    type Seats: Statement<Columns = (SeatTypes, TidType)>;
    type SeatsOf: Statement<Columns = (SeatTypes, TidType)>;
    type Accounts: Statement<Columns = AccountTypes>;
}

macro_rules! modes {
    ($($(#[$doc:meta])* $mode:ident: $begin:ty, $payments:ty, $reservations:ty, $seats:ty, $seats_of:ty, $accounts:ty;)*) => {$(
        $(#[$doc])*
        struct $mode;
        impl Mode for $mode {
            type Begin = $begin;
            type Payments = $payments;
            type Reservations = $reservations;
            type Seats = $seats;
            type SeatsOf = $seats_of;
            type Accounts = $accounts;
        }
    )*};
}
modes! {
    Locking: Begin, LockPayments, LockReservations, LockSeats, LockSeatsOf, LockAccounts;
    /// For a batch with a hold. All of its accounts are written, so that they are locked in one order.
    Bumping: Begin, LockPayments, LockReservations, LockSeats, LockSeatsOf, BumpAccounts;
    Snapshot: BeginSnapshot, ReadPayments, ReadReservations, ReadSeats, ReadSeatsOf, ReadAccounts;
}

/// The answers of the round trip.
struct Found {
    payments: Vec<(PaymentRow, Tid)>,
    reservations: Vec<(ReservationRow, Tid)>,
    seats: Vec<(SeatColumns, Tid)>,
    accounts: Vec<AccountRow>,
    replies: Vec<KeyedReply>,
    terms: Vec<(Id<DateId>, TermsRow<Timestamp>)>,
    occupied: Vec<OccupiedRow>,
    holds: Vec<HoldRow>,
    now: Timestamp,
}

/// `offset` is added to the server's clock.
pub(super) async fn working_set(
    session: &Session,
    roots: &Roots,
    guard: Guard,
    known: &KnownAccounts,
    offset: TimeDelta,
) -> Result<Loaded, Failure> {
    let keys = Keys::of(roots)?;
    let bumping = !roots.occupied.is_empty();
    let found = match guard {
        Guard::Version => Box::pin(fetch::<Snapshot>(session, keys, Vec::new())).await?,
        Guard::RowLock => {
            let unknown = known.unknown(&roots.accounts);
            let found = match bumping {
                true => Box::pin(fetch::<Bumping>(session, keys, unknown)).await?,
                false => Box::pin(fetch::<Locking>(session, keys, unknown)).await?,
            };
            if found.accounts.len() != roots.accounts.len() {
                known.forget(&roots.accounts);
                return Err(PostgresError::AccountMissing.into());
            }
            found
        }
    };
    let now = found.now + offset;
    assemble(found, roots, now, bumping && guard == Guard::RowLock)
}

async fn fetch<M: Mode>(session: &Session, keys: Keys, unknown: Vec<Uuid>) -> Result<Found, Failure> {
    let Keys { payments, reservations, seats, accounts, replies, dates, occupied, payers } = keys;
    let hangs = !payments.is_empty() || !reservations.is_empty();
    let (refunds, roots) = (payments.clone(), reservations.clone());
    // A refund needs its date's terms, even if this batch makes the payment it refunds.
    let paid_here = if payments.is_empty() { Vec::new() } else { reservations.clone() };
    let (_, payments, reservations, seats, seats_of, _, accounts, replies, terms, occupied, holds, clock) = session
        .round_trip(async {
            tokio::try_join!(
                biased;
                session.begin::<M::Begin>(),
                session.rows_if::<M::Payments, _>(!payments.is_empty(), (payments.clone(),)),
                session.rows_if::<M::Reservations, _>(hangs, (reservations.clone(), payments.clone())),
                session.rows_if::<M::Seats, _>(!hangs && !seats.0.is_empty(), (seats.0.clone(), seats.1.clone())),
                session.rows_if::<M::SeatsOf, _>(hangs, (seats.0.clone(), seats.1.clone(), roots, refunds)),
                session.run_if::<InsertAccounts>(!unknown.is_empty(), (unknown,)),
                session.rows_if::<M::Accounts, _>(!accounts.is_empty(), (accounts,)),
                session.rows_if::<SelectReplies, _>(!replies.0.is_empty(), replies),
                session.rows_if::<SelectTerms, _>(!dates.is_empty() || !payments.is_empty(), (dates, payments.clone(), paid_here)),
                session.rows_if::<SelectOccupied, _>(!occupied.0.is_empty(), occupied),
                session.rows_if::<SelectHolds, _>(!payers.is_empty(), (payers,)),
                session.rows::<SelectClock, Timestamp>(()),
            )
        })
        .await?;
    let now = clock.first().copied().ok_or_else(|| Failure::Data("the server returned no time".to_owned()))?;
    let seats = if hangs { seats_of } else { seats };
    Ok(Found { payments, reservations, seats, accounts, replies, terms, occupied, holds, now })
}

fn assemble(found: Found, roots: &Roots, now: Timestamp, bumped: bool) -> Result<Loaded, Failure> {
    let mut set = WorkingSet::new(now);
    let mut places = Places::default();
    for (row, place) in found.payments {
        let (value, version) = payment(row);
        places.payments.insert(value.id, place);
        set.payments.insert(value.id, Tracked::read(value, version));
    }
    for (row, place) in found.reservations {
        let (value, version) = reservation(row)?;
        places.reservations.insert(value.id, place);
        set.reservations.insert(value.id, Tracked::read(value, version));
    }
    for (row, place) in found.seats {
        let (value, version) = seat(row)?;
        places.seats.insert(value.key, place);
        set.seats.insert(value.key, Tracked::read(value, version));
    }
    let mut as_bumped = HashMap::new();
    for (user, balance, points, entries, points_entries, version, place) in found.accounts {
        let value = Account { user: user.0, balance, points, entries, points_entries };
        if bumped {
            as_bumped.insert(user.0, value.clone());
        }
        places.accounts.insert(user.0, place);
        set.accounts.insert(user.0, Tracked::read(value, version));
    }
    let mut answered = HashSet::with_capacity(found.replies.len());
    for (user, command, row) in found.replies {
        let key = IdempotencyKey { user: user.0, command: command.0 };
        answered.insert(key);
        set.replies.insert(key, stored_reply(row)?);
    }
    for (date, row) in found.terms {
        set.dates.insert(date.0, Arc::new(terms(date.0, row)));
    }
    set.occupied = roots.occupied.iter().map(|key| (*key, HashMap::new())).collect();
    for (user, date, id, seats, status, expires_at) in found.occupied {
        set.occupied.entry((user.0, date.0)).or_default().insert(id.0, occupied(seats, status, expires_at)?);
    }
    set.holds = roots.payers.iter().map(|user| (*user, HashMap::new())).collect();
    for (user, id, concert, status, until) in found.holds {
        // Confirmed reservations are read, too: the index holds both, and one user has few.
        if status.0 == ReservationStatus::Held {
            set.holds.entry(user.0).or_default().insert(id.0, LiveHold { concert: concert.0, until });
        }
    }
    Ok(Loaded { set, places, answered, bumped: as_bumped })
}
