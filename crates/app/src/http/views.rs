//! What the public surface shows of the domain, field for field. Views borrow what they show and are serialised once.
//!
//! A view is made of a record and an instant, never of a clock: a replay is rendered at the instant it was decided, so
//! that it repeats its first answer byte for byte.

use super::tickets::Tickets;
use crate::max_active::MaxActive;
use boxoffice_domain::draw::Hash32;
use boxoffice_domain::money::{Money, Points};
use boxoffice_domain::waiting::{AdaptiveState, RoomSummary};
use boxoffice_domain::{
    Admission, AdmissionMode, ConcertId, ConcertRef, DateRef, Entry, EntryKind, Eta, Payment, Place, PointsEntry, PointsKind, QueueStatus,
    Reservation, ReservationStatus, SeatAtSale, SeatNumber, waiting,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// One page of a list, newest first unless the list says otherwise.
#[derive(Serialize, ToSchema)]
pub(crate) struct List<T> {
    pub(crate) items: Vec<T>,
    /// For `?cursor=`; null at the end.
    pub(crate) next_cursor: Option<String>,
}

/// A list that is always whole.
#[derive(Serialize, ToSchema)]
pub(crate) struct Items<T> {
    pub(crate) items: Vec<T>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ConcertRef)]
pub(crate) struct ConcertRefView<'a> {
    id: Uuid,
    name: &'a str,
    venue: &'a str,
}

impl<'a> From<&'a ConcertRef> for ConcertRefView<'a> {
    fn from(concert: &'a ConcertRef) -> Self {
        Self { id: concert.id.0, name: &concert.name, venue: &concert.venue }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = DateRef)]
pub(crate) struct DateRefView {
    id: Uuid,
    starts_at: DateTime<Utc>,
    ends_at: Option<DateTime<Utc>>,
}

impl From<&DateRef> for DateRefView {
    fn from(date: &DateRef) -> Self {
        Self { id: date.id.0, starts_at: date.starts_at, ends_at: date.ends_at }
    }
}

/// A seat with the grade and price it had when it was held.
#[derive(Serialize, ToSchema)]
#[schema(as = SeatAtSale)]
pub(crate) struct SeatAtSaleView<'a> {
    number: SeatNumber,
    section: Option<&'a str>,
    row: Option<&'a str>,
    grade: &'a str,
    /// Minor units.
    price: Money,
}

impl<'a> From<&'a SeatAtSale> for SeatAtSaleView<'a> {
    fn from(seat: &'a SeatAtSale) -> Self {
        let (section, row) = (seat.section.as_deref(), seat.row.as_deref());
        Self { number: seat.number, section, row, grade: &seat.grade, price: seat.price }
    }
}

#[derive(ToSchema)]
#[schema(as = ReservationStatus, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's type")]
pub(crate) enum ReservationStatusSchema {
    Held,
    Confirmed,
    Released,
    Expired,
    Cancelled,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Reservation)]
pub(crate) struct ReservationView<'a> {
    id: Uuid,
    #[schema(value_type = ReservationStatusSchema)]
    status: ReservationStatus,
    concert: ConcertRefView<'a>,
    date: DateRefView,
    seats: Vec<SeatAtSaleView<'a>>,
    total: Money,
    #[schema(example = "KRW")]
    currency: &'a str,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    /// Whole seconds left; 0 unless it is held.
    expires_in_s: i64,
    extensions_left: u32,
    payment_id: Option<Uuid>,
}

impl<'a> ReservationView<'a> {
    /// As it is at `at`. `extensions_left` is for as long as it is held.
    pub(crate) fn at(reservation: &'a Reservation, at: DateTime<Utc>, extensions_left: u32, currency: &'a str) -> Self {
        let status = reservation.status_at(at);
        let held = status == ReservationStatus::Held;
        Self {
            id: reservation.id.0,
            status,
            concert: (&reservation.concert).into(),
            date: (&reservation.date).into(),
            seats: reservation.seats.iter().map(Into::into).collect(),
            total: reservation.total(),
            currency,
            created_at: reservation.created_at,
            expires_at: reservation.expires_at,
            expires_in_s: if held { (reservation.expires_at - at).num_seconds() } else { 0 },
            extensions_left: if held { extensions_left } else { 0 },
            payment_id: reservation.payment.map(|id| id.0),
        }
    }
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PaymentStatus {
    Paid,
    Refunded,
}

/// What opens the door for one seat.
#[derive(Serialize, ToSchema)]
#[schema(as = Ticket)]
pub(crate) struct TicketView {
    seat: SeatNumber,
    #[schema(example = "1H3K7Q2M8Z9YD3M0E4T7QXWK")]
    code: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Refund)]
