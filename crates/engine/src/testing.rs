//! What the tests of this crate share: requests, a policy, a clock, and a scripted ledger.

pub(crate) mod log;
pub(crate) mod room;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{
    Actor, Admission, AdmissionMode, Batch, Command, CommandId, ConcertRef, DateRef, Decision, Fingerprint, FreshIds, IdempotencyKey, Key,
    Outcome, Payment, Policy, Rejection, Reply, Request, Reservation, ReservationStatus, Seat, SeatAtSale, SeatKey, SeatState, Timestamp,
};
use boxoffice_ports::{
    Clock, Committed, ConcertRow, DateRow, Deadline, Guard, Ids, Ledger, LedgerError, MockQueries, SeatRow, StoredAnswer,
};
use chrono::{DateTime, TimeDelta};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::Catalogue;

pub(crate) fn id<T: From<Uuid>>(n: u128) -> T {
    Uuid::from_u128(n).into()
}

pub(crate) fn at(s: i64) -> Timestamp {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(s)
}

pub(crate) fn policy() -> Arc<Policy> {
    Arc::new(Policy {
        hold_ttl_s: 300,
        extensions_max: 1,
        max_seats_per_user: 4,
        amount_max: 1_000_000,
        balance_max: 1_000_000_000,
        reward_percent: 5,
        idempotency_ttl_s: 60,
    })
}

/// How long the tests' callers wait.
pub(crate) const WAIT: Duration = Duration::from_secs(3);

/// The deadline of a request that comes now.
pub(crate) fn soon() -> Deadline {
    Deadline::after(WAIT)
}

/// A charge of user `user` as command `n`.
pub(crate) fn charge(user: u128, n: u128) -> Request {
    let fresh = Uuid::from_u128(n);
    Request {
        command_id: CommandId(fresh),
        actor: Actor::User(id(user)),
        fingerprint: Some(Fingerprint([n as u8; 32])),
        fresh: FreshIds { subject: fresh, entry: fresh, points: [fresh; 2] },
        command: Command::ChargeWallet { user: id(user), amount: n as i64 },
    }
}

/// A reply that names the request it belongs to, by the time it was decided at.
pub(crate) fn reply_to(request: &Request) -> Reply {
    let decision = Decision::Refused(Rejection::InsufficientBalance);
    Reply { decision, decided_at: at(request.command_id.0.as_u128() as i64), replayed: false }
}

pub(crate) fn committed(batch: &Batch) -> Committed {
    Committed { replies: batch.requests.iter().map(reply_to).collect(), seats: Vec::new() }
}

/// The number that [`charge`] gave a command.
pub(crate) fn number(request: &Request) -> u128 {
    request.command_id.0.as_u128()
}

#[derive(Default)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn set(&self, s: i64) {
        self.set_ms(s * 1_000);
    }

    pub(crate) fn set_ms(&self, ms: i64) {
        self.0.store(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        at(0) + TimeDelta::milliseconds(self.0.load(Ordering::SeqCst))
    }

    fn offset(&self) -> TimeDelta {
        TimeDelta::zero()
    }
}

pub(crate) struct TestIds(AtomicI64);

impl TestIds {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1)))
    }
}

impl Ids for TestIds {
    fn fresh(&self) -> Uuid {
        Uuid::from_u128(self.0.fetch_add(1, Ordering::SeqCst) as u128)
    }
}

type Answer = Box<dyn Fn(&Batch) -> Result<Committed, LedgerError> + Send + Sync>;

/// Answers every call by `answer`, after a permit of `gate`; notes the numbers of each batch.
pub(crate) struct ScriptedLedger {
    answer: Answer,
    pub(crate) gate: Semaphore,
    pub(crate) calls: Mutex<Vec<Vec<u128>>>,
    pub(crate) begun: AtomicUsize,
    /// Under which guard each call came.
    pub(crate) guards: Mutex<Vec<Guard>>,
    /// Replies that are found stored, one a look-up.
    pub(crate) stored: Mutex<VecDeque<Option<StoredAnswer>>>,
    /// Rows that another transaction keeps locked, and whether the ledger can name them.
    pub(crate) locked: Mutex<HashSet<Key>>,
    pub(crate) sees_locks: AtomicBool,
    /// The batches that timed out waiting for one of those; they are not among the calls.
    pub(crate) timed_out: Mutex<Vec<Vec<u128>>>,
}

/// How long the scripted ledger waits for a row that is locked.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_millis(100);

impl ScriptedLedger {
    pub(crate) fn new(answer: impl Fn(&Batch) -> Result<Committed, LedgerError> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            answer: Box::new(answer),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            calls: Mutex::default(),
            begun: AtomicUsize::new(0),
            guards: Mutex::default(),
            stored: Mutex::default(),
            locked: Mutex::default(),
            sees_locks: AtomicBool::new(true),
            timed_out: Mutex::default(),
        })
    }

    /// One that waits for [`ScriptedLedger::let_through`] before each call.
    pub(crate) fn gated(answer: impl Fn(&Batch) -> Result<Committed, LedgerError> + Send + Sync + 'static) -> Arc<Self> {
        let ledger = Self::new(answer);
        ledger.gate.forget_permits(Semaphore::MAX_PERMITS);
        ledger
    }

    pub(crate) fn let_through(&self, calls: usize) {
        self.gate.add_permits(calls);
    }

    /// Another transaction keeps the wallet of `user` locked from now on.
    pub(crate) fn lock_wallet(&self, user: u128) {
        self.locked.lock().unwrap().insert(Key::Account(id(user)));
    }

    pub(crate) fn unlock_all(&self) {
        self.locked.lock().unwrap().clear();
    }

    fn locked_rows(&self, requests: &[Request]) -> BTreeSet<Key> {
        let locked = self.locked.lock().unwrap();
        requests.iter().flat_map(|request| request.command.rows()).filter(|row| locked.contains(row)).collect()
    }

    pub(crate) fn batches(&self) -> Vec<Vec<u128>> {
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait]
impl Ledger for ScriptedLedger {
    async fn transact(&self, batch: Batch, guard: Guard, _: Deadline) -> Result<Committed, LedgerError> {
        self.guards.lock().unwrap().push(guard);
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        if !self.locked_rows(&batch.requests).is_empty() {
            tokio::time::sleep(LOCK_TIMEOUT).await;
            if !self.locked_rows(&batch.requests).is_empty() {
                self.timed_out.lock().unwrap().push(batch.requests.iter().map(number).collect());
                return Err(LedgerError::LockTimeout);
            }
        }
        self.calls.lock().unwrap().push(batch.requests.iter().map(number).collect());
        (self.answer)(&batch)
    }

