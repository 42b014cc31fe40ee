//! Rows in memory, loaded for a batch by its roots and written back where they are dirty: what a ledger does, without
//! one. It loads nothing that the roots and the columns hanging on them do not name, so a decision that looked further
//! would be answered with `not_found` here too.

use crate::batch::{Batch, LiveHold, Occupied, Policy, StoredReply, Tracked, WorkingSet};
use crate::decide::{Decision, Outcome, Reply, decide_batch};
use crate::money::{Money, Points};
use crate::{
    Account, Actor, Command, CommandId, ConcertRef, DateId, DateRef, DateTerms, Event, Fingerprint, FreshIds, IdempotencyKey, Payment,
    PaymentId, PointsEntry, Rejection, Request, Reservation, ReservationId, ReservationStatus, Roots, Seat, SeatKey, SeatNumber, SeatState,
    Timestamp, UserId, WalletEntry,
};
use chrono::{DateTime, TimeDelta};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

pub(super) const HOLD_TTL_S: i64 = 300;
pub(super) const IDEMPOTENCY_TTL_S: i64 = 20_000;
pub(super) const BOOKING_OPENS_S: i64 = 1_000;
pub(super) const BOOKING_CLOSES_S: i64 = 30_000;
pub(super) const REFUND_CLOSES_S: i64 = 12_000;
pub(super) const LIMIT: u32 = 4;
pub(super) const PRICE: Money = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) policy: Policy,
    pub(super) accounts: BTreeMap<UserId, Account>,
    pub(super) seats: BTreeMap<SeatKey, Seat>,
    pub(super) reservations: BTreeMap<ReservationId, Reservation>,
    pub(super) payments: BTreeMap<PaymentId, Payment>,
    pub(super) dates: BTreeMap<DateId, Arc<DateTerms>>,
    pub(super) replies: BTreeMap<IdempotencyKey, StoredReply>,
    pub(super) entries: Vec<WalletEntry>,
    pub(super) points_entries: Vec<PointsEntry>,
    pub(super) events: Vec<Event>,
    next_id: u128,
}

pub(super) fn user(n: u128) -> UserId {
    Uuid::from_u128(0xA000 + n).into()
}

pub(super) fn date(n: u128) -> DateId {
    Uuid::from_u128(0xD000 + n).into()
}