pub(crate) struct RefundView {
    /// Money that came back.
    amount: Money,
    points_restored: Points,
    points_taken_back: Points,
    /// Granted points that were spent already, kept from the money.
    shortfall: Money,
    refunded_at: DateTime<Utc>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Payment)]
pub(crate) struct PaymentView<'a> {
    id: Uuid,
    reservation_id: Uuid,
    status: PaymentStatus,
    concert: ConcertRefView<'a>,
    date: DateRefView,
    seats: Vec<SeatAtSaleView<'a>>,
    /// Money taken: prices as held, less points spent.
    amount: Money,
    #[schema(example = "KRW")]
    currency: &'a str,
    points_spent: Points,
    points_granted: Points,
    tickets: Vec<TicketView>,
    paid_at: DateTime<Utc>,
    refund: Option<RefundView>,
}

impl<'a> PaymentView<'a> {
    pub(crate) fn new(payment: &Payment, reservation: &'a Reservation, currency: &'a str, tickets: &Tickets) -> Self {
        let ticket = |seat: &SeatAtSale| TicketView { seat: seat.number, code: tickets.code(payment.id, seat.number) };
        Self {
            id: payment.id.0,
            reservation_id: payment.reservation.0,
            status: if payment.refund.is_some() { PaymentStatus::Refunded } else { PaymentStatus::Paid },
            concert: (&reservation.concert).into(),
            date: (&reservation.date).into(),
            seats: reservation.seats.iter().map(Into::into).collect(),
            amount: payment.amount,
            currency,
            points_spent: payment.points_spent,
            points_granted: payment.points_granted,
            tickets: reservation.seats.iter().map(ticket).collect(),
            paid_at: payment.paid_at,
            refund: payment.refund.as_ref().map(|refund| RefundView {
                amount: refund.amount,
                points_restored: refund.points_restored,
                points_taken_back: refund.points_taken_back,
                shortfall: refund.shortfall,
                refunded_at: refund.refunded_at,
            }),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Wallet)]
pub(crate) struct WalletView<'a> {
    /// Minor units.
    pub(crate) balance: Money,
    #[schema(example = "KRW")]
    pub(crate) currency: &'a str,
}

#[derive(ToSchema)]
#[schema(as = EntryKind, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's type")]
pub(crate) enum EntryKindSchema {
    Charge,
    Use,
    Payment,
    Refund,
}

/// One line of a wallet's journal.
#[derive(Serialize, ToSchema)]
#[schema(as = WalletEntry)]
pub(crate) struct EntryView<'a> {
    id: Uuid,
    #[schema(value_type = EntryKindSchema)]
    kind: EntryKind,
    /// Signed.
    amount: Money,
    /// What it left.
    balance: Money,
    memo: Option<&'a str>,
    reservation_id: Option<Uuid>,
    payment_id: Option<Uuid>,
    created_at: DateTime<Utc>,
}

impl<'a> From<&'a Entry> for EntryView<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            id: entry.id.0,
            kind: entry.kind,
            amount: entry.amount,
            balance: entry.balance,
            memo: entry.memo.as_deref(),
            reservation_id: entry.reservation.map(|id| id.0),
            payment_id: entry.payment.map(|id| id.0),
            created_at: entry.created_at,
        }
    }
}

#[derive(ToSchema)]
#[schema(as = RewardKind, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's type")]
pub(crate) enum PointsKindSchema {
    Grant,
    Spend,
    Restore,
    TakeBack,
}