    async fn held(&self, requests: Arc<[Request]>) -> Result<BTreeSet<Key>, LedgerError> {
        let sees = self.sees_locks.load(Ordering::SeqCst);
        Ok(if sees { self.locked_rows(&requests) } else { BTreeSet::new() })
    }

    async fn reply(&self, _: IdempotencyKey) -> Result<Option<StoredAnswer>, LedgerError> {
        Ok(self.stored.lock().unwrap().pop_front().flatten())
    }
}

/// A hold of the best seat of a date as command `n`. Unless it is the `last`, it may have to choose again.
pub(crate) fn best(user: u128, n: u128, last: bool) -> Request {
    let command = Command::HoldSeats { user: id(user), date: id(DATE), count: 1, choices: vec![vec![1]], best: true, last };
    Request { command, ..charge(user, n) }
}

/// Lets time pass until `what` holds; the tests' clock is paused, so this costs none.
pub(crate) async fn eventually(what: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if what() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the condition never came");
}

/// Lets other tasks run until `what` holds; the tests' clock is paused, so this costs no time.
pub(crate) async fn until(what: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if what() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the condition never came");
}

/// Seats of [`date`], all of one section, row, grade and price.
pub(crate) fn seat_row(number: u32, version: i64, state: SeatState) -> SeatRow {
    let seat = Seat { key: key(number), section: Some("A".into()), row: Some("1".into()), grade: "R".into(), price: 100, state };
    SeatRow { seat, version }
}

pub(crate) fn key(number: u32) -> SeatKey {
    SeatKey { date: id(DATE), number }
}

pub(crate) const CONCERT: u128 = 77;
pub(crate) const DATE: u128 = 78;

/// Queries of a catalogue that may be another one each time.
pub(crate) fn catalog(mut read: impl FnMut() -> Vec<ConcertRow> + Send + 'static) -> MockQueries {
    let (mut queries, mut version) = (MockQueries::new(), 0);
    queries.expect_catalog_version().returning(move || {
        version += 1;
        Ok(version)
    });
    queries.expect_catalog().returning(move || Ok(read()));
    queries
}

/// An empty catalogue.
pub(crate) fn empty_catalogue() -> Arc<Catalogue> {
    Catalogue::new(Arc::new(catalog(Vec::new)))
}

/// A concert with one date, bookable for a thousand seconds.
pub(crate) fn concert_row(seats_version: i64) -> ConcertRow {
    let date = DateRow {
        date: DateRef { id: id(DATE), starts_at: at(2_000), ends_at: None },
        key: "day-1".into(),
        booking_opens_at: at(0),
        booking_closes_at: at(1_000),
        refund_closes_at: at(1_000),
        total: 4,
        price_min: 100,
        price_max: 100,
        seats_version,
    };
    ConcertRow {
        concert: ConcertRef { id: id(CONCERT), name: "N".into(), venue: "V".into() },
        key: "k".into(),
        time_zone: "UTC".into(),
        sale_starts_at: None,
        admission: Admission { mode: AdmissionMode::Running, max_active: 10, per_interval: None, auto: false, adaptive: false },
        dates: vec![date],
    }
}

/// A paid reservation of `user`, as an outcome.
pub(crate) fn paid(user: u128) -> Outcome {
    let payment = Payment {
        id: id(1),
        reservation: id(2),
        user: id(user),
        amount: 100,
        points_spent: 0,
        points_granted: 5,
        paid_at: at(0),
        refund: None,
    };
    let reservation = Reservation {
        id: id(2),
        user: id(user),
        concert: concert_row(1).concert,
        date: concert_row(1).dates[0].date.clone(),
        seats: vec![SeatAtSale { number: 1, section: None, row: None, grade: "R".into(), price: 100 }],
        status: ReservationStatus::Confirmed,
        created_at: at(0),
        expires_at: at(300),
        extensions: 0,
        payment: Some(id(1)),
    };
    Outcome::Paid { payment, reservation, last_hold: true }
}

/// A subscriber that notes the numbers that spans record.
#[derive(Clone, Default)]
pub(crate) struct Spans(Arc<Mutex<Vec<(&'static str, u64)>>>);

impl Spans {
    pub(crate) fn recorded(&self, field: &str) -> Vec<u64> {
        self.0.lock().unwrap().iter().filter(|(name, _)| *name == field).map(|(_, value)| *value).collect()
    }
}

impl tracing::field::Visit for &Spans {
    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        self.0.lock().unwrap().push((field.name(), value));
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
}

impl tracing::Subscriber for Spans {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut &*self);
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {}

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
