//! Flight 1: rows locked by class, then what is read beside them, then the clock.
//!
//! Each statement exists twice: locking, for `Guard::RowLock`, and plain, for `Guard::Version`.

use super::{PostgresLedger, ReplyRow, stored_reply};
use crate::postgres::failure::Failure;
use crate::postgres::rows::{
    PaymentRow, PaymentTypes, ReservationRow, ReservationTypes, SeatColumns, SeatTypes, narrow, payment, payment_columns, reservation,
    reservation_columns, seat, seat_columns,
};
use crate::postgres::session::{Known, Session, known};
use crate::postgres::sql::{Id, State, Statement, Tid, TidType, statements};
use boxoffice_domain::batch::{HoldOf, Occupied};
use boxoffice_domain::{
    Account, ConcertId, ConcertRef, DateId, DateRef, DateTerms, IdempotencyKey, PaymentId, ReservationId, ReservationStatus, Roots,
    SeatKey, Timestamp, Tracked, UserId, WorkingSet,
};
use boxoffice_ports::Guard;
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// The working set, and what writing it needs beside.
pub(super) struct Loaded {
    pub(super) set: WorkingSet,
    pub(super) places: Places,
    /// Keys under which a reply is stored, expired or not.
    pub(super) answered: HashSet<IdempotencyKey>,
    /// What accounts were when they were read at the version that is written already.
    pub(super) bumped: HashMap<UserId, Account>,
}

/// Where the rows lie that were read.
#[derive(Default)]
pub(super) struct Places {
    pub(super) payments: HashMap<PaymentId, Tid>,
    pub(super) reservations: HashMap<ReservationId, Tid>,
    pub(super) seats: HashMap<SeatKey, Tid>,
    pub(super) accounts: HashMap<UserId, Tid>,
}

// `FROM` a sorted list of keys `k`, in that order, each row by its key: the only plan there is loops over the list and
// looks each key up. The keys' order is the order in which rows are locked.

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

/// Seats that are roots themselves.
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

/// Beside them, seats of reservations, and of the reservations of payments.
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
    /// Version 0: nothing was written to them yet.
    InsertAccounts =
        "INSERT INTO accounts (user_id, balance, points, entries, points_entries, version)
         SELECT id, 0, 0, 0, 0, 0 FROM unnest($1::uuid[]) k(id) ON CONFLICT DO NOTHING";
    LockAccounts -> AccountTypes = accounts!("FOR NO KEY UPDATE");
    ReadAccounts -> AccountTypes = accounts!("");
    /// Locks and writes the next version in one: a hold changes nothing else of its account.
    BumpAccounts -> AccountTypes =
        "UPDATE accounts a SET version = a.version + 1 FROM unnest($1::uuid[]) k(id) WHERE a.user_id = k.id
         RETURNING a.user_id, a.balance, a.points, a.entries, a.points_entries, a.version, a.ctid";
    SelectReplies -> (SqlUuid, SqlUuid, Binary, Text, Timestamptz, Timestamptz) =
        "SELECT r.user_id, r.command_id, r.fingerprint, r.body, r.decided_at, r.expires_at
         FROM unnest($1::uuid[], $2::uuid[]) k(user_id, command_id)
         CROSS JOIN LATERAL (SELECT * FROM replies WHERE user_id = k.user_id AND command_id = k.command_id OFFSET 0) r";
    SelectTerms -> (SqlUuid, SqlUuid, Text, Text, Timestamptz, Nullable<Timestamptz>, Timestamptz, Timestamptz, Timestamptz) =
        "SELECT d.id, c.id, c.name, c.venue, d.starts_at, d.ends_at, d.booking_opens_at, d.booking_closes_at, d.refund_closes_at
         FROM (SELECT id FROM unnest($1::uuid[]) id
               UNION SELECT r.date_id FROM unnest($2::uuid[]) k(id)
               CROSS JOIN LATERAL (SELECT reservation_id FROM payments WHERE id = k.id OFFSET 0) p
               CROSS JOIN LATERAL (SELECT date_id FROM reservations WHERE id = p.reservation_id OFFSET 0) r
               UNION SELECT r.date_id FROM unnest($3::uuid[]) k(id)
               CROSS JOIN LATERAL (SELECT date_id FROM reservations WHERE id = k.id OFFSET 0) r) k
         CROSS JOIN LATERAL (SELECT * FROM dates WHERE id = k.id OFFSET 0) d
         CROSS JOIN LATERAL (SELECT * FROM concerts WHERE id = d.concert_id OFFSET 0) c";
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

type TermsRow = (Id<DateId>, Id<ConcertId>, String, String, Timestamp, Option<Timestamp>, Timestamp, Timestamp, Timestamp);
type OccupiedRow = (Id<UserId>, Id<DateId>, Id<ReservationId>, i32, State<ReservationStatus>, Timestamp);
type HoldRow = (Id<UserId>, Id<ReservationId>, Id<ConcertId>, State<ReservationStatus>, Timestamp);

/// The roots as arrays, one for each column.
pub(super) struct Keys {
    pub(super) payments: Vec<Uuid>,
    pub(super) reservations: Vec<Uuid>,
    pub(super) seats: (Vec<Uuid>, Vec<i32>),
    pub(super) accounts: Vec<Uuid>,
    replies: (Vec<Uuid>, Vec<Uuid>),
    dates: Vec<Uuid>,
    occupied: (Vec<Uuid>, Vec<Uuid>),
    payers: Vec<Uuid>,
}

