//! What stands beside the booking: users of development mode, health, metrics, the OpenAPI document and its page.

use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, ContentType};
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use boxoffice_domain::{ConcertId, UserId};
use boxoffice_ports::{RoomError, Source};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::App;
use super::answer;
use super::body::Body;
use super::params::Query;
use super::problem::{Code, Problem};

/// The longest name of a user of development mode, characters.
const NAME_MAX: usize = 200;
/// How long a readiness check waits for an answer.
const CHECK_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    #[schema(min_length = 1, max_length = 200, example = "Ann")]
    name: String,
    /// Whether the token opens `/admin`.
    operator: Option<bool>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedUser {
    user_id: Uuid,
    /// For `Authorization: Bearer`.
    access_token: String,
}

/// A new user with an empty wallet, in development mode only.
#[utoipa::path(post, path = "/api/v1/dev/users", tag = "users", request_body = NewUser,
    responses((status = 201, description = "The user and a bearer token", body = CreatedUser)))]
pub(crate) async fn create_user(app: Data<App>, request: HttpRequest, body: Body) -> Result<HttpResponse, Problem> {
    let user = UserId(app.ids.fresh());
    let sign = |name: &str, operator| app.auth.sign_dev(user, name, operator, app.clock.now());
    let off = || Problem::new(Code::DevModeOff, "users come from the issuer of their tokens here");
    sign("", false).ok_or_else(off)??;
    Query::none(&request)?;
    let new: NewUser = body.parse()?;
    if new.name.trim().is_empty() || new.name.chars().count() > NAME_MAX {
        return Err(Problem::field("name", format!("must be 1 to {NAME_MAX} characters")));
    }
    let access_token = sign(&new.name, new.operator.unwrap_or(false)).ok_or_else(off)??;
    answer::json(StatusCode::CREATED, &CreatedUser { user_id: user.0, access_token })
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Live {
    #[schema(example = "live")]
    status: &'static str,
}

/// 200 while the process runs.
#[utoipa::path(get, path = "/health/live", tag = "health", responses((status = 200, description = "It runs", body = Live)))]
pub(crate) async fn live() -> Result<HttpResponse, Problem> {
    answer::ok(&Live { status: "live" })
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Ready {
    #[schema(example = "sqlite")]
    store: &'static str,
    /// As it is configured: `store` is wherever the store keeps its rows.
    #[schema(example = "store")]
    queue: &'static str,
    strategy: Strategies,
    checks: Vec<Check>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Strategies {
    #[schema(example = "combining")]
    seat: &'static str,
    #[schema(example = "combining")]
    wallet: &'static str,
    #[schema(example = "combining")]
    payment: &'static str,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Check {
    #[schema(example = "store")]
    name: &'static str,
    ok: bool,
    /// What is wrong; null when nothing is.
    detail: Option<String>,
}

/// Whether it can serve, and what is down when it cannot.
#[utoipa::path(get, path = "/health/ready", tag = "health", responses(
    (status = 200, description = "It can serve", body = Ready),
    (status = 503, description = "It cannot: see `checks`", body = Ready)))]
pub(crate) async fn ready(app: Data<App>) -> Result<HttpResponse, Problem> {
    // A read that goes all the way to the store: anybody's wallet, which need not exist.
    let store = check("store", async { app.stores.queries.wallet(UserId(Uuid::nil())).await.map(|_| ()).map_err(Source::from) });
    let queue = check("queue", async {
        match app.room.counts(ConcertId(Uuid::nil())).await {
            Ok(_) | Err(RoomError::NoRoom) => Ok(()),
            Err(error) => Err(error.into()),
        }
    });
    let (store, queue) = tokio::join!(store, queue);
    let status = if store.ok && queue.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let settings = &app.settings;
    let strategy = &settings.strategy;
    let view = Ready {
        store: settings.store.backend.name(),
        queue: settings.queue.backend.name(),
        strategy: Strategies { seat: strategy.seat.name(), wallet: strategy.wallet.name(), payment: strategy.payment.name() },
        checks: vec![store, queue],
    };
    answer::json(status, &view)
}

async fn check(name: &'static str, probe: impl Future<Output = Result<(), Source>>) -> Check {
    let detail = match tokio::time::timeout(CHECK_MAX, probe).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            tracing::warn!(error, check = name, "a readiness check failed");
            Some("it does not work; the log says why".to_owned())
        }
        Err(_) => Some(format!("no answer within {} s", CHECK_MAX.as_secs())),
    };
    Check { name, ok: detail.is_none(), detail }
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text")))]
pub(crate) async fn metrics(app: Data<App>) -> Result<HttpResponse, Problem> {
    for concert in app.shows.concerts().iter() {
        let id = concert.concert.id;
        if let Ok(counts) = app.room.counts(id).await {
            app.metrics.room(id, &counts);
        }
    }
    let text = app.metrics.encode().map_err(Problem::internal)?;
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, super::metrics::CONTENT_TYPE)).body(text))
}

/// The OpenAPI document.
pub(crate) async fn openapi_json(app: Data<App>) -> HttpResponse {
    HttpResponse::Ok().insert_header(ContentType::json()).body(app.openapi_json.clone())
}

pub(crate) async fn to_docs() -> HttpResponse {
    HttpResponse::Found().insert_header((header::LOCATION, "/api/docs")).finish()
}

pub(crate) async fn to_docs_page() -> HttpResponse {
    HttpResponse::Found().insert_header((header::LOCATION, "/api/docs/")).finish()
}

/// A file of the page that shows the OpenAPI document.
pub(crate) async fn docs(path: web::Path<String>) -> Result<HttpResponse, Problem> {
    static CONFIG: LazyLock<Arc<utoipa_swagger_ui::Config<'static>>> =
        LazyLock::new(|| Arc::new(utoipa_swagger_ui::Config::from("/api/openapi.json").persist_authorization(true)));
    let file = utoipa_swagger_ui::serve(&path, CONFIG.clone()).map_err(|error| Problem::internal(error.to_string()))?;
    let file = file.ok_or_else(Problem::not_found)?;
    let mut response = HttpResponse::Ok();
    response.content_type(file.content_type);
    if file.gzpipped {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    Ok(response.body(file.bytes.into_owned()))
}
