//! The catalogue: concerts in public, their dates for buyers in their turn.

use std::time::Duration;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use boxoffice_domain::money::Money;
use boxoffice_domain::{AdmissionMode, ConcertId};
use boxoffice_ports::{ConcertRow, Deadline, RoomError};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer;
use super::caller::User;
use super::in_time;
use super::lookup;
use super::params::{self, Cursor, Id, Paging, Query};
use super::problem::Problem;
use super::state::App;
use super::turn;
use super::views::{Items, List};

/// How long an answer waits for rooms that must read their log. One exchange with a log takes some milliseconds.
const ROOMS_MAX: Duration = Duration::from_millis(250);

#[derive(Serialize, ToSchema)]
#[schema(as = Concert)]
pub(crate) struct ConcertView<'a> {
    id: Uuid,
    name: &'a str,
    venue: &'a str,
    /// An IANA name.
    #[schema(example = "Asia/Seoul")]
    time_zone: &'a str,
    /// Null: the queue is open at once.
    sale_starts_at: Option<DateTime<Utc>>,
    queue: QueueSummary,
    /// By `starts_at`.
    dates: Vec<ConcertDateView>,
}

/// The waiting room as every client may see it.
#[derive(Serialize, ToSchema)]
pub(crate) struct QueueSummary {
    status: RoomStatus,
    waiting: u64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RoomStatus {
    /// Joining is possible, promotion begins at `sale_starts_at`.
    PreSale,
    Running,
    Paused,
    Draining,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ConcertDate)]
pub(crate) struct ConcertDateView {
    id: Uuid,
    starts_at: DateTime<Utc>,
    ends_at: Option<DateTime<Utc>>,
    /// Minor units.
    price_min: Money,
    price_max: Money,
}

/// A date of a concert as those see it whose turn it is.
#[derive(Serialize, ToSchema)]
#[schema(as = Date)]
pub(crate) struct DateView {
    id: Uuid,
    starts_at: DateTime<Utc>,
    ends_at: Option<DateTime<Utc>>,
    booking_opens_at: DateTime<Utc>,
    booking_closes_at: DateTime<Utc>,
    refund_closes_at: DateTime<Utc>,
    total: u64,
    available: u64,
}

/// How the room admits, and how many wait. While a room's log cannot be read, the state in memory is shown.
async fn queue_of(app: &App, id: ConcertId, until: Deadline) -> (AdmissionMode, u64) {
    let read = async { Ok::<_, RoomError>((app.room.summary(id).await?.mode, app.room.counts(id).await?.waiting)) };
    match until.bound(read).await {
        Ok(Ok(found)) => found,
        // Just imported, or its log is away.
        _ => app.rooms.look(id, |room, now| (room.summary(now).mode, room.counts(now).waiting)).unwrap_or((AdmissionMode::Running, 0)),
    }
}

async fn view<'a>(app: &App, row: &'a ConcertRow, until: Deadline) -> ConcertView<'a> {
    let id = row.concert.id;
    let (mode, waiting) = queue_of(app, id, until).await;
    let status = match mode {
        AdmissionMode::Paused => RoomStatus::Paused,
        AdmissionMode::Draining => RoomStatus::Draining,
        AdmissionMode::Running if row.sale_starts_at.is_some_and(|start| app.clock.now() < start) => RoomStatus::PreSale,
        AdmissionMode::Running => RoomStatus::Running,
    };
    let dates = row.dates.iter().map(|row| ConcertDateView {
        id: row.date.id.0,
        starts_at: row.date.starts_at,
        ends_at: row.date.ends_at,
        price_min: row.price_min,
        price_max: row.price_max,
    });
    ConcertView {
        id: id.0,
        name: &row.concert.name,
        venue: &row.concert.venue,
        time_zone: &row.time_zone,
        sale_starts_at: row.sale_starts_at,
        queue: QueueSummary { status, waiting },
        dates: dates.collect(),
    }
}

/// The order of the catalogue: by start of sale, concerts without one first, then by id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ConcertCursor {
    sale_starts_at: Option<i64>,
    id: ConcertId,
}