impl Keys {
    pub(super) fn of(roots: &Roots) -> Result<Self, Failure> {
        let numbers = roots.seats.iter().map(|key| i32::try_from(key.number));
        let numbers = numbers.collect::<Result<_, _>>().map_err(|_| Failure::Data("a seat number is out of range".to_owned()))?;
        Ok(Self {
            payments: roots.payments.iter().map(|id| id.0).collect(),
            reservations: roots.reservations.iter().map(|id| id.0).collect(),
            seats: (roots.seats.iter().map(|key| key.date.0).collect(), numbers),
            accounts: roots.accounts.iter().map(|id| id.0).collect(),
            replies: roots.replies.iter().map(|key| (key.user.0, key.command.0)).unzip(),
            dates: roots.dates.iter().map(|id| id.0).collect(),
            occupied: roots.occupied.iter().map(|(user, date)| (user.0, date.0)).unzip(),
            payers: roots.payers.iter().map(|user| user.0).collect(),
        })
    }
}

/// Which of a statement's forms are used.
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
    /// With a hold in the batch. All of its accounts are written, so that they are locked in one order.
    Bumping: Begin, LockPayments, LockReservations, LockSeats, LockSeatsOf, BumpAccounts;
    Snapshot: BeginSnapshot, ReadPayments, ReadReservations, ReadSeats, ReadSeatsOf, ReadAccounts;
}

/// What the flight brings.
struct Found {
    payments: Vec<(PaymentRow, Tid)>,
    reservations: Vec<(ReservationRow, Tid)>,
    seats: Vec<(SeatColumns, Tid)>,
    accounts: Vec<AccountRow>,
    replies: Vec<ReplyRow>,
    terms: Vec<TermsRow>,
    occupied: Vec<OccupiedRow>,
    holds: Vec<HoldRow>,
    now: Timestamp,
}

pub(super) async fn working_set(session: &Session, roots: &Roots, guard: Guard, ledger: &PostgresLedger) -> Result<Loaded, Failure> {
    let keys = Keys::of(roots)?;
    let bumping = !roots.occupied.is_empty();
    let found = match guard {
        Guard::Version => Box::pin(flight::<Snapshot>(session, keys, Vec::new())).await?,
        Guard::RowLock => {
            let unknown = ledger.known.unknown(&roots.accounts);
            let found = match bumping {
                true => Box::pin(flight::<Bumping>(session, keys, unknown)).await?,
                false => Box::pin(flight::<Locking>(session, keys, unknown)).await?,
            };
            if found.accounts.len() != roots.accounts.len() {
                ledger.known.forget(&roots.accounts);
                return Err(Failure::AccountGone);
            }
            found
        }
    };
    let now = found.now + ledger.clock.offset();
    assemble(found, roots, now, bumping && guard == Guard::RowLock)
}

async fn flight<M: Mode>(session: &Session, keys: Keys, unknown: Vec<Uuid>) -> Result<Found, Failure> {
    let Keys { payments, reservations, seats, accounts, replies, dates, occupied, payers } = keys;
    let hangs = !payments.is_empty() || !reservations.is_empty();
    let (refunds, roots) = (payments.clone(), reservations.clone());
    // A refund asks for its date's terms, also one of a payment that this batch makes.
    let paid_here = if payments.is_empty() { Vec::new() } else { reservations.clone() };
    let (_, payments, reservations, seats, seats_of, _, accounts, replies, terms, occupied, holds, clock) = session
        .flight(async {
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
    let now = clock.first().copied().ok_or_else(|| Failure::Data("the server has no clock".to_owned()))?;
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
    for row in found.replies {
        let (key, stored) = stored_reply(row)?;
        answered.insert(key);
        set.replies.insert(key, stored);
    }
    for (id, concert, name, venue, starts_at, ends_at, opens_at, closes_at, refund_closes_at) in found.terms {
        let terms = DateTerms {
            concert: ConcertRef { id: concert.0, name: name.into(), venue: venue.into() },
            date: DateRef { id: id.0, starts_at, ends_at },
            booking_opens_at: opens_at,
            booking_closes_at: closes_at,
            refund_closes_at,
        };
        set.dates.insert(id.0, Arc::new(terms));
    }
    set.occupied = roots.occupied.iter().map(|key| (*key, HashMap::new())).collect();
    for (user, date, id, seats, status, expires_at) in found.occupied {
        let live_until = (status.0 == ReservationStatus::Held).then_some(expires_at);
        let occupied = Occupied { seats: narrow("seats of a reservation", seats)?, live_until };
        set.occupied.entry((user.0, date.0)).or_default().insert(id.0, occupied);
    }
    set.holds = roots.payers.iter().map(|user| (*user, HashMap::new())).collect();
    for (user, id, concert, status, until) in found.holds {
        // What is sold is read with them: the index that finds both is small, and so is what one user has.
        if status.0 == ReservationStatus::Held {
            set.holds.entry(user.0).or_default().insert(id.0, HoldOf { concert: concert.0, until });
        }
    }
    Ok(Loaded { set, places, answered, bumped: as_bumped })
}