/// One line of the points' journal.
#[derive(Serialize, ToSchema)]
#[schema(as = Reward)]
pub(crate) struct RewardView {
    id: Uuid,
    #[schema(value_type = PointsKindSchema)]
    kind: PointsKind,
    /// Signed.
    points: Points,
    /// What it left.
    balance: Points,
    payment_id: Uuid,
    created_at: DateTime<Utc>,
}

impl From<&PointsEntry> for RewardView {
    fn from(entry: &PointsEntry) -> Self {
        Self {
            id: entry.id.0,
            kind: entry.kind,
            points: entry.points,
            balance: entry.balance,
            payment_id: entry.payment.0,
            created_at: entry.created_at,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Rewards {
    /// What one owns now.
    pub(crate) points: Points,
    pub(crate) items: Vec<RewardView>,
    pub(crate) next_cursor: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = QueueStatus)]
pub(crate) enum QueueStatusView {
    PreSale,
    Waiting,
    SoldOut,
    Active,
    Done,
    Expired,
    Left,
}

impl From<QueueStatus> for QueueStatusView {
    fn from(status: QueueStatus) -> Self {
        match status {
            QueueStatus::PreSale => Self::PreSale,
            QueueStatus::Waiting => Self::Waiting,
            QueueStatus::SoldOut => Self::SoldOut,
            QueueStatus::Active => Self::Active,
            QueueStatus::Done => Self::Done,
            QueueStatus::Expired => Self::Expired,
            QueueStatus::Left => Self::Left,
        }
    }
}

/// How long one will wait: the 10th, 50th and 90th percentile.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[schema(as = Eta)]
pub(crate) struct EtaView {
    low_s: u32,
    mid_s: u32,
    high_s: u32,
}

impl From<Eta> for EtaView {
    fn from(eta: Eta) -> Self {
        Self { low_s: eta.low_s, mid_s: eta.mid_s, high_s: eta.high_s }
    }
}

/// One's place in the waiting room of a concert. All keys, always.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = Queue)]
pub(crate) struct QueueView {
    pub(crate) concert_id: Uuid,
    pub(crate) entry_id: Uuid,
    /// For the header `Queue-Token`. Changes when the turn comes.
    pub(crate) token: String,
    pub(crate) status: QueueStatusView,
    /// The fixed ordinal, from 1, while one waits or has the turn.
    pub(crate) place: Option<u64>,
    /// How many wait before one; 0 is next.
    pub(crate) ahead: Option<u64>,
    pub(crate) eta: Option<EtaView>,
    /// Null while it is not measured.
    pub(crate) chance: Option<f64>,
    /// When to ask again.
    pub(crate) poll_after_ms: Option<u32>,
    /// The end of the turn.
    pub(crate) active_until: Option<DateTime<Utc>>,
    pub(crate) sale_starts_at: Option<DateTime<Utc>>,
    /// Null: places are in order of arrival.
    pub(crate) draw: Option<DrawBrief>,
}

/// What a stream begins with, and says again when a number cannot be computed: one's place, without its token.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct QueueFrame {
    /// Always `queue`.
    #[schema(example = "queue")]
    r#type: &'static str,
    /// The next frame has the next one; a `queue` frame begins the count anew.
    seq: u64,
    /// How many were admitted from one's lane, ever.
    admitted: u64,
    concert_id: Uuid,
    entry_id: Uuid,
    status: QueueStatusView,
    place: Option<u64>,
    ahead: Option<u64>,
    eta: Option<EtaView>,
    chance: Option<f64>,
    poll_after_ms: Option<u32>,
    active_until: Option<DateTime<Utc>>,
    sale_starts_at: Option<DateTime<Utc>>,
    draw: Option<DrawBrief>,
}

impl QueueFrame {
    pub(crate) fn new(concert: ConcertId, place: &Place, seq: u64, admitted: u64, now: DateTime<Utc>) -> Self {
        let shown = QueueView::new(concert, place, String::new(), now);
        Self {
            r#type: "queue",
            seq,
            admitted,
            concert_id: shown.concert_id,
            entry_id: shown.entry_id,
            status: shown.status,
            place: shown.place,
            ahead: shown.ahead,
            eta: shown.eta,
            chance: shown.chance,
            poll_after_ms: shown.poll_after_ms,
            active_until: shown.active_until,
            sale_starts_at: shown.sale_starts_at,
            draw: shown.draw,
        }
    }
}

impl QueueView {
    /// A place as it is shown at `now`.
    pub(crate) fn new(concert: ConcertId, place: &Place, token: String, now: DateTime<Utc>) -> Self {
        let shows_place = matches!(place.status, QueueStatus::Waiting | QueueStatus::SoldOut | QueueStatus::Active);
        Self {
            concert_id: concert.0,
            entry_id: place.entry.0,
            token,
            status: place.status.into(),
            place: shows_place.then_some(place.arrival),
            ahead: place.ahead,
            eta: place.eta.map(Into::into),
            chance: place.chance.map(|permille| f64::from(permille) / 1_000.0),
            poll_after_ms: waiting::poll_after_ms(place, now),
            active_until: place.active_until,
            sale_starts_at: place.sale_starts_at,
            draw: place.draw.map(Into::into),
        }
    }
}

/// The draw of those who come before the sale: see `/concerts/{id}/draw`. In lower-case hex.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct DrawBrief {
    /// SHA-256 of the seed.
    commitment: String,
    /// Null until it is revealed.
    seed: Option<String>,
}

