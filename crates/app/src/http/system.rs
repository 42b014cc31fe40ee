//! Routes outside booking: users of development mode, metrics, the OpenAPI document and its page.

use std::sync::{Arc, LazyLock};

use actix_web::http::StatusCode;
use actix_web::http::header::{self, ContentType};
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use boxoffice_domain::UserId;
use boxoffice_domain::text::TEXT_MAX;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer;
use super::auth::DevUser;
use super::body::Body;
use super::lane::LANE_NAME_MAX;
use super::params::{self, Query};
use super::problem::{Code, Problem};
use super::state::App;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    #[schema(min_length = 1, max_length = 200, example = "Ann")]
    name: String,
    /// Whether the token opens `/admin`.
    operator: Option<bool>,
    /// The lane they stand in, where waiting rooms have one of that name.
    #[schema(min_length = 1, max_length = 64)]
    lane: Option<String>,
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
    let sign = |name: &str, operator, lane: Option<&str>| app.auth.sign_dev(&DevUser { user, name, operator, lane }, app.clock.now());
    let off = || Problem::new(Code::DevModeOff, "users come from the issuer of their tokens here");
    sign("", false, None).ok_or_else(off)??;
    Query::none(&request)?;
    let new: NewUser = body.parse()?;
    for (field, value, max) in [("name", Some(new.name.as_str()), TEXT_MAX), ("lane", new.lane.as_deref(), LANE_NAME_MAX)] {
        params::text(field, value, max)?;
        if value.is_some_and(|value| value.trim().is_empty()) {
            return Err(Problem::field(field, "must not be empty"));
        }
    }
    let access_token = sign(&new.name, new.operator.unwrap_or(false), new.lane.as_deref()).ok_or_else(off)??;
    answer::json(StatusCode::CREATED, &CreatedUser { user_id: user.0, access_token })
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text")))]
pub(crate) async fn metrics(app: Data<App>) -> Result<HttpResponse, Problem> {
    for concert in app.catalogue.concerts().iter() {
        let id = concert.concert.id;
        // From memory: a scrape reads no room's log.
        if let Ok(counts) = app.rooms.look(id, |room, now| room.counts(now)) {
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
