//! The rows a batch is decided over, and what deciding makes of them.

use crate::Rejection;
use crate::money::Money;
use crate::reply::{Outcome, Reply};
use crate::{
    Account, ConcertId, DateId, DateTerms, Event, Fingerprint, IdempotencyKey, Payment, PaymentId, PointsEntry, Request, Reservation,
    ReservationId, ReservationStatus, Seat, SeatKey, SeatState, Timestamp, UserId, WalletEntry,
};
use std::collections::HashMap;
use std::sync::Arc;

/// The settings a decision obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub hold_ttl_s: u32,
    /// How often one hold may be extended.
    pub extensions_max: u32,
    pub max_seats_per_user: u32,
    /// The largest amount of one charge or use.
    pub amount_max: Money,
    /// The highest balance a charge may lead to.
    pub balance_max: Money,
    /// Points granted, as a percentage of the money paid.
    pub reward_percent: u32,
    pub idempotency_ttl_s: u32,
}

/// What one ledger call decides and commits. Owned and cheap to clone: it moves to writer threads and spawned tasks.
#[derive(Clone, Debug)]
pub struct Batch {
    pub requests: Arc<[Request]>,
    pub policy: Arc<Policy>,
}

impl Batch {
    pub fn new(requests: impl Into<Arc<[Request]>>, policy: Arc<Policy>) -> Self {
        Self { requests: requests.into(), policy }
    }
}

/// A row with the version it was read at; `None` when it is new. `dirty` rows are written, one version higher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked<T> {
    pub value: T,
    pub version: Option<i64>,
    pub dirty: bool,
}

impl<T> Tracked<T> {
    pub fn read(value: T, version: i64) -> Self {
        Self { value, version: Some(version), dirty: false }
    }

    pub fn new(value: T) -> Self {
        Self { value, version: None, dirty: true }
    }

    /// The version it is written with: the first is 1.
    pub fn next_version(&self) -> i64 {
        self.version.unwrap_or(0) + 1
    }

    /// For changing it: the row will be written.
    pub fn change(&mut self) -> &mut T {
        self.dirty = true;
        &mut self.value
    }
}

/// An answer as it is kept. Live until `expires_at`; after that its key runs anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReply {
    pub fingerprint: Fingerprint,
    pub result: Result<Outcome, Rejection>,
    pub decided_at: Timestamp,
    pub expires_at: Timestamp,
}

impl StoredReply {
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// The answer again, as it was first given.
    pub fn replay(&self) -> Reply {
        Reply { decision: self.result.clone().into(), decided_at: self.decided_at, replayed: true }
    }
}

/// A reservation of one user and date that may count against the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupied {
    pub seats: u32,
    /// A hold counts until then; sold seats (`None`) always.
    pub live_until: Option<Timestamp>,
}

/// A hold of a user who pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveHold {
    pub concert: ConcertId,
    /// Its end.
    pub until: Timestamp,
}

/// A seat as a commit left it. Of two changes of a seat the one with the higher version is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatChange {
    pub key: SeatKey,
    pub version: i64,
    pub state: SeatState,
}

/// What a ledger loads for a batch, and after [`crate::decide_batch`] what it must write: dirty rows, and everything
/// in `written`.
#[derive(Clone, Debug)]
pub struct WorkingSet {
    /// The store's clock, read once in the load.
    pub now: Timestamp,
    /// Stored replies of the batch's keys; expired ones may be among them.
    pub replies: HashMap<IdempotencyKey, StoredReply>,
    pub accounts: HashMap<UserId, Tracked<Account>>,
    pub seats: HashMap<SeatKey, Tracked<Seat>>,
    pub reservations: HashMap<ReservationId, Tracked<Reservation>>,
    pub payments: HashMap<PaymentId, Tracked<Payment>>,
    pub dates: HashMap<DateId, Arc<DateTerms>>,
    pub occupied: HashMap<(UserId, DateId), HashMap<ReservationId, Occupied>>,
    /// The holds of the users who pay; some may be over.
    pub holds: HashMap<UserId, HashMap<ReservationId, LiveHold>>,
    pub written: Written,
}

/// What is appended, in the order it was decided.
#[derive(Clone, Debug, Default)]
pub struct Written {
    pub entries: Vec<WalletEntry>,
    pub points_entries: Vec<PointsEntry>,
    pub events: Vec<Event>,
    /// Keys into [`WorkingSet::replies`].
    pub replies: Vec<IdempotencyKey>,
}

impl WorkingSet {
    pub fn new(now: Timestamp) -> Self {
        Self {
            now,
            replies: HashMap::new(),
            accounts: HashMap::new(),
            seats: HashMap::new(),
            reservations: HashMap::new(),
            payments: HashMap::new(),
            dates: HashMap::new(),
            occupied: HashMap::new(),
            holds: HashMap::new(),
            written: Written::default(),
        }
    }

    /// Whether the decision changed anything that a store must write.
    pub fn is_unchanged(&self) -> bool {
        self.written.replies.is_empty()
            && self.written.events.is_empty()
            && !self.accounts.values().any(|row| row.dirty)
            && !self.seats.values().any(|row| row.dirty)
            && !self.reservations.values().any(|row| row.dirty)
    }

    /// The seats that change, with the versions they are written at.
    pub fn seat_changes(&self) -> Vec<SeatChange> {
        let dirty = self.seats.values().filter(|row| row.dirty);
        dirty.map(|row| SeatChange { key: row.value.key, version: row.next_version(), state: row.value.state }).collect()
    }

    pub(crate) fn account(&mut self, user: UserId) -> &mut Tracked<Account> {
        // A missing account is written only if it is changed.
        self.accounts.entry(user).or_insert_with(|| Tracked { value: Account::empty(user), version: None, dirty: false })
    }

    /// The user's live and sold seats of a date.
    pub(crate) fn occupied_seats(&self, user: UserId, date: DateId) -> u32 {
        let now = self.now;
        let live = |occupied: &&Occupied| occupied.live_until.is_none_or(|until| until > now);
        self.occupied.get(&(user, date)).map_or(0, |all| all.values().filter(live).map(|occupied| occupied.seats).sum())
    }

    /// Whether a hold of a user who pays lives on for this concert.
    pub(crate) fn has_live_hold(&self, user: UserId, concert: ConcertId) -> bool {
        let lives = |hold: &LiveHold| hold.concert == concert && hold.until > self.now;
        self.holds.get(&user).is_some_and(|all| all.values().any(lives))
    }

    /// Notes what a changed reservation occupies, for later commands of the same batch.
    pub(crate) fn occupy(&mut self, reservation: ReservationId) {
        let Some(row) = self.reservations.get(&reservation) else { return };
        let row = &row.value;
        if let Some(all) = self.holds.get_mut(&row.user) {
            if row.status == ReservationStatus::Held {
                all.insert(row.id, LiveHold { concert: row.concert.id, until: row.expires_at });
            } else {
                all.remove(&row.id);
            }
        }
        let Some(all) = self.occupied.get_mut(&(row.user, row.date.id)) else { return };
        if row.occupies_at(self.now) {
            let live_until = (row.payment.is_none()).then_some(row.expires_at);
            all.insert(row.id, Occupied { seats: row.seats.len() as u32, live_until });
        } else {
            all.remove(&row.id);
        }
    }
}