impl From<&ConcertRow> for ConcertCursor {
    fn from(row: &ConcertRow) -> Self {
        Self { sale_starts_at: row.sale_starts_at.map(|at| at.timestamp_micros()), id: row.concert.id }
    }
}

impl Cursor for ConcertCursor {
    const TAG: u8 = b'c';

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.id.0.as_bytes());
        bytes.extend(self.sale_starts_at.iter().flat_map(|at| at.to_be_bytes()));
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (id, at) = bytes.split_first_chunk::<16>()?;
        let sale_starts_at = match at {
            [] => None,
            at => Some(i64::from_be_bytes(at.try_into().ok()?)),
        };
        Some(Self { sale_starts_at, id: Uuid::from_bytes(*id).into() })
    }
}

/// Until when an answer waits for rooms, all together.
fn rooms_until(request: &HttpRequest) -> Deadline {
    in_time::of(request).within(ROOMS_MAX)
}

/// Concerts by start of sale.
#[utoipa::path(get, path = "/api/v1/concerts", tag = "concerts",
    responses((status = 200, description = "A page of concerts", body = List<ConcertView>)))]
pub(crate) async fn list(app: Data<App>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let paging = Paging::<ConcertCursor>::of(&request)?;
    let concerts = app.catalogue.concerts();
    let limit = paging.limit as usize;
    let mut rows: Vec<&ConcertRow> = concerts.iter().map(AsRef::as_ref).collect();
    rows.sort_unstable_by_key(|row| ConcertCursor::from(*row));
    let from = paging.after.map_or(0, |after| rows.partition_point(|row| ConcertCursor::from(*row) <= after));
    let rest = &rows[from..];
    let (mut items, until) = (Vec::with_capacity(rest.len().min(limit)), rooms_until(&request));
    for row in rest.iter().take(limit) {
        items.push(view(&app, row, until).await);
    }
    let last = rest.get(limit.saturating_sub(1)).filter(|_| rest.len() > limit);
    answer::ok(&List { items, next_cursor: last.map(|row| params::encode(&ConcertCursor::from(*row))) })
}

/// One concert.
#[utoipa::path(get, path = "/api/v1/concerts/{id}", tag = "concerts",
    responses((status = 200, description = "The concert", body = ConcertView)))]
pub(crate) async fn get(id: Id<ConcertId>, app: Data<App>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    let row = lookup::concert(&app, id.0).await?;
    answer::ok(&view(&app, &row, rooms_until(&request)).await)
}

/// The dates that can still be booked.
#[utoipa::path(get, path = "/api/v1/concerts/{id}/dates", tag = "concerts",
    responses((status = 200, description = "All of them, by start", body = Items<DateView>)))]
pub(crate) async fn dates(id: Id<ConcertId>, app: Data<App>, user: User, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let token = turn::genuine(&app, &request, user.0)?;
    let concert = lookup::concert(&app, id.0).await?;
    turn::for_concert(&token, id.0)?;
    turn::is_running(&app, &token).await?;
    Query::none(&request)?;
    let now = app.clock.now();
    let mut items = Vec::new();
    for row in concert.dates.iter().filter(|row| row.booking_closes_at > now) {
        let counts = app.seats.counts(row.date.id).await?;
        items.push(DateView {
            id: row.date.id.0,
            starts_at: row.date.starts_at,
            ends_at: row.date.ends_at,
            booking_opens_at: row.booking_opens_at,
            booking_closes_at: row.booking_closes_at,
            refund_closes_at: row.refund_closes_at,
            total: counts.total,
            available: counts.available,
        });
    }
    answer::ok(&Items { items })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concerts_without_a_start_come_first_and_cursors_keep_the_order() {
        let key = |at, id| ConcertCursor { sale_starts_at: at, id: Uuid::from_u128(id).into() };
        let ordered = [key(None, 1), key(None, 2), key(Some(-5), 9), key(Some(7), 3), key(Some(7), 4)];
        assert!(ordered.is_sorted());
        for key in ordered {
            let mut bytes = Vec::new();
            key.write(&mut bytes);
            assert!(ConcertCursor::read(&bytes) == Some(key));
        }
        assert!(ConcertCursor::read(&[0; 17]).is_none());
    }
}
