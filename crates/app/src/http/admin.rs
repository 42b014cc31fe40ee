//! Operators: the catalogue, admission, figures of a sale, and charges to a user's wallet.

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use boxoffice_domain::concert::Fault;
use boxoffice_domain::money::Money;
use boxoffice_domain::{Actor, Admission, Command, ConcertId, PerInterval, UserId};
use boxoffice_engine::SeatCounts;
use boxoffice_ports::{ImportEffect, Imported, Opening, Source};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer;
use super::body::Body;
use super::caller::Operator;
use super::document::{self, ConcertDocument};
use super::execution;
use super::idempotency::{self, Keyed};
use super::lookup;
use super::params::{Id, Query};
use super::problem::Problem;
use super::state::App;
use super::views::{AdmissionView, ModeView, PerIntervalView, WalletEntryView};
use super::wallet::Charge;
use crate::json::Strict;
use crate::max_active::MaxActive;

#[derive(Serialize, ToSchema)]
pub(crate) struct ImportedConcert<'a> {
    id: Uuid,
    key: &'a str,
    /// Those of the document, in its order.
    dates: Vec<ImportedDateView<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ImportedDate)]
pub(crate) struct ImportedDateView<'a> {
    id: Uuid,
    key: &'a str,
    starts_at: DateTime<Utc>,
    /// All seats of the date, those of earlier documents included.
    total: u64,
}

/// Put a concert on sale, or bring it up to date. What takes longer than a request may is answered 503 and goes on: the
/// same document, sent again, finds it.
#[utoipa::path(post, path = "/api/v1/admin/concerts", tag = "admin", request_body = ConcertDocument, responses(
    (status = 201, description = "A new concert", body = ImportedConcert),
    (status = 200, description = "One that was there: brought up to date, or unchanged", body = ImportedConcert)))]
pub(crate) async fn import(app: Data<App>, _: Operator, request: HttpRequest, body: Body) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    let plan = document::parse_one(body.parse::<Strict>()?.0, app.settings.money.amount_max).map_err(not_valid)?;
    // In a task of its own: a season's seats may take longer than the request. The same document then finds them.
    let importing = actix_web::rt::spawn(async move {
        let imported = app.stores.catalog.import(vec![plan], app.settings.default_admission()).await?;
        let imported = imported.into_iter().next().ok_or_else(|| Problem::internal("an import without a result"))?;
        if let Err(error) = show(&app, &imported).await {
            // It is written; the background shows it within a moment.
            tracing::warn!(error, concert.id = %imported.id, "an import is not shown yet");
        }
        Ok::<_, Problem>(imported)
    });
    let imported = importing.await.map_err(Problem::internal)??;
    let dates =
        imported.dates.iter().map(|date| ImportedDateView { id: date.id.0, key: &date.key, starts_at: date.starts_at, total: date.total });
    let view = ImportedConcert { id: imported.id.0, key: &imported.key, dates: dates.collect() };
    if imported.effect != ImportEffect::Created {
        return answer::ok(&view);
    }
    let mut response = answer::json(StatusCode::CREATED, &view)?;
    let location = format!("/api/v1/concerts/{}", imported.id).try_into().map_err(|_| Problem::internal("an id is no header"))?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// The refusal of a document; a fault without a field is the whole body's.
fn not_valid(faults: Vec<Fault>) -> Problem {
    let named = |mut fault: Fault| {
        if fault.field.is_empty() {
            fault.field = "body".to_owned();
        }
        fault.into()
    };
    Problem::fields(faults.into_iter().map(named).collect())
}

/// Catalogue an import on this instance at once.
async fn show(app: &App, imported: &Imported) -> Result<(), Source> {
    app.catalogue.refresh(&app.seats).await?;
    if let Some(row) = app.catalogue.concert(imported.id) {
        let opening = Opening { concert: imported.id, sale_starts_at: row.sale_starts_at, admission: row.admission };
        app.room.open(opening).await?;
    }
    Ok(())
}

/// How a concert admits.
#[utoipa::path(get, path = "/api/v1/admin/concerts/{id}/admission", tag = "admin",
    responses((status = 200, description = "Its admission", body = AdmissionView)))]
pub(crate) async fn admission(id: Id<ConcertId>, app: Data<App>, _: Operator, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    let admission = lookup::with_room(&app, id.0, async || app.room.admission(id.0).await).await?;
    answer::ok(&AdmissionView::new(admission, &app.room.summary(id.0).await?))
}

/// What is absent stays as it is.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdmissionPatch {
    mode: Option<ModeView>,
    max_active: Option<MaxActive>,
    /// Null takes the rate away.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<PerIntervalView>)]
    per_interval: Option<Option<PerIntervalView>>,
    adaptive: Option<bool>,
}

/// Distinguishes null from absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<PerIntervalView>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl AdmissionPatch {
    fn merge(&self, mut admission: Admission) -> Result<Admission, Problem> {
        if let Some(mode) = self.mode {
            admission.mode = mode.into();
        }
        if let Some(max_active) = self.max_active {
            (admission.max_active, admission.auto) = max_active.parts();
        }
        if let Some(per_interval) = self.per_interval {
            admission.per_interval = per_interval.map(|per| PerInterval { count: per.count, seconds: per.seconds });
        }
        if let Some(adaptive) = self.adaptive {
            admission.adaptive = adaptive;
        }
        match admission.faults() {
            faults if faults.is_empty() => Ok(admission),
            faults => Err(Problem::fields(faults.into_iter().map(Into::into).collect())),
        }
    }
}

