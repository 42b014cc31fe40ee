//! A place in a waiting room, as a poll and as a stream's first frame show it.

use boxoffice_domain::draw::Hash32;
use boxoffice_domain::{ConcertId, Eta, Place, QueueStatus, waiting};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::hex::hex;

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