pub(super) fn seat(number: SeatNumber) -> SeatKey {
    SeatKey { date: date(1), number }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

impl World {
    /// Two dates of one concert with `seats` seats each, the first instant of booking, no user with any money. Seat
    /// prices rise with their number: seat 1 costs [`PRICE`], seat 2 one more.
    pub(super) fn new(seats: SeatNumber) -> Self {
        let concert = ConcertRef { id: Uuid::from_u128(0xC000).into(), name: "Moonlight".into(), venue: "Hall".into() };
        let mut world = Self {
            now: at(BOOKING_OPENS_S),
            policy: Policy {
                hold_ttl_s: HOLD_TTL_S as u32,
                extensions_max: 1,
                max_seats_per_user: LIMIT,
                amount_max: 10_000,
                balance_max: 50_000,
                reward_percent: 10,
                idempotency_ttl_s: IDEMPOTENCY_TTL_S as u32,
            },
            accounts: BTreeMap::new(),
            seats: BTreeMap::new(),
            reservations: BTreeMap::new(),
            payments: BTreeMap::new(),
            dates: BTreeMap::new(),
            replies: BTreeMap::new(),
            entries: Vec::new(),
            points_entries: Vec::new(),
            events: Vec::new(),
            next_id: 0x1_0000,
        };
        for id in [date(1), date(2)] {
            let terms = DateTerms {
                concert: concert.clone(),
                date: DateRef { id, starts_at: at(REFUND_CLOSES_S), ends_at: None },
                booking_opens_at: at(BOOKING_OPENS_S),
                booking_closes_at: at(BOOKING_CLOSES_S),
                refund_closes_at: at(REFUND_CLOSES_S),
            };
            world.dates.insert(id, Arc::new(terms));
            for number in 1..=seats {
                let key = SeatKey { date: id, number };
                let price = PRICE + Money::from(number) - 1;
                world.seats.insert(key, Seat { key, section: None, row: None, grade: "R".into(), price, state: SeatState::Available });
            }
        }
        world
    }

    pub(super) fn advance(&mut self, seconds: i64) {
        self.now += TimeDelta::seconds(seconds);
    }

    pub(super) fn fresh_id(&mut self) -> Uuid {
        self.next_id += 1;
        Uuid::from_u128(self.next_id)
    }

    /// A request with ids of its own and no key.
    pub(super) fn request(&mut self, actor: Actor, command: Command) -> Request {
        let fresh = FreshIds { subject: self.fresh_id(), entry: self.fresh_id(), points: [self.fresh_id(), self.fresh_id()] };
        Request { command_id: CommandId(self.fresh_id()), actor, fingerprint: None, fresh, command }
    }

    /// The same under an idempotency key; `body` stands for what the fingerprint is taken of.
    pub(super) fn keyed(&mut self, user: UserId, key: &str, body: u8, command: Command) -> Request {
        let request = self.request(Actor::User(user), command);
        Request { command_id: CommandId::derive(user, key), fingerprint: Some(Fingerprint([body; 32])), ..request }
    }

    /// Loads, decides, writes; one reply for each request.
    pub(super) fn run(&mut self, requests: Vec<Request>) -> Vec<Reply> {
        let mut set = self.load(&Roots::of(&requests));
        let replies = decide_batch(&mut set, &Batch::new(requests, Arc::new(self.policy.clone())));
        self.write(set);
        replies
    }

    /// Decides one command of `user` without a key.
    pub(super) fn decide(&mut self, user: UserId, command: Command) -> Decision {
        self.decide_as(Actor::User(user), command)
    }

    pub(super) fn decide_as(&mut self, actor: Actor, command: Command) -> Decision {
        let request = self.request(actor, command);
        self.run(vec![request]).remove(0).decision
    }

    /// Decides one command that must be refused and must change nothing.
    pub(super) fn refuse(&mut self, user: UserId, command: Command) -> Rejection {
        self.refuse_as(Actor::User(user), command)
    }

    pub(super) fn refuse_as(&mut self, actor: Actor, command: Command) -> Rejection {
        let request = self.request(actor, command);
        let before = self.clone();
        let decision = self.run(vec![request]).remove(0).decision;
        assert_eq!(*self, before, "a refusal changes nothing");
        match decision {
            Decision::Refused(rejection) => rejection,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(super) fn charge(&mut self, user: UserId, amount: Money) {
        let decision = self.decide(user, Command::ChargeWallet { user, amount });
        assert!(matches!(decision, Decision::Done(_)), "{decision:?}");
    }

    pub(super) fn hold(&mut self, user: UserId, seats: &[SeatNumber]) -> Reservation {
        match self.decide(user, hold(user, seats)) {
            Decision::Done(Outcome::Held { reservation, .. }) => reservation,
            other => panic!("not held: {other:?}"),
        }
    }

    pub(super) fn pay(&mut self, user: UserId, reservation: ReservationId, points: Points) -> Payment {
        match self.decide(user, Command::Pay { user, reservation, points }) {
            Decision::Done(Outcome::Paid { payment, .. }) => payment,
            other => panic!("not paid: {other:?}"),
        }
    }

    pub(super) fn balance(&self, user: UserId) -> Money {
        self.accounts.get(&user).map_or(0, |account| account.balance)
    }

    pub(super) fn points(&self, user: UserId) -> Points {
        self.accounts.get(&user).map_or(0, |account| account.points)
    }

    pub(super) fn state(&self, number: SeatNumber) -> SeatState {
        self.seats[&seat(number)].state
    }

    /// What happened to seats and reservations since `from` events, as `held 3` and `held [3]`.
    pub(super) fn events_since(&self, from: usize) -> Vec<String> {
        let written = self.events[from..].iter().map(|event| match event {
            Event::Seat { seat, .. } => format!("{} {seat}", event.kind()),
            Event::Reservation { seats, .. } => format!("{} {seats:?}", event.kind()),
            _ => event.kind().to_owned(),
        });
        written.collect()
    }

    pub(super) fn load(&self, roots: &Roots) -> WorkingSet {
        let mut set = WorkingSet::new(self.now);
        let payments = roots.payments.iter().filter_map(|id| self.payments.get(id));
        set.payments = payments.map(|row| (row.id, Tracked::read(row.clone(), 1))).collect();
        let of_payments = set.payments.values().map(|row| row.value.reservation);
        let reservations = roots.reservations.iter().copied().chain(of_payments).filter_map(|id| self.reservations.get(&id));
        set.reservations = reservations.map(|row| (row.id, Tracked::read(row.clone(), 1))).collect();
        let of_reservations = set.reservations.values().flat_map(|row| row.value.seat_keys());
        let seats = roots.seats.iter().copied().chain(of_reservations).filter_map(|key| self.seats.get(&key));
        set.seats = seats.map(|row| (row.key, Tracked::read(row.clone(), 1))).collect();
        let accounts = roots.accounts.iter().filter_map(|id| self.accounts.get(id));
        set.accounts = accounts.map(|row| (row.user, Tracked::read(row.clone(), 1))).collect();
        let dates = roots.dates.iter().copied().chain(set.reservations.values().map(|row| row.value.date.id));
        set.dates = dates.filter_map(|id| self.dates.get(&id).map(|terms| (id, Arc::clone(terms)))).collect();
        set.replies = roots.replies.iter().filter_map(|key| self.replies.get(key).map(|reply| (*key, reply.clone()))).collect();
        for &(user, date) in &roots.occupied {
            // A store may hand over holds that are over and not yet swept: the decision counts by the instant.
            let may_count = |row: &&Reservation| matches!(row.status, ReservationStatus::Held | ReservationStatus::Confirmed);
            let theirs = self.reservations.values().filter(|row| row.user == user && row.date.id == date).filter(may_count);
            let occupied = theirs.map(|row| {
                let live_until = row.payment.is_none().then_some(row.expires_at);
                (row.id, Occupied { seats: row.seats.len() as u32, live_until })
            });
            set.occupied.insert((user, date), occupied.collect());
        }
        for &user in &roots.payers {
            let held = self.reservations.values().filter(|row| row.user == user && row.status == ReservationStatus::Held);
            let holds = held.map(|row| (row.id, LiveHold { concert: row.concert.id, until: row.expires_at }));
            set.holds.insert(user, holds.collect());
        }
        set
    }

    fn write(&mut self, set: WorkingSet) {
        let written = set.written;
        write_rows(&mut self.accounts, set.accounts.into_iter().filter(|(_, row)| row.dirty || row.version.is_some()));
        write_rows(&mut self.seats, set.seats.into_iter());
        write_rows(&mut self.reservations, set.reservations.into_iter());
        write_rows(&mut self.payments, set.payments.into_iter());
        for key in written.replies {
            self.replies.insert(key, set.replies[&key].clone());
        }
        self.entries.extend(written.entries);
        self.points_entries.extend(written.points_entries);
        self.events.extend(written.events);
    }
}

/// A row that is not dirty must be what was read, or a ledger would lose the change.
fn write_rows<K: Ord, V: PartialEq + std::fmt::Debug>(to: &mut BTreeMap<K, V>, rows: impl Iterator<Item = (K, Tracked<V>)>) {
    for (key, row) in rows {
        if row.dirty {
            to.insert(key, row.value);
        } else {
            assert_eq!(to.get(&key), Some(&row.value), "changed and not marked as dirty");
        }
    }
}

/// Named seats of the first date.
pub(super) fn hold(user: UserId, seats: &[SeatNumber]) -> Command {
    let choices = vec![seats.to_vec()];
    Command::HoldSeats { user, date: date(1), count: seats.len() as u32, choices, best: false, last: false }
}
