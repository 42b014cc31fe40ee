//! The rows and their indexes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use boxoffice_domain::money::Money;
use boxoffice_domain::{
    Account, Admission, ConcertId, ConcertRef, DateId, DateTerms, IdempotencyKey, Payment, PaymentId, PointsEntry, QueueEntryId,
    Reservation, ReservationId, ReservationStatus, Seat, SeatKey, SeatNumber, StoredReply, Timestamp, UserId, WalletEntry,
};
use boxoffice_ports::{ActivePlace, DrawRecord, OutboxRow, OwnAdmission, RoomMark};

/// A row with its version: how often it was written.
#[derive(Clone, Debug)]
pub(super) struct Row<T> {
    pub(super) value: T,
    pub(super) version: i64,
}

#[derive(Clone, Debug)]
pub(super) struct ConcertRecord {
    pub(super) concert: ConcertRef,
    pub(super) key: String,
    pub(super) time_zone: String,
    pub(super) sale_starts_at: Option<Timestamp>,
    pub(super) admission: Admission,
    pub(super) dates: HashMap<String, DateId>,
}

#[derive(Clone, Debug)]
pub(super) struct DateRecord {
    pub(super) key: String,
    pub(super) terms: Arc<DateTerms>,
    pub(super) price_min: Money,
    pub(super) price_max: Money,
    pub(super) seats_version: i64,
}

#[derive(Default)]
pub(super) struct Tables {
    /// The number of changes of concerts and dates.
    pub(super) catalog_version: i64,
    pub(super) concerts: HashMap<ConcertId, ConcertRecord>,
    pub(super) concert_keys: HashMap<String, ConcertId>,
    pub(super) dates: HashMap<DateId, DateRecord>,
    pub(super) seats: HashMap<DateId, BTreeMap<SeatNumber, Row<Seat>>>,
    pub(super) accounts: HashMap<UserId, Row<Account>>,
    /// By `seq`, which begins at 1.
    pub(super) entries: HashMap<UserId, Vec<WalletEntry>>,
    pub(super) points_entries: HashMap<UserId, Vec<PointsEntry>>,
    pub(super) reservations: HashMap<ReservationId, Row<Reservation>>,
    pub(super) reservations_of: HashMap<UserId, BTreeSet<ReservationId>>,
    /// Reservations whose status is held, by the end of the hold.
    pub(super) held: BTreeSet<(Timestamp, ReservationId)>,
    pub(super) payments: HashMap<PaymentId, Row<Payment>>,
    pub(super) payments_of: HashMap<UserId, BTreeSet<PaymentId>>,
    pub(super) replies: HashMap<IdempotencyKey, StoredReply>,
    pub(super) replies_by_end: BTreeSet<(Timestamp, IdempotencyKey)>,
    pub(super) mirrored: HashMap<ConcertId, (RoomMark, BTreeMap<QueueEntryId, ActivePlace>)>,
    pub(super) admissions: HashMap<ConcertId, OwnAdmission>,
    pub(super) draws: HashMap<ConcertId, DrawRecord>,
    /// By shard and id.
    pub(super) outbox: BTreeMap<(u32, i64), OutboxRow>,
    /// Rows of the outbox that a waiting room has still to apply, by shard and id.
    pub(super) outbox_rooms: BTreeMap<(u32, i64), OutboxRow>,
    /// The last id given to an outbox row of any shard.
    pub(super) outbox_last: i64,
    pub(super) secrets: HashMap<String, Vec<u8>>,
}

impl Tables {
    pub(super) fn seat(&self, key: SeatKey) -> Option<&Row<Seat>> {
        self.seats.get(&key.date)?.get(&key.number)
    }

    pub(super) fn put_seat(&mut self, seat: Seat, version: i64) {
        self.seats.entry(seat.key.date).or_default().insert(seat.key.number, Row { value: seat, version });
    }

    pub(super) fn put_reservation(&mut self, reservation: Reservation, version: i64) {
        let (id, user) = (reservation.id, reservation.user);
        if reservation.status == ReservationStatus::Held {
            self.held.insert((reservation.expires_at, id));
        }
        let held_until = (reservation.status == ReservationStatus::Held).then_some(reservation.expires_at);
        if let Some(before) = self.reservations.insert(id, Row { value: reservation, version })
            && held_until != Some(before.value.expires_at)
        {
            self.held.remove(&(before.value.expires_at, id));
        }
        self.reservations_of.entry(user).or_default().insert(id);
    }

    pub(super) fn put_payment(&mut self, payment: Payment, version: i64) {
        self.payments_of.entry(payment.user).or_default().insert(payment.id);
        self.payments.insert(payment.id, Row { value: payment, version });
    }

    pub(super) fn put_reply(&mut self, key: IdempotencyKey, reply: StoredReply) {
        self.replies_by_end.insert((reply.expires_at, key));
        let ends = reply.expires_at;
        if let Some(before) = self.replies.insert(key, reply)
            && before.expires_at != ends
        {
            self.replies_by_end.remove(&(before.expires_at, key));
        }
    }

    /// A user's reservations in any state.
    pub(super) fn reservations_of(&self, user: UserId) -> impl DoubleEndedIterator<Item = &Reservation> {
        let ids = self.reservations_of.get(&user).into_iter().flatten();
        ids.filter_map(|id| self.reservations.get(id)).map(|row| &row.value)
    }
}