/// How often a change is merged again because another operator changed the same admission meanwhile.
const MERGES_MAX: usize = 100;

/// Pause, resume, drain, or change how many are let in; from now on and over restarts.
#[utoipa::path(patch, path = "/api/v1/admin/concerts/{id}/admission", tag = "admin", request_body = AdmissionPatch,
    responses((status = 200, description = "Its admission from now on", body = AdmissionView)))]
pub(crate) async fn set_admission(
    id: Id<ConcertId>,
    app: Data<App>,
    _: Operator,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    let patch: AdmissionPatch = body.parse()?;
    // Of two changes of different fields at once none is lost: the second one is merged again.
    for _ in 0..MERGES_MAX {
        let was = lookup::with_room(&app, id.0, async || app.room.admission(id.0).await).await?;
        let admission = patch.merge(was)?;
        if app.room.set_admission(id.0, was, admission).await? {
            return answer::ok(&AdmissionView::new(admission, &app.room.summary(id.0).await?));
        }
    }
    Err(Problem::internal("the admission kept changing concurrently"))
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Stats {
    waiting: u64,
    active: u64,
    /// Turns that ended with a payment.
    served: u64,
    left: u64,
    expired: u64,
    /// Over the last minute.
    admitted_per_s: f64,
    /// Seats of all dates.
    total: u64,
    available: u64,
    held: u64,
    sold: u64,
    /// Money taken, less refunds.
    revenue: Money,
    /// Null while it is not measured.
    eta_calibration: Option<f64>,
}

/// How a concert's sale goes.
#[utoipa::path(get, path = "/api/v1/admin/concerts/{id}/stats", tag = "admin",
    responses((status = 200, description = "Its figures now", body = Stats)))]
pub(crate) async fn stats(id: Id<ConcertId>, app: Data<App>, _: Operator, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    let concert = lookup::concert(&app, id.0).await?;
    let room = lookup::with_room(&app, id.0, async || app.room.counts(id.0).await).await?;
    let revenue = app.stores.queries.revenue(id.0).await?;
    let mut seats = SeatCounts::default();
    for date in &concert.dates {
        let counts = app.seats.counts(date.date.id).await?;
        seats.total += counts.total;
        seats.available += counts.available;
        seats.held += counts.held;
        seats.sold += counts.sold;
    }
    answer::ok(&Stats {
        waiting: room.waiting,
        active: room.active,
        served: room.served,
        left: room.left,
        expired: room.expired,
        admitted_per_s: room.admitted_per_s,
        total: seats.total,
        available: seats.available,
        held: seats.held,
        sold: seats.sold,
        revenue,
        eta_calibration: room.eta_calibration,
    })
}

/// Put money into a user's wallet.
#[utoipa::path(post, path = "/api/v1/admin/users/{id}/wallet/charges", tag = "admin", request_body = Charge,
    responses((status = 201, description = "The new line of that user's journal", body = WalletEntryView)))]
pub(crate) async fn charge(
    id: Id<UserId>,
    app: Data<App>,
    operator: Operator,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, Problem> {
    Query::none(&request)?;
    let key = idempotency::key(&request, operator.0)?;
    let charge = Charge::parse(&body)?;
    let keyed = Keyed::new(key, &request, &charge)?;
    let command = Command::ChargeWallet { user: id.0, amount: charge.amount() };
    execution::execute(&app, app.wallet.as_ref(), Actor::Operator(operator.0), keyed, command).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_domain::AdmissionMode;

    #[test]
    fn patch_changes_what_it_names_and_nothing_else() {
        let before = Admission {
            mode: AdmissionMode::Running,
            max_active: 5,
            per_interval: Some(PerInterval { count: 2, seconds: 3 }),
            auto: false,
            adaptive: false,
        };
        let merged = |patch: &str| serde_json::from_str::<AdmissionPatch>(patch).unwrap().merge(before).ok();
        assert_eq!(merged("{}"), Some(before));
        assert_eq!(merged(r#"{"mode": "paused"}"#), Some(Admission { mode: AdmissionMode::Paused, ..before }));
        assert_eq!(merged(r#"{"max_active": 9}"#), Some(Admission { max_active: 9, ..before }));
        assert_eq!(merged(r#"{"per_interval": null}"#), Some(Admission { per_interval: None, ..before }));
        let rate = Some(PerInterval { count: 1, seconds: 1 });
        assert_eq!(merged(r#"{"per_interval": {"count": 1, "seconds": 1}}"#), Some(Admission { per_interval: rate, ..before }));
        assert_eq!(merged(r#"{"max_active": 0}"#), None);
        assert_eq!(merged(r#"{"adaptive": true}"#), Some(Admission { adaptive: true, ..before }));
        let auto = Admission { max_active: boxoffice_domain::admission::MAX_ACTIVE_MAX, auto: true, ..before };
        assert_eq!(merged(r#"{"max_active": "auto"}"#), Some(auto));
        let refused = [r#"{"adaptive": 1}"#, r#"{"max_active": "many"}"#, r#"{"mode": "off"}"#, r#"{"per_interval": {"count": 1}}"#];
        for refused in refused {
            assert!(serde_json::from_str::<AdmissionPatch>(refused).is_err(), "{refused}");
        }
    }
}