impl From<(Hash32, Option<Hash32>)> for DrawBrief {
    fn from((commitment, seed): (Hash32, Option<Hash32>)) -> Self {
        Self { commitment: hex(&commitment), seed: seed.map(|seed| hex(&seed)) }
    }
}

/// Lower-case.
pub(crate) fn hex(hash: &Hash32) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
        }
        text
    })
}

/// At most `count` admitted in every window of `seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PerInterval)]
pub(crate) struct PerIntervalView {
    #[schema(minimum = 1, maximum = 1_000_000, example = 50)]
    pub(crate) count: u32,
    #[schema(minimum = 1, maximum = 3_600, example = 1)]
    pub(crate) seconds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AdmissionMode)]
pub(crate) enum ModeView {
    Running,
    /// Joining goes on, promotion stops.
    Paused,
    /// Nobody new may join; who waits is still admitted.
    Draining,
}

impl From<AdmissionMode> for ModeView {
    fn from(mode: AdmissionMode) -> Self {
        match mode {
            AdmissionMode::Running => Self::Running,
            AdmissionMode::Paused => Self::Paused,
            AdmissionMode::Draining => Self::Draining,
        }
    }
}

impl From<ModeView> for AdmissionMode {
    fn from(mode: ModeView) -> Self {
        match mode {
            ModeView::Running => Self::Running,
            ModeView::Paused => Self::Paused,
            ModeView::Draining => Self::Draining,
        }
    }
}

/// How a concert admits.
#[derive(Serialize, ToSchema)]
#[schema(as = Admission)]
pub(crate) struct AdmissionView {
    mode: ModeView,
    #[schema(example = 200)]
    max_active: MaxActive,
    /// Null: no rate.
    per_interval: Option<PerIntervalView>,
    adaptive: bool,
    /// What comes of it at this moment.
    state: AdmissionStateView,
}

/// What the policies allow now.
#[derive(Serialize, ToSchema)]
#[schema(as = AdmissionState)]
pub(crate) struct AdmissionStateView {
    /// The most that may be active.
    max_active: u32,
    /// Promotions per second that the servers bear; null while they fare well.
    rate_per_s: Option<f64>,
    /// The worst that the instances have reported in the last seconds; null where none has.
    p99_ms: Option<u32>,
    error_share: Option<f64>,
}

impl AdmissionView {
    pub(crate) fn new(admission: Admission, room: &RoomSummary) -> Self {
        let per_interval = admission.per_interval.map(|per| PerIntervalView { count: per.count, seconds: per.seconds });
        let AdaptiveState { rate_per_s, p99_ms, errors_permille } = room.adaptive;
        let error_share = errors_permille.map(|permille| f64::from(permille) / 1_000.0);
        Self {
            mode: admission.mode.into(),
            max_active: MaxActive::of(admission.max_active, admission.auto),
            per_interval,
            adaptive: admission.adaptive,
            state: AdmissionStateView { max_active: room.max_active, rate_per_s, p99_ms, error_share },
        }
    }
}

#[cfg(test)]
mod tests;
